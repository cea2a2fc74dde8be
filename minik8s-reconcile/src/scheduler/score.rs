//! Which of several nodes is better by itself, whatever runs elsewhere.

use super::demand::Demand;
use super::snapshot::{NodeInfo, Snapshot};
use super::{node_affinity, taint};

/// The most that one view can give.
pub(super) const MAX: i64 = 100;
/// Images smaller than this are no reason, and more than [`MOST`] of one container is no better.
const LEAST: i64 = 23 * 1024 * 1024;
const MOST: i64 = 1000 * 1024 * 1024;

/// What pods already take is compared with what the node has of these.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// What of a node's resources is to be left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Emptier nodes are better: `LeastAllocated`.
    #[default]
    Spread,
    /// Fuller nodes are better, so that others stay empty: `MostAllocated`.
    Pack,
}

/// What the node is worth for the pod, whichever nodes there are beside it: what is left of its resources, how evenly it
/// would be used, and whether it has the images.
pub(super) fn fit(demand: &Demand, node: &NodeInfo, cluster: &Snapshot, packing: Packing) -> i64 {
    let share = |used: i64, name: &str| {
        let all = node.allocatable.get(name);
        (all > 0).then(|| i64::try_from(i128::from(used) * 10_000 / i128::from(all)).unwrap_or(i64::MAX))
    };
    let counted = [0, 1].map(|i| {
        let used = node.weighed[i].saturating_add(demand.weighed[i]);
        share(used, RESOURCES[i])
    });
    let known: Vec<i64> = counted.into_iter().flatten().map(|s| s.min(10_000)).collect();
    let used = known.iter().sum::<i64>() / i64::try_from(known.len().max(1)).unwrap_or(1) / 100;
    let allocation = match packing {
        _ if known.is_empty() => 0,
        Packing::Spread => MAX - used,
        Packing::Pack => used,
    };
    let asked = RESOURCES.map(|name| {
        share(node.requested.get(name).saturating_add(demand.requests.get(name)), name).map(|s| s.min(10_000))
    });
    let balance = match asked {
        // The standard deviation of two numbers is half their difference.
        [Some(cpu), Some(memory)] => MAX - (cpu - memory).abs() / 200,
        _ => MAX,
    };
    allocation + balance + images(demand, node, cluster)
}

fn images(demand: &Demand, node: &NodeInfo, cluster: &Snapshot) -> i64 {
    let containers = &demand.spec().containers;
    if node.images.is_empty() || containers.is_empty() {
        return 0;
    }
    let nodes = i64::try_from(cluster.len().max(1)).unwrap_or(i64::MAX);
    let sum: i64 = containers
        .iter()
        .filter_map(|container| {
            let image = container.image.as_deref()?;
            let size = node.images.get(image)?;
            // Where few have it, those few are not to be flooded.
            let having = i64::try_from(cluster.nodes_with_image(image)).unwrap_or(0);
            Some(size.saturating_mul(having) / nodes)
        })
        .sum();
    let most = MOST.saturating_mul(i64::try_from(containers.len()).unwrap_or(1));
    (sum.clamp(LEAST, most) - LEAST) * MAX / (most - LEAST)
}

/// How many of the node's taints would rather keep the pod away.
pub(super) fn disliked(demand: &Demand, node: &NodeInfo) -> i64 {
    let tolerations = demand.spec().tolerations.as_deref().unwrap_or_default();
    i64::try_from(taint::disliked(node.taints(), tolerations)).unwrap_or(i64::MAX)
}

/// The sum of the weights of the pod's preferences that the node meets.
pub(super) fn preference(demand: &Demand, node: &NodeInfo) -> i64 {
    node_affinity::preference(demand.spec(), node)
}
