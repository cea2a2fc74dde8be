//! The scheduler as a controller of pods.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use super::{Decision, NodeInfo, decide};
use crate::cache::Cache;
use crate::controller::Controller;
use crate::cx::Cx;
use crate::key::Key;
use crate::placement::{self, is_over, node_of};
use crate::queue::Backoff;
use crate::reconciler::{Action, Reconciler, Result};
use crate::recorder::EventKind;
use crate::request::Patch;

/// The `schedulerName` of pods that this scheduler takes care of.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// A pod that fits nowhere is looked at again after that long even if nothing that could help it was seen.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// The scheduler, to be given to a [`crate::Manager`].
///
/// It binds one pod at a time and waits for its cache to show each binding before the next decision, so it never
/// gives the same room away twice. A pod that fits nowhere comes back when a node changes or a pod leaves one.
pub fn controller() -> Controller<impl Reconciler> {
    Controller::new(SCHEDULER_NAME, Scheduler { turn: AtomicU64::new(0) })
        .concurrency(1)
        .backoff(Backoff { base: Duration::from_millis(100), max: Duration::from_secs(10) })
        .maps_with(|_: &Node, pods: &Cache<Pod>| pending(pods))
        .maps_with(|pod: &Pod, pods: &Cache<Pod>| if frees_room(pod) { pending(pods) } else { Vec::new() })
}

/// The pods that wait for a node.
fn pending(pods: &Cache<Pod>) -> Vec<Key> {
    placement::on(pods, "").iter().map(|pod| Key::of(&**pod)).collect()
}

fn frees_room(pod: &Pod) -> bool {
    !node_of(pod).is_empty() && (pod.metadata.deletion_timestamp.is_some() || is_over(pod))
}

struct Scheduler {
    /// Counts decisions, so that equally good nodes take turns.
    turn: AtomicU64,
}

impl Reconciler for Scheduler {
    type Object = Pod;

    async fn reconcile(&self, pod: Arc<Pod>, cx: Cx) -> Result<Action> {
        let Some(spec) = &pod.spec else { return Ok(Action::Done) };
        let waits = node_of(&pod).is_empty()
            && spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
            && pod.metadata.deletion_timestamp.is_none();
        if !waits {
            return Ok(Action::Done);
        }
        let nodes = snapshot(&cx);
        match decide(&pod, &nodes, self.turn.load(Ordering::Relaxed)) {
            Decision::Node(node) => {
                bind(&pod, &node, &cx).await?;
                self.turn.fetch_add(1, Ordering::Relaxed);
                Ok(Action::Done)
            }
            Decision::Unschedulable { message } => {
                report(&pod, &message, &cx).await?;
                Ok(Action::RequeueAfter(LOOK_AGAIN))
            }
        }
    }
}

fn snapshot(cx: &Cx) -> Vec<NodeInfo> {
    let pods = cx.cache::<Pod>();
    let nodes = cx.cache::<Node>().list();
    let info = |node: Arc<Node>| {
        let there = placement::on(&pods, node.metadata.name.as_deref().unwrap_or_default());
        NodeInfo::new(node, there.iter().map(|pod| &**pod))
    };
    nodes.into_iter().filter(|n| n.metadata.deletion_timestamp.is_none()).map(info).collect()
}

async fn bind(pod: &Pod, node: &str, cx: &Cx) -> Result<()> {
    let meta = &pod.metadata;
    let (namespace, name) =
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let binding = Binding {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let pods = cx.client().namespaced::<Pod>(namespace);
    match pods.create_subresource(name, "binding", serde_json::to_vec(&binding)?).await {
        Ok(()) => {}
        // It is gone, or somebody else has bound it; the cache will show.
        Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // A binding's answer carries no version, so wait for the pod itself.
    let bound = pods.get_opt(name).await?;
    if let Some(revision) = bound.and_then(|p| p.metadata.resource_version.as_ref()?.parse().ok()) {
        cx.cache::<Pod>().wait_for(revision).await;
    }
    let message = format!("Successfully assigned {namespace}/{name} to {node}");
    cx.events().event(pod, EventKind::Normal, "Scheduled", message);
    Ok(())
}

/// Tells the pod's owner why it waits; nothing is written if that is known.
async fn report(pod: &Pod, message: &str, cx: &Cx) -> Result<()> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let known = conditions.iter().find(|c| c.type_ == "PodScheduled");
    let same = known.is_some_and(|c| {
        c.status == "False"
            && c.reason.as_deref() == Some("Unschedulable")
            && c.message.as_deref() == Some(message)
    });
    if same {
        return Ok(());
    }
    let since = known.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.or(Some(Time(cx.now()))),
        ..PodCondition::default()
    };
    let others = conditions.iter().filter(|c| c.type_ != "PodScheduled").cloned();
    let conditions: Vec<PodCondition> = others.chain([condition]).collect();
    let patch = Patch::merge(&json!({
        "metadata": { "resourceVersion": pod.metadata.resource_version },
        "status": { "conditions": conditions },
    }));
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match cx.client().namespaced::<Pod>(namespace).patch_status(name, patch).await {
        Ok(_) => {}
        Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    cx.events().event(pod, EventKind::Warning, "FailedScheduling", message);
    Ok(())
}
