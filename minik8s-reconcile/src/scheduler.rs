//! Gives pods to nodes.
//!
//! The decision is a pure function: [`decide`] takes a pod and a snapshot of the nodes. Filters say which nodes will
//! do, scores say which of them is best, and a pod that fits nowhere is told why for each node, in Kubernetes' words
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/>).

mod affinity;
mod filter;
mod reconciler;
mod resources;
mod score;
pub(crate) mod taint;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::placement::is_over;

pub use reconciler::{SCHEDULER_NAME, controller};
pub use resources::Amounts;

/// A node, and what the pods on it ask for.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Node>,
    /// What it has to give.
    pub allocatable: Amounts,
    /// What the pods on it ask for.
    pub requested: Amounts,
    /// How many pods are on it.
    pub pods: u64,
    /// Ports of the node that are taken: (protocol, address, port).
    pub host_ports: Vec<(String, String, i32)>,
}

impl NodeInfo {
    /// `node` with those of `pods` that still use it.
    pub fn new<'a>(node: Arc<Node>, pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let allocatable = allocatable.map(Amounts::of_list).unwrap_or_default();
        let mut info =
            Self { node, allocatable, requested: Amounts::default(), pods: 0, host_ports: Vec::new() };
        for pod in pods {
            if !is_over(pod) {
                info.requested.add(&Amounts::of_pod(pod));
                info.pods += 1;
                info.host_ports.extend(filter::host_ports(pod));
            }
        }
        info
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To the node of that name.
    Node(String),
    /// Nowhere for now.
    Unschedulable {
        /// Why: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`
        message: String,
    },
}

/// Chooses a node for `pod`. Among equally good ones `turn` decides, so that equals take turns.
pub fn decide(pod: &Pod, nodes: &[NodeInfo], turn: u64) -> Decision {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Vec<&NodeInfo> = Vec::new();
    let mut best_score = i64::MIN;
    for info in nodes {
        let against = filter::against(pod, info);
        if !against.is_empty() {
            for reason in against {
                *reasons.entry(reason).or_default() += 1;
            }
            continue;
        }
        let score = score::score(pod, info);
        if score > best_score {
            best_score = score;
            best.clear();
        }
        if score == best_score {
            best.push(info);
        }
    }
    if best.is_empty() {
        return Decision::Unschedulable { message: explain(nodes.len(), &reasons) };
    }
    let choice = usize::try_from(turn % best.len() as u64).unwrap_or(0);
    Decision::Node(best[choice].name().to_owned())
}

fn explain(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut words: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    words.sort();
    format!("0/{nodes} nodes are available: {}.", words.join(", "))
}

#[cfg(test)]
mod tests;
