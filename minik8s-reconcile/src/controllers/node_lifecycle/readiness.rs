//! Pods of a node that does not answer are not ready.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_api::{Kind, Registry};

use super::{condition, stamp};
use crate::cache::{Cache, Caches};
use crate::controller::Controller;
use crate::key::Key;
use crate::placement::{self, node_of};
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;
use crate::recorder::EventKind;

/// The controller of the pods' readiness, to be given to a [`crate::Manager`]: whoever sends requests to pods learns from
/// it that those of a silent node are not to have any. When the node is back, its agent says how they really are.
///
/// # Panics
/// `registry` has no Pods.
pub fn controller(registry: &Registry) -> Controller<impl Reconciler> {
    let kind = registry.of::<Pod>().expect("Pods are built in").clone();
    Controller::new("node-lifecycle-controller", Planned(Readiness { kind })).maps_with(
        |node: &Node, pods: &Cache<Pod>| {
            if silent_since(node).is_none() {
                return Vec::new();
            }
            placement::on(pods, super::name_of(node)).iter().map(|pod| Key::of(&**pod)).collect()
        },
    )
}

/// Since when the node has not answered.
fn silent_since(node: &Node) -> Option<Timestamp> {
    let ready = condition(node, "Ready").filter(|c| c.status == "Unknown")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

pub(super) struct Readiness {
    pub(super) kind: Arc<Kind>,
}

impl Planner for Readiness {
    type Object = Pod;
    type World = Option<Arc<Node>>;

    fn observe(&self, pod: &Pod, caches: &Caches) -> Self::World {
        caches.of::<Node>().get(&Key::cluster(node_of(pod)))
    }

    fn plan(&self, pod: &Pod, node: &Self::World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(silent_since) = node.as_deref().and_then(silent_since) else { return plan };
        let mut unready = pod.clone();
        let conditions = unready.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten());
        let Some(ready) = conditions.into_iter().find(|c| c.type_ == "Ready" && c.status == "True") else {
            return plan;
        };
        // What an agent has said since then is no hearsay.
        if ready.last_transition_time.as_ref().is_some_and(|since| since.0 >= silent_since) {
            return plan;
        }
        ready.status = "False".to_owned();
        ready.reason = Some("NodeNotReady".to_owned());
        ready.message = Some(format!("node {} does not answer", node_of(pod)));
        ready.last_transition_time = Some(stamp(now));
        plan.changes.push(Change::UpdateStatus(Box::new(unready), self.kind.clone()));
        plan.events.push((EventKind::Warning, "NodeNotReady", "Node is not ready".to_owned()));
        plan
    }
}
