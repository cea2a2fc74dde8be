//! Gives each node a block of addresses for its pods
//! (<https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/>, `--allocate-node-cidrs`).
//!
//! A node has its block from when it is in its spec until the node is gone; no other gets a block that shares an address
//! with it. The cluster's whole block is told in an annotation, so that a node knows what is inside.

mod ledger;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::{Cidr, Kind, Registry};

use crate::cache::Caches;
use crate::controller::Controller;
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;
use crate::recorder::EventKind;
use ledger::Ledger;

/// The annotation of a node that has the block of the whole cluster.
pub const CLUSTER_CIDR: &str = "minik8s.io/cluster-cidr";

/// The condition that says that a node has no block.
const UNAVAILABLE: &str = "NetworkUnavailable";
/// Why, where it is for us to say.
const EXHAUSTED: &str = "NoPodCIDR";
/// A node without a block is looked at again after that: another may have left.
const AGAIN: Duration = Duration::from_secs(10);
/// As many bits may number a cluster's nodes.
const MOST_BITS: u8 = 20;

/// The addresses of a cluster's pods, in blocks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    cluster: Cidr,
    mask: u8,
}

/// Blocks that nodes cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlocksError {
    /// The node's mask is not longer than the cluster's.
    #[error("{cluster} has no blocks of /{mask}: expected a mask of /{least} to /{most}")]
    Mask {
        /// The cluster's block.
        cluster: Cidr,
        /// The mask of a node's block.
        mask: u8,
        /// The shortest mask possible.
        least: u8,
        /// The longest.
        most: u8,
    },
}

impl Blocks {
    /// Blocks of `/mask` in `cluster`.
    ///
    /// # Errors
    /// There is none, none with room for a pod, or more than 2²⁰.
    pub fn new(cluster: Cidr, mask: u8) -> Result<Self, BlocksError> {
        let bits = if cluster.is_ipv4() { 32 } else { 128 };
        let (least, most) = (cluster.prefix(), (bits - 2).min(cluster.prefix() + MOST_BITS));
        let fits = (least..=most).contains(&mask);
        if fits { Ok(Self { cluster, mask }) } else { Err(BlocksError::Mask { cluster, mask, least, most }) }
    }
}

/// The controller, to be given to a [`crate::Manager`].
///
/// # Panics
/// `registry` has no Nodes.
pub fn controller(registry: &Registry, blocks: Blocks) -> Controller<impl Reconciler> {
    let kind = registry.of::<Node>().expect("Nodes are built in").clone();
    Controller::new("node-ipam-controller", Planned(NodeIpam { kind, blocks, ledger: Mutex::default() }))
}

struct NodeIpam {
    kind: Arc<Kind>,
    blocks: Blocks,
    /// What has been decided and may not be in the cache yet.
    ledger: Mutex<Ledger>,
}

/// The blocks that a node has.
fn has(node: &Node) -> impl Iterator<Item = Cidr> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default().iter();
    all.chain(spec.and_then(|s| s.pod_cidr.as_ref())).filter_map(|text| text.parse().ok())
}

fn is_given(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.is_some_and(|s| s.pod_cidr.as_ref().is_some_and(|c| !c.is_empty()) || s.pod_cidrs.is_some())
}

fn unavailable(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|c| c.type_ == UNAVAILABLE)
}

impl Planner for NodeIpam {
    type Object = Node;
    /// The block that is the node's to have.
    type World = Option<Cidr>;

    fn observe(&self, node: &Node, caches: &Caches) -> Self::World {
        if is_given(node) || node.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let nodes = caches.of::<Node>().list();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.offer(&self.blocks, node, &nodes)
    }

    fn plan(&self, node: &Node, block: &Self::World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if node.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let condition = unavailable(node);
        let ours = condition.is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some(EXHAUSTED));
        let mut updated = node.clone();
        if is_given(node) {
            if ours {
                set(&mut updated, "False", "PodCIDRGiven", "the node has addresses for pods".to_owned(), now);
                plan.changes.push(Change::UpdateStatus(Box::new(updated), self.kind.clone()));
            }
            return plan;
        }
        if let Some(block) = block {
            let spec = updated.spec.get_or_insert_default();
            spec.pod_cidr = Some(block.to_string());
            spec.pod_cidrs = Some(vec![block.to_string()]);
            let annotations = updated.metadata.annotations.get_or_insert_default();
            annotations.insert(CLUSTER_CIDR.to_owned(), self.blocks.cluster.to_string());
            // The condition follows when the block is there.
            plan.changes.push(Change::Update(Box::new(updated), self.kind.clone()));
            return plan;
        }
        plan.requeue = Some(AGAIN);
        if !ours {
            let Blocks { cluster, mask } = self.blocks;
            let message = format!(
                "all /{mask} blocks of {cluster} are taken: remove nodes, or give the cluster a larger block"
            );
            plan.events.push((EventKind::Warning, "CIDRNotAvailable", message.clone()));
            set(&mut updated, "True", EXHAUSTED, message, now);
            plan.changes.push(Change::UpdateStatus(Box::new(updated), self.kind.clone()));
        }
        plan
    }
}

/// Sets the condition.
fn set(node: &mut Node, status: &str, reason: &str, message: String, now: Timestamp) {
    let now = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    let old = unavailable(node).filter(|c| c.status == status);
    let since = old.and_then(|c| c.last_transition_time.clone()).or_else(|| now.clone());
    let condition = NodeCondition {
        type_: UNAVAILABLE.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: now,
        last_transition_time: since,
    };
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == UNAVAILABLE) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests;
