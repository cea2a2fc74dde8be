//! Making room for a pod by having less important ones go
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>).

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use minik8s_api::Selector;

use super::demand::Demand;
use super::profile::{Profile, Refusal};
use super::snapshot::Snapshot;
use crate::key::Key;

/// Nodes on which room is looked for, at most: those beyond are seldom better.
const CANDIDATES: usize = 100;

/// How many pods of a set may go without breaking what their owner asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The namespace of the PodDisruptionBudget.
    pub namespace: String,
    /// Its pods.
    pub selector: Selector,
    /// How many of them may go now.
    pub allowed: i64,
}

/// Who has to go, and from where.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// The node's name.
    pub node: String,
    /// The pods, the most important first.
    pub victims: Vec<Arc<Demand>>,
}

/// What came of looking for room.
#[derive(Clone, Debug)]
pub enum Room {
    /// There will be some when these pods have gone.
    After(Preemption),
    /// It is being made already.
    Coming,
    /// There is none, in words for the pod's owner.
    None(String),
}

/// Looks for the node from which the fewest and least important pods would have to go.
///
/// As few budgets as possible are broken; of nodes that are equal in that, the one whose most important victim is the
/// least important, then the one with the lowest sum of priorities, the fewest victims, and the one whose most
/// important victims have started last.
pub fn preempt(
    profile: &Profile,
    demand: &Demand,
    cluster: &mut Snapshot,
    refusal: &Refusal,
    budgets: &[Budget],
) -> Room {
    let nodes = refusal.nodes;
    if demand.spec().preemption_policy.as_deref() == Some("Never") {
        return Room::None("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let lower = |other: &Demand| other.priority < demand.priority;
    if let Some(node) = cluster.nomination(demand.key()) {
        let leaves = |other: &Arc<Demand>| lower(other) && other.is_leaving();
        if cluster.node(node).pods.values().any(leaves) {
            return Room::Coming;
        }
    }
    cluster.prepare(demand);
    let mut best: Option<(Rank, Preemption)> = None;
    let mut found = 0;
    let mut hopeless = 0;
    for &node in &refusal.curable {
        if !cluster.node(node).pods.values().any(|other| lower(other)) {
            hopeless += 1;
            continue;
        }
        let Some((broken, victims)) = victims(profile, demand, cluster, node, budgets) else {
            hopeless += 1;
            continue;
        };
        let rank = Rank::of(broken, &victims);
        if best.as_ref().is_none_or(|(known, _)| rank < *known) {
            best = Some((rank, Preemption { node: cluster.node(node).name().to_owned(), victims }));
        }
        found += 1;
        if found >= CANDIDATES {
            break;
        }
    }
    match best {
        Some((_, preemption)) => Room::After(preemption),
        None => {
            let useless = nodes - refusal.curable.len();
            let parts = [
                (hopeless, "No preemption victims found for incoming pod"),
                (useless, "Preemption is not helpful for scheduling"),
            ];
            let words: Vec<String> =
                parts.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect();
            Room::None(format!("0/{nodes} nodes are available: {}.", words.join(", ")))
        }
    }
}

/// The pods that would have to go from the node, and how many budgets that breaks; `None` if it does not help.
fn victims(
    profile: &Profile,
    demand: &Demand,
    cluster: &mut Snapshot,
    node: usize,
    budgets: &[Budget],
) -> Option<(usize, Vec<Arc<Demand>>)> {
    // Those of at least its priority for whom room is being made there stay in the way.
    let coming: Vec<Arc<Demand>> = cluster
        .nominated()
        .filter(|(at, other)| *at == node && other.key() != demand.key() && other.priority >= demand.priority)
        .map(|(_, other)| other.clone())
        .collect();
    let mut lower: Vec<Arc<Demand>> =
        cluster.node(node).pods.values().filter(|other| other.priority < demand.priority).cloned().collect();
    // The most important first, and of equals the one that has run for longest: they are the first to be spared.
    lower.sort_by_cached_key(|other| (Reverse(other.priority), started(other.pod()), other.key().clone()));
    let fits = |cluster: &mut Snapshot, without: &[Key]| {
        cluster.supposing(node, without, &coming, |cluster| profile.against(demand, cluster, node).is_empty())
    };
    let mut gone: Vec<Key> = lower.iter().map(|other| other.key().clone()).collect();
    if !fits(cluster, &gone) {
        return None;
    }
    // Those whose budgets would be broken are spared before the others.
    let (breaking, harmless) = by_budgets(&lower, budgets);
    let mut broken = 0;
    for (other, breaks) in breaking.iter().map(|o| (o, true)).chain(harmless.iter().map(|o| (o, false))) {
        let spared: Vec<Key> = gone.iter().filter(|key| *key != other.key()).cloned().collect();
        if fits(cluster, &spared) {
            gone = spared;
        } else if breaks {
            broken += 1;
        }
    }
    lower.retain(|other| gone.contains(other.key()));
    Some((broken, lower))
}

/// Those of `pods` whose going breaks a budget, given that those before them go too, and the others.
fn by_budgets(pods: &[Arc<Demand>], budgets: &[Budget]) -> (Vec<Arc<Demand>>, Vec<Arc<Demand>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut breaks = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.namespace == pod.key().namespace() && budget.selector.matches(pod.labels()) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

/// When the pod was started, as text that sorts by time; those not started come last.
fn started(pod: &Pod) -> String {
    let time = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    time.map_or_else(|| "~".to_owned(), |time| time.0.to_string())
}

/// How bad a preemption is: the less, the better.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    broken: usize,
    highest: i64,
    sum: i64,
    count: usize,
    /// When the earliest of the most important ones started: the later, the better.
    started: Reverse<String>,
}

impl Rank {
    fn of(broken: usize, victims: &[Arc<Demand>]) -> Self {
        let highest = victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
        // Priorities may be below zero, and many low ones are not to outweigh a high one.
        let above = |priority: i32| i64::from(priority) - i64::from(i32::MIN);
        let earliest = victims.iter().filter(|v| v.priority == highest).map(|v| started(v.pod())).min();
        Self {
            broken,
            highest: highest.into(),
            sum: victims.iter().map(|v| above(v.priority)).sum(),
            count: victims.len(),
            started: Reverse(earliest.unwrap_or_default()),
        }
    }
}
