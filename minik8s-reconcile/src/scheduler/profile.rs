//! Choosing a node: a plain function of the pod, the snapshot and whose turn it is among equals.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::demand::Demand;
use super::plugin::{Against, Filter, Score};
use super::pod_affinity::InterPodAffinity;
use super::queue::Change;
use super::score::Packing;
use super::snapshot::{NodeInfo, Snapshot};
use super::spread::PodTopologySpread;
use super::{filter, score};

/// Shapes of pods of which it is remembered what nodes are worth to them.
const SHAPES: usize = 64;
/// How much dislike of taints counts, and preferences for nodes, as in Kubernetes.
const TAINT_WEIGHT: i64 = 3;
const PREFERENCE_WEIGHT: i64 = 2;

/// How one scheduler decides: the filters that say which nodes will do, and the scores that say which of them is best.
pub struct Profile {
    filters: Vec<Box<dyn Filter>>,
    scores: Vec<Box<dyn Score>>,
    packing: Packing,
    memo: BTreeMap<Arc<str>, Memo>,
    clock: u64,
}

/// What nodes are by themselves to all pods of one shape.
#[derive(Debug, Default)]
struct Memo {
    verdicts: Vec<Verdict>,
    images_generation: u64,
    used: u64,
}

#[derive(Clone, Debug, Default)]
struct Verdict {
    /// The node's generation that it is of.
    generation: u64,
    /// Empty if the node will do.
    against: Box<[Against]>,
    fit: i64,
    disliked: i64,
    preference: i64,
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To the node of that name.
    Node(String),
    /// Nowhere for now.
    Nowhere(Refusal),
}

/// Why a pod goes nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// How many nodes there are.
    pub nodes: usize,
    /// For how many nodes each reason holds.
    pub reasons: BTreeMap<String, usize>,
    /// The filters that had something against nodes.
    pub by: BTreeSet<&'static str>,
    /// Nodes, by number, that might do if other pods went.
    pub curable: Vec<usize>,
}

impl fmt::Display for Refusal {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut words: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        words.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, words.join(", "))
    }
}

impl Default for Profile {
    /// Kubernetes' default filters and scores.
    fn default() -> Self {
        Self {
            filters: vec![Box::new(PodTopologySpread), Box::new(InterPodAffinity)],
            scores: vec![Box::new(PodTopologySpread), Box::new(InterPodAffinity)],
            packing: Packing::default(),
            memo: BTreeMap::new(),
            clock: 0,
        }
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filters: Vec<_> = self.filters.iter().map(|filter| filter.name()).collect();
        let scores: Vec<_> = self.scores.iter().map(|score| score.name()).collect();
        f.debug_struct("Profile").field("filters", &filters).field("scores", &scores).finish_non_exhaustive()
    }
}

impl Profile {
    /// Also asks this filter, after the others.
    pub fn filter(mut self, filter: impl Filter) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// Also asks this score.
    pub fn score(mut self, score: impl Score) -> Self {
        self.scores.push(Box::new(score));
        self
    }

    /// Whether emptier nodes are better, or fuller ones.
    pub fn packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Chooses a node for the pod. Among equally good ones `turn` decides, so that equals take turns.
    pub fn decide(&mut self, demand: &Demand, cluster: &mut Snapshot, turn: u64) -> Decision {
        cluster.prepare(demand);
        let (mut feasible, mut refusal) = self.feasible(demand, cluster);
        self.heed_nominated(demand, cluster, &mut feasible, &mut refusal);
        let nominated = cluster.nomination(demand.key());
        if let Some(node) = nominated.filter(|node| feasible.contains(node)) {
            // Others had to go from there for this pod.
            return Decision::Node(cluster.node(node).name().to_owned());
        }
        match self.best(demand, cluster, &feasible, turn) {
            Some(node) => Decision::Node(cluster.node(node).name().to_owned()),
            None => Decision::Nowhere(refusal),
        }
    }

    /// Whether a change may help a pod with what the filter of that name has against nodes.
    pub fn helps(&self, demand: &Demand, by: &str, change: &Change) -> bool {
        match by {
            filter::FIT => match change {
                Change::PodGone(_) => true,
                Change::Node { room, .. } => *room,
                _ => false,
            },
            filter::PORTS => match change {
                Change::PodGone(other) => !other.host_ports.is_empty(),
                Change::Node { room, .. } => *room,
                _ => false,
            },
            filter::AFFINITY => matches!(change, Change::Node { labels: true, .. }),
            filter::TAINTS | filter::UNSCHEDULABLE => matches!(change, Change::Node { taints: true, .. }),
            other => {
                let named = self.filters.iter().find(|filter| filter.name() == other);
                named.is_none_or(|filter| filter.helped_by(demand, change))
            }
        }
    }

    /// The nodes that will do, by number, and what is against the others.
    fn feasible(&mut self, demand: &Demand, cluster: &Snapshot) -> (Vec<usize>, Refusal) {
        let (filters, packing) = (&self.filters, self.packing);
        let memo = recall(&mut self.memo, &mut self.clock, demand, cluster);
        let checks: Vec<_> = filters.iter().filter_map(|filter| filter.check(demand, cluster)).collect();
        let (mut feasible, mut refusal) = (Vec::new(), Refusal::default());
        for (index, &generation) in cluster.generations().iter().enumerate() {
            if generation == 0 {
                continue;
            }
            let verdict = &mut memo.verdicts[index];
            if verdict.generation != generation {
                *verdict = Verdict::of(demand, cluster.node(index), cluster, packing, generation);
            }
            refusal.nodes += 1;
            if !verdict.against.is_empty() {
                refusal.note(index, &verdict.against);
            } else if checks.is_empty() {
                feasible.push(index);
            } else {
                match checks.iter().find_map(|check| check(cluster.node(index))) {
                    Some(against) => refusal.note(index, &[against]),
                    None => feasible.push(index),
                }
            }
        }
        (feasible, refusal)
    }

    /// Takes out nodes that will do no more when the pods have come for which room was made there, unless this one is
    /// more important.
    fn heed_nominated(
        &self,
        demand: &Demand,
        cluster: &mut Snapshot,
        feasible: &mut Vec<usize>,
        refusal: &mut Refusal,
    ) {
        let mut coming: BTreeMap<usize, Vec<Arc<Demand>>> = BTreeMap::new();
        for (node, other) in cluster.nominated() {
            if other.key() != demand.key() && other.priority >= demand.priority {
                coming.entry(node).or_default().push(other.clone());
            }
        }
        for (node, others) in coming {
            let Ok(at) = feasible.binary_search(&node) else { continue };
            let against =
                cluster.supposing(node, &[], &others, |cluster| self.against(demand, cluster, node));
            if !against.is_empty() {
                feasible.remove(at);
                refusal.note(node, &against);
            }
        }
    }

    /// What is against the node of that number, with nothing remembered.
    pub(super) fn against(&self, demand: &Demand, cluster: &Snapshot, node: usize) -> Vec<Against> {
        let info = cluster.node(node);
        let against = filter::against(demand, info);
        if !against.is_empty() {
            return against;
        }
        let mut checks = self.filters.iter().filter_map(|filter| filter.check(demand, cluster));
        checks.find_map(|check| check(info)).into_iter().collect()
    }

    fn best(&self, demand: &Demand, cluster: &Snapshot, feasible: &[usize], turn: u64) -> Option<usize> {
        if let [only] = feasible {
            return Some(*only);
        }
        let scores = self.scores(demand, cluster, feasible);
        let highest = scores.iter().max()?;
        let best = || feasible.iter().zip(&scores).filter(|(_, score)| *score == highest);
        let choice = usize::try_from(turn % best().count() as u64).unwrap_or(0);
        best().nth(choice).map(|(node, _)| *node)
    }

    /// What each of the nodes is worth.
    pub(super) fn scores(&self, demand: &Demand, cluster: &Snapshot, feasible: &[usize]) -> Vec<i64> {
        let memo = self.memo.get(demand.shape());
        let of = |node: usize| memo.and_then(|memo| memo.verdicts.get(node));
        let mut totals: Vec<i64> = feasible.iter().map(|&node| of(node).map_or(0, |v| v.fit)).collect();
        let highest = |value: fn(&Verdict) -> i64| {
            feasible.iter().filter_map(|&node| of(node)).map(value).max().unwrap_or(0)
        };
        let (disliked, preference) = (highest(|v| v.disliked), highest(|v| v.preference));
        if disliked > 0 || preference > 0 {
            for (total, &node) in totals.iter_mut().zip(feasible) {
                let Some(verdict) = of(node) else { continue };
                if disliked > 0 {
                    *total += TAINT_WEIGHT * (score::MAX - verdict.disliked * score::MAX / disliked);
                }
                if preference > 0 {
                    *total += PREFERENCE_WEIGHT * (verdict.preference * score::MAX / preference);
                }
            }
        }
        for score in &self.scores {
            let Some(rate) = score.rate(demand, cluster, feasible) else { continue };
            let mut rates: Vec<i64> = feasible.iter().map(|&node| rate(cluster.node(node))).collect();
            score.normalize(&mut rates);
            for (total, rate) in totals.iter_mut().zip(rates) {
                *total = total.saturating_add(score.weight().saturating_mul(rate));
            }
        }
        totals
    }
}

impl Verdict {
    fn of(demand: &Demand, node: &NodeInfo, cluster: &Snapshot, packing: Packing, generation: u64) -> Self {
        let against: Box<[Against]> = filter::against(demand, node).into();
        if !against.is_empty() {
            return Self { generation, against, ..Self::default() };
        }
        Self {
            generation,
            against,
            fit: score::fit(demand, node, cluster, packing),
            disliked: score::disliked(demand, node),
            preference: score::preference(demand, node),
        }
    }
}

impl Refusal {
    fn note(&mut self, node: usize, against: &[Against]) {
        for one in against {
            match self.reasons.get_mut(&*one.reason) {
                Some(count) => *count += 1,
                None => drop(self.reasons.insert(one.reason.clone().into_owned(), 1)),
            }
            self.by.insert(one.by);
        }
        if !against.iter().any(|one| one.never) {
            self.curable.push(node);
        }
    }
}

/// What is remembered of the pod's shape, with room for all nodes.
fn recall<'a>(
    memos: &'a mut BTreeMap<Arc<str>, Memo>,
    clock: &mut u64,
    demand: &Demand,
    cluster: &Snapshot,
) -> &'a mut Memo {
    *clock += 1;
    if !memos.contains_key(demand.shape()) && memos.len() >= SHAPES {
        let oldest = memos.iter().min_by_key(|(_, memo)| memo.used).map(|(shape, _)| shape.clone());
        oldest.and_then(|shape| memos.remove(&shape));
    }
    let memo = memos.entry(demand.shape().clone()).or_default();
    memo.used = *clock;
    if memo.images_generation != cluster.images_generation() {
        // What share of the nodes has an image matters to all of them.
        memo.verdicts.clear();
        memo.images_generation = cluster.images_generation();
    }
    memo.verdicts.resize(cluster.generations().len(), Verdict::default());
    memo
}
