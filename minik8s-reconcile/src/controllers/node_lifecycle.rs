//! Tells which nodes are at work, and keeps pods away from those that are not
//! (<https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller>).
//!
//! A node's agent renews its Lease in `kube-node-lease`. When that, and the heartbeats in the node's status, stay out for
//! longer than the node is believed in without them, the node's conditions become `Unknown`. Taints follow conditions:
//! `node.kubernetes.io/unreachable` and `not-ready` keep new pods away and, by their effect `NoExecute`, have
//! [`super::taint_eviction`] end those that are there when their time is over. Both go when the node is back. Pods of a
//! node that does not answer are not `Ready`, from that moment on.
//!
//! # Guarantees
//! - The time that counts is this process's own, of when it saw a sign of life: clocks of nodes may be wrong. Time in which
//!   it was held up itself does not count.
//! - Whoever begins to watch, after a restart or a change of leaders, gives every node [`Settings::start_grace`].
//! - Where most nodes of a zone fall silent together, none more is given up; where all nodes of the cluster do, it is more
//!   likely this side that is cut off, and all are kept. See [`Settings::unhealthy_percent`].
//! - Nodes are given up one by one: see [`Settings::eviction_interval`].

mod heard;
mod outage;
mod readiness;
mod taints;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::{Kind, Registry};

use self::heard::Heard;
use self::outage::{Outage, Outages};
use crate::cache::{Cache, Caches};
use crate::clock::Clock;
use crate::controller::Controller;
use crate::cx::Cx;
use crate::key::Key;
use crate::planner::{Change, Plan, Planned, Planner};
use crate::queue::Backoff;
use crate::reconciler::{Action, Reconciler, Result};
use crate::recorder::EventKind;
use crate::server::node::LEASES;

pub use self::readiness::controller as readiness;

/// What an agent answers for, and nobody knows when it is silent.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// How much silence means that a node is down, and how quickly its pods are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How long a node is believed in without a sign of life (4 s); longer, if its own Lease says so.
    pub grace: Duration,
    /// The same for a node that has not given any yet, and for all of them when this controller begins (15 s).
    pub start_grace: Duration,
    /// The time between two nodes of a zone that are given up (10 s).
    pub eviction_interval: Duration,
    /// When so many of a zone's nodes are down, and more than two, no more of them are given up (55 %).
    pub unhealthy_percent: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(4),
            start_grace: Duration::from_secs(15),
            eviction_interval: Duration::from_secs(10),
            unhealthy_percent: 55,
        }
    }
}

/// The controller of nodes, to be given to a [`crate::Manager`] beside [`readiness`]. `clock` is the manager's.
///
/// # Panics
/// `registry` has no Nodes.
pub fn controller(registry: &Registry, clock: Clock, settings: Settings) -> Controller<impl Reconciler> {
    let kind = registry.of::<Node>().expect("Nodes are built in").clone();
    let planner = Lifecycle {
        kind,
        heard: Heard::new(clock.clone(), &settings),
        outages: Outages::new(clock, &settings),
    };
    // Each decision rests on what the one before it has written.
    Controller::new("node-lifecycle-controller", Nodes(Planned(planner)))
        .concurrency(1)
        .backoff(Backoff { base: Duration::from_millis(20), max: Duration::from_secs(5) })
        .maps(|lease: &Lease| {
            let name = lease.metadata.name.as_deref().unwrap_or_default();
            let of_a_node = lease.metadata.namespace.as_deref() == Some(LEASES);
            of_a_node.then(|| Key::cluster(name)).into_iter().collect()
        })
        // How many are down bears on each that is.
        .maps_with(|_: &Node, nodes: &Cache<Node>| {
            nodes
                .list()
                .iter()
                .filter(|n| status_of(n, "Ready") != Some("True"))
                .map(|n| Key::of(&**n))
                .collect()
        })
}

/// The status of a condition of the node.
pub(super) fn status_of<'a>(node: &'a Node, type_: &str) -> Option<&'a str> {
    condition(node, type_).map(|c| c.status.as_str())
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == type_)
}

fn name_of(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// As the API writes times.
fn stamp(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// [`Lifecycle`], which forgets nodes that are gone.
struct Nodes(Planned<Lifecycle>);

impl Reconciler for Nodes {
    type Object = Node;

    async fn reconcile(&self, node: Arc<Node>, cx: Cx) -> Result<Action> {
        self.0.reconcile(node, cx).await
    }

    async fn deleted(&self, key: Key, _cx: Cx) -> Result<Action> {
        self.0.0.heard.forget(key.name());
        Ok(Action::Done)
    }
}

struct Lifecycle {
    kind: Arc<Kind>,
    heard: Heard,
    outages: Outages,
}

/// What a decision about a node rests on.
#[derive(Clone, Debug)]
struct World {
    /// Until when the node is believed in.
    believed_until: Timestamp,
    /// How things stand around it; nothing, if it is at work.
    outage: Option<Outage>,
}

impl Planner for Lifecycle {
    type Object = Node;
    type World = World;

    fn observe(&self, node: &Node, caches: &Caches) -> World {
        let lease = caches.of::<Lease>().get(&Key::new(LEASES, name_of(node)));
        let believed = self.heard.note(node, lease.as_deref());
        let down = status_of(node, "Ready") != Some("True");
        let outage = down.then(|| {
            let nodes = caches.of::<Node>().list();
            self.outages.around(node, believed, &nodes, |since, other| self.heard.after(since, other))
        });
        World { believed_until: believed.until, outage }
    }

    fn plan(&self, node: &Node, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if now < world.believed_until {
            plan.requeue = world.believed_until.duration_since(now).min(self.heard.period()).try_into().ok();
        } else if let Some(unknown) = silent(node, now) {
            if status_of(node, "Ready") == Some("True") {
                let message = format!("Node {} status is now: NodeNotReady", name_of(node));
                plan.events.push((EventKind::Normal, "NodeNotReady", message));
            }
            // The taints follow, from what this writes.
            plan.changes.push(Change::UpdateStatus(Box::new(unknown), self.kind.clone()));
            return plan;
        }
        let wanted = taints::wanted(node, world.outage.as_ref(), now);
        if let Some(wait) = wanted.wait {
            plan.requeue = Some(plan.requeue.map_or(wait, |other| other.min(wait)));
        }
        let present = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        if wanted.taints != present {
            let mut tainted = node.clone();
            tainted.spec.get_or_insert_default().taints =
                (!wanted.taints.is_empty()).then_some(wanted.taints);
            plan.changes.push(Change::Update(Box::new(tainted), self.kind.clone()));
        }
        plan
    }
}

/// The node with everything `Unknown` that its agent would know; nothing, if it is so already.
fn silent(node: &Node, now: Timestamp) -> Option<Node> {
    let mut unknown = node.clone();
    let conditions = unknown.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in CONDITIONS {
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("minik8s node has stopped telling how the node is.".to_owned());
                known.last_transition_time = Some(stamp(now));
            }
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("minik8s node has never told how the node is.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(stamp(now)),
            }),
        }
    }
    (unknown.status != node.status).then_some(unknown)
}

#[cfg(test)]
mod tests;
