//! Ends pods on nodes with taints of the effect `NoExecute` that they do not tolerate, or not for longer
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions>).
//!
//! A pod is deleted as a user would: its node ends it, and until it has, the object stays. What runs on a node that cannot
//! be reached is thus never forgotten, and nobody else gets its name; only an administrator can say that it is gone, by
//! force, by deleting the node, or with the taint `node.kubernetes.io/out-of-service`.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::{Kind, Registry};

use crate::cache::{Cache, Caches};
use crate::controller::Controller;
use crate::key::Key;
use crate::placement::{self, is_over, node_of};
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;
use crate::recorder::EventKind;
use crate::request::DeleteParams;
use crate::scheduler::taint::tolerates;

const EFFECT: &str = "NoExecute";

/// The controller, to be given to a [`crate::Manager`]. [`super::node_lifecycle`] says when a taint was added, where that
/// is not known; until then, no time runs.
///
/// # Panics
/// `registry` has no Pods.
pub fn controller(registry: &Registry) -> Controller<impl Reconciler> {
    let kind = registry.of::<Pod>().expect("Pods are built in").clone();
    Controller::new("taint-eviction-controller", Planned(TaintEviction { kind })).maps_with(
        |node: &Node, pods: &Cache<Pod>| {
            if ending(node).next().is_none() {
                return Vec::new();
            }
            let name = node.metadata.name.as_deref().unwrap_or_default();
            placement::on(pods, name).iter().map(|pod| Key::of(&**pod)).collect()
        },
    )
}

/// The node's taints that end pods.
fn ending(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| t.effect == EFFECT)
}

/// Says in a pod's status that it is ended, and not by itself.
pub(super) fn set_disruption_target(pod: &mut Pod, reason: &str, message: String, now: Timestamp) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        ..PodCondition::default()
    });
}

struct TaintEviction {
    kind: Arc<Kind>,
}

/// How long a pod may stay.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stay {
    ForEver,
    Until(Timestamp),
    /// Because of that taint.
    NoLonger(String),
}

fn stay(pod: &Pod, node: &Node, now: Timestamp) -> Stay {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut stay = Stay::ForEver;
    for taint in ending(node) {
        let gone = || Stay::NoLonger(taint.key.clone());
        let Some(toleration) = tolerations.iter().find(|t| tolerates(t, taint)) else { return gone() };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let end = since.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
        if end <= now {
            return gone();
        }
        stay = match stay {
            Stay::Until(sooner) if sooner <= end => stay,
            _ => Stay::Until(end),
        };
    }
    stay
}

impl Planner for TaintEviction {
    type Object = Pod;
    type World = Option<Arc<Node>>;

    fn observe(&self, pod: &Pod, caches: &Caches) -> Self::World {
        caches.of::<Node>().get(&Key::cluster(node_of(pod)))
    }

    fn plan(&self, pod: &Pod, node: &Self::World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = node else { return plan };
        if pod.metadata.deletion_timestamp.is_some() || is_over(pod) {
            return plan;
        }
        match stay(pod, node, now) {
            Stay::ForEver => {}
            Stay::Until(end) => plan.requeue = end.duration_since(now).try_into().ok(),
            Stay::NoLonger(taint) => {
                let meta = &pod.metadata;
                let (namespace, name) =
                    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
                let why = format!("node {} has the taint {taint}", node_of(pod));
                let mut target = pod.clone();
                set_disruption_target(&mut target, "DeletionByTaintManager", why.clone(), now);
                plan.changes.push(Change::UpdateStatus(Box::new(target), self.kind.clone()));
                let params = DeleteParams { uid: meta.uid.clone(), ..DeleteParams::default() };
                plan.changes.push(Change::Delete(self.kind.clone(), namespace, name, params));
                plan.events.push((
                    EventKind::Normal,
                    "TaintManagerEviction",
                    format!("Deleted, since {why}"),
                ));
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests;
