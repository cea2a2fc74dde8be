//! Pods that must or would rather be near others, or far from them
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>).

use super::demand::{Demand, Term};
use super::plugin::{Against, Check, Filter, Rate, Score};
use super::pod_set::PodSet;
use super::queue::Change;
use super::snapshot::{Snapshot, Topology};

/// Required and preferred affinity and anti-affinity between pods.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterPodAffinity;

const NAME: &str = "InterPodAffinity";

/// The pods that meet all required terms of a pod, if it has any: only they attract it.
pub(super) fn all(demand: &Demand) -> Option<PodSet> {
    (!demand.affinity.is_empty()).then(|| PodSet::all_of(demand.affinity.iter().map(|term| &term.set)))
}

/// The nodes that are near one another, and a number for each group of them; groups at the end may be missing.
type ByDomain<'a> = (&'a Topology, &'a [i64]);

fn at((topology, sums): &ByDomain<'_>, node: usize) -> i64 {
    topology.domain(node).and_then(|domain| sums.get(domain)).copied().unwrap_or(0)
}

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check<'a>(&'a self, demand: &'a Demand, cluster: &'a Snapshot) -> Option<Check<'a>> {
        let count = |term: &'a Term, set: &PodSet| -> ByDomain<'a> {
            let key = &term.topology_key;
            (cluster.topology(key), &cluster.tally(set).sums(key).there)
        };
        let forbidden: Vec<_> = cluster
            .carriers(demand)
            .filter(|(_, carriers)| !carriers.against_in.is_empty())
            .map(|(term, carriers)| -> ByDomain<'a> {
                (cluster.topology(&term.topology_key), &carriers.against_in)
            })
            .collect();
        let far: Vec<_> = demand.anti_affinity.iter().map(|term| count(term, &term.set)).collect();
        let near: Vec<_> =
            all(demand).iter().flat_map(|set| demand.affinity.iter().map(|term| count(term, set))).collect();
        if forbidden.is_empty() && far.is_empty() && near.is_empty() {
            return None;
        }
        // The first of a group that wants to be together has nobody to be with.
        let first = near.iter().all(|(_, counts)| counts.iter().all(|n| *n == 0))
            && all(demand).is_some_and(|set| cluster.is_member(&set, demand));
        Some(Box::new(move |node| {
            let there = |counts: &ByDomain<'_>| at(counts, node.index()) > 0;
            let against =
                |reason: &'static str, never| Some(Against { by: NAME, reason: reason.into(), never });
            let labelled = near.iter().all(|(topology, _)| topology.domain(node.index()).is_some());
            if !(labelled && (first || near.iter().all(there))) {
                return against("node(s) didn't match pod affinity rules", true);
            }
            if far.iter().any(there) {
                return against("node(s) didn't match pod anti-affinity rules", false);
            }
            if forbidden.iter().any(there) {
                return against("node(s) didn't satisfy existing pods anti-affinity rules", false);
            }
            None
        }))
    }

    fn helped_by(&self, demand: &Demand, change: &Change) -> bool {
        match change {
            // It may be who attracts it, or no longer who repels it.
            Change::PodPlaced(other) | Change::PodGone(other) => {
                demand
                    .affinity
                    .iter()
                    .chain(&demand.anti_affinity)
                    .any(|term| change.touches(&term.set, other))
                    || !other.anti_affinity.is_empty()
            }
            Change::Node { labels, .. } => *labels,
            Change::Namespace => true,
            Change::Other => false,
        }
    }
}

impl Score for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn weight(&self) -> i64 {
        2
    }

    fn rate<'a>(&'a self, demand: &'a Demand, cluster: &'a Snapshot, _: &[usize]) -> Option<Rate<'a>> {
        let own = demand.preferred.iter().map(|(weight, term)| {
            let key = &term.topology_key;
            let there: &[i64] = &cluster.tally(&term.set).sums(key).there;
            (*weight, (cluster.topology(key), there))
        });
        let wishes = cluster.carriers(demand).filter(|(_, carriers)| !carriers.wish_in.is_empty());
        let theirs = wishes
            .map(|(term, carriers)| (1, (cluster.topology(&term.topology_key), carriers.wish_in.as_slice())));
        let sums: Vec<_> = own.chain(theirs).collect();
        if sums.is_empty() {
            return None;
        }
        Some(Box::new(move |node| sums.iter().map(|(weight, sums)| weight * at(sums, node.index())).sum()))
    }

    /// Wishes may be below 0: from the least to the most is from 0 to 100.
    fn normalize(&self, rates: &mut [i64]) {
        let (least, most) =
            (rates.iter().copied().min().unwrap_or(0), rates.iter().copied().max().unwrap_or(0));
        for rate in rates {
            *rate = if most > least { (*rate - least) * 100 / (most - least) } else { 0 };
        }
    }
}
