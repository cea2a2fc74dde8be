//! Pods that are to be spread evenly over the values of a label of nodes
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>).

use super::demand::{Constraint, Demand};
use super::filter;
use super::plugin::{Against, Check, Filter, Rate, Score};
use super::queue::Change;
use super::snapshot::{NodeInfo, Snapshot, Topology};

/// `topologySpreadConstraints`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodTopologySpread;

const NAME: &str = "PodTopologySpread";

/// How many pods of a constraint are in each domain, among the nodes that count; `None` where no node counts.
fn by_domain(
    demand: &Demand,
    cluster: &Snapshot,
    constraint: &Constraint,
    others: &[&Topology],
) -> Vec<Option<i64>> {
    let key = &constraint.term.topology_key;
    let topology = cluster.topology(key);
    let tally = cluster.tally(&constraint.term.set);
    let all_eligible = !constraint.honors_taints
        && (!constraint.honors_affinity || filter::matches_any_node(demand))
        && others.iter().all(|other| std::ptr::eq(*other, topology) || other.labelled() == cluster.len());
    if all_eligible {
        // Then it has been summed up already.
        let sums = &tally.sums(key).staying;
        let in_domain =
            |(domain, size): (usize, &usize)| (*size > 0).then(|| sums.get(domain).copied().unwrap_or(0));
        return topology.sizes().iter().enumerate().map(in_domain).collect();
    }
    let mut sums = vec![None; topology.domains()];
    for node in cluster.nodes().filter(|node| has_all(others, node)) {
        let Some(domain) = topology.domain(node.index()) else { continue };
        let eligible = (!constraint.honors_affinity || filter::matches_affinity(demand, node))
            && (!constraint.honors_taints || filter::tolerates_taints(demand, node));
        if eligible {
            *sums[domain].get_or_insert(0) += tally.staying_on(node.index());
        }
    }
    sums
}

/// Whether the node has a value for each of `topologies`.
fn has_all(topologies: &[&Topology], node: &NodeInfo) -> bool {
    topologies.iter().all(|topology| topology.domain(node.index()).is_some())
}

fn topologies<'a>(cluster: &'a Snapshot, demand: &Demand, required: bool) -> Vec<&'a Topology> {
    let constraints = demand.spread.iter().filter(|c| c.required == required);
    constraints.map(|c| cluster.topology(&c.term.topology_key)).collect()
}

impl Filter for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check<'a>(&'a self, demand: &'a Demand, cluster: &'a Snapshot) -> Option<Check<'a>> {
        let all = topologies(cluster, demand, true);
        if all.is_empty() {
            return None;
        }
        let limits: Vec<_> = demand
            .spread
            .iter()
            .filter(|constraint| constraint.required)
            .map(|constraint| {
                let sums = by_domain(demand, cluster, constraint, &all);
                let known = sums.iter().flatten().count();
                let fewest = sums.iter().flatten().copied().min().unwrap_or(0);
                let fewest = if known < constraint.min_domains { 0 } else { fewest };
                let itself = i64::from(cluster.is_member(&constraint.term.set, demand));
                (cluster.topology(&constraint.term.topology_key), sums, fewest + constraint.max_skew - itself)
            })
            .collect();
        Some(Box::new(move |node| {
            for (topology, sums, most) in &limits {
                let against =
                    |reason: &'static str, never| Some(Against { by: NAME, reason: reason.into(), never });
                let Some(domain) = topology.domain(node.index()) else {
                    let reason =
                        "node(s) didn't match pod topology spread constraints (missing required label)";
                    return against(reason, true);
                };
                if sums[domain].unwrap_or(0) > *most {
                    return against("node(s) didn't match pod topology spread constraints", false);
                }
            }
            None
        }))
    }

    fn helped_by(&self, demand: &Demand, change: &Change) -> bool {
        match change {
            Change::PodPlaced(other) | Change::PodGone(other) => {
                demand.spread.iter().any(|c| c.required && change.touches(&c.term.set, other))
            }
            // Another domain, or one that counts no longer.
            Change::Node { labels, taints, .. } => *labels || *taints,
            Change::Namespace | Change::Other => false,
        }
    }
}

impl Score for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn weight(&self) -> i64 {
        2
    }

    fn rate<'a>(&'a self, demand: &'a Demand, cluster: &'a Snapshot, feasible: &[usize]) -> Option<Rate<'a>> {
        let all = topologies(cluster, demand, false);
        if all.is_empty() {
            return None;
        }
        let parts: Vec<_> = demand
            .spread
            .iter()
            .filter(|constraint| !constraint.required)
            .map(|constraint| {
                let topology = cluster.topology(&constraint.term.topology_key);
                let sums = by_domain(demand, cluster, constraint, &all);
                let mut among: Vec<usize> =
                    feasible.iter().filter_map(|&node| topology.domain(node)).collect();
                among.sort_unstable();
                among.dedup();
                // With many domains a pod more in one of them is less than with few.
                let weight = (among.len() as f64 + 2.0).ln();
                (topology, sums, weight, constraint.max_skew - 1)
            })
            .collect();
        Some(Box::new(move |node| {
            if !has_all(&all, node) {
                return IGNORED;
            }
            let cost = |(topology, sums, weight, skew): &(&Topology, Vec<Option<i64>>, f64, i64)| {
                let there = topology.domain(node.index()).and_then(|domain| sums[domain]).unwrap_or(0);
                there as f64 * weight + *skew as f64
            };
            // Fewer are better.
            -(parts.iter().map(cost).sum::<f64>().round() as i64)
        }))
    }

    /// The node with the fewest gets 100; one without the labels nothing.
    fn normalize(&self, rates: &mut [i64]) {
        let costs: Vec<i64> = rates.iter().filter(|rate| **rate != IGNORED).map(|rate| -rate).collect();
        let (least, most) =
            (costs.iter().copied().min().unwrap_or(0), costs.iter().copied().max().unwrap_or(0));
        for rate in rates {
            *rate = match *rate {
                IGNORED => 0,
                _ if most == 0 => 100,
                rate => (most + least + rate) * 100 / most,
            };
        }
    }
}

/// The rate of a node that lacks a label.
const IGNORED: i64 = i64::MIN;
