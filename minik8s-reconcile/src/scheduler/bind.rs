//! What the scheduler does to pods: gives them to nodes, says why they wait, and has them go.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use crate::client::Client;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::recorder::{EventKind, Recorder};
use crate::request::{DeleteParams, Patch};

/// Carries decisions out.
#[derive(Clone)]
pub(super) struct Effects {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) recorder: Recorder,
}

/// What a pod's owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unschedulable {
    reason: &'static str,
    pub(super) message: String,
    /// The node on which room is being made.
    pub(super) nominated: Option<String>,
}

impl Unschedulable {
    /// It fits nowhere.
    pub(super) fn because(message: String) -> Self {
        Self { reason: "Unschedulable", message, nominated: None }
    }

    /// It is not to be scheduled yet.
    pub(super) fn gated() -> Self {
        let message = "Scheduling is blocked due to non-empty scheduling gates".to_owned();
        Self { reason: "SchedulingGated", message, nominated: None }
    }

    fn condition(pod: &Pod) -> Option<&PodCondition> {
        pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "PodScheduled")
    }

    /// Whether the pod says so already.
    pub(super) fn is_known(&self, pod: &Pod) -> bool {
        let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_ref());
        nominated == self.nominated.as_ref()
            && Self::condition(pod).is_some_and(|c| {
                c.status == "False"
                    && c.reason.as_deref() == Some(self.reason)
                    && c.message.as_ref() == Some(&self.message)
            })
    }
}

impl Effects {
    /// Gives the pod to the node of that name.
    pub(super) async fn bind(&self, pod: &Arc<Pod>, node: &str) -> Result<(), ApiError> {
        let meta = &pod.metadata;
        let (namespace, name) = names(pod);
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
        let body = serde_json::to_vec(&binding).map_err(|e| ApiError::internal(e.to_string()))?;
        self.client.namespaced::<Pod>(namespace).create_subresource(name, "binding", body).await?;
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.recorder.event(&**pod, EventKind::Normal, "Scheduled", message);
        Ok(())
    }

    /// Tells the pod's owner why it waits.
    pub(super) async fn tell(&self, pod: &Arc<Pod>, told: &Unschedulable) -> Result<(), ApiError> {
        let known = Unschedulable::condition(pod);
        let since = known.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some(told.reason.to_owned()),
            message: Some(told.message.clone()),
            last_transition_time: since.or(Some(Time(self.clock.now()))),
            ..PodCondition::default()
        };
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "conditions": [condition], "nominatedNodeName": told.nominated },
        });
        self.patch_status(pod, &patch).await?;
        if told.reason == "Unschedulable" {
            self.recorder.event(&**pod, EventKind::Warning, "FailedScheduling", told.message.clone());
        }
        Ok(())
    }

    /// Has `victim` go from the node for `pod`.
    pub(super) async fn preempt(&self, victim: &Arc<Pod>, pod: &Pod, node: &str) -> Result<(), ApiError> {
        let scheduler = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
        let scheduler = scheduler.unwrap_or(super::SCHEDULER_NAME);
        let condition = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("PreemptionByScheduler".to_owned()),
            message: Some(format!("{scheduler}: preempting to accommodate a higher priority pod")),
            last_transition_time: Some(Time(self.clock.now())),
            ..PodCondition::default()
        };
        let patch = json!({
            "metadata": { "uid": victim.metadata.uid },
            "status": { "conditions": [condition] },
        });
        self.patch_status(victim, &patch).await?;
        let (namespace, name) = names(victim);
        let pods = self.client.namespaced::<Pod>(namespace);
        match pods
            .delete(name, &DeleteParams { uid: victim.metadata.uid.clone(), ..DeleteParams::default() })
            .await
        {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
            Err(error) => return Err(error),
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let message = format!("Preempted by pod {uid} on node {node}");
        self.recorder.event(&**victim, EventKind::Normal, "Preempted", message);
        Ok(())
    }

    /// Merges into the status, conditions by their type. A pod that is gone, or is another one by now, is left alone.
    async fn patch_status(&self, pod: &Pod, patch: &serde_json::Value) -> Result<(), ApiError> {
        let (namespace, name) = names(pod);
        match self.client.namespaced::<Pod>(namespace).patch_status(name, Patch::strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn names(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
