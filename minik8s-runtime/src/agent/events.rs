//! The events of pods: best effort, never in anyone's way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use minik8s_reconcile::Client;
use minik8s_reconcile::request::Patch;
use serde_json::json;
use tokio::sync::mpsc;

use super::pod_fsm::Note;
use super::pod_fsm::instance::seconds;

/// Events that wait to be written; what does not fit is dropped.
const QUEUE: usize = 256;
/// So many different events are remembered, to count their repetitions.
const REMEMBERED: usize = 1024;

/// Where notes go.
#[derive(Clone, Debug)]
pub(crate) struct Events(mpsc::Sender<(ObjectReference, Note, Timestamp)>);

/// What writes them.
pub(crate) struct EventWriter {
    inbox: mpsc::Receiver<(ObjectReference, Note, Timestamp)>,
    client: Client,
    node_name: String,
    seen: BTreeMap<String, (String, i32)>,
    sequence: u64,
}

/// Both ends.
pub(crate) fn events(client: Client, node_name: String) -> (Events, EventWriter) {
    let (sender, inbox) = mpsc::channel(QUEUE);
    let writer = EventWriter { inbox, client, node_name, seen: BTreeMap::new(), sequence: 0 };
    (Events(sender), writer)
}

impl Events {
    /// Says something about a pod.
    pub(crate) fn note(&self, pod: &Pod, note: Note, now: Timestamp) {
        let meta = &pod.metadata;
        let path = note.container.as_ref().map(|name| {
            let init = super::pod_fsm::spec(pod).init_containers.iter().flatten().any(|c| &c.name == name);
            format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" })
        });
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: path,
        };
        if self.0.try_send((about, note, now)).is_err() {
            tracing::debug!(pod = ?meta.name, "too many events: one is dropped");
        }
    }
}

impl EventWriter {
    /// Writes events until there is nobody left to send any.
    pub(crate) async fn run(mut self) {
        if self.client.registry().of::<Event>().is_none() {
            return;
        }
        while let Some((about, note, at)) = self.inbox.recv().await {
            if let Err(e) = self.write(about, note, at).await {
                tracing::debug!("an event could not be written: {e}");
            }
        }
    }

    async fn write(
        &mut self,
        about: ObjectReference,
        note: Note,
        at: Timestamp,
    ) -> Result<(), minik8s_reconcile::ApiError> {
        let namespace = about.namespace.clone().unwrap_or_default();
        let api = self.client.namespaced::<Event>(&namespace);
        let key = format!("{:?}/{:?}/{}/{}", about.uid, about.field_path, note.reason, note.message);
        if let Some((name, count)) = self.seen.get_mut(&key) {
            *count += 1;
            let patch = json!({ "count": *count, "lastTimestamp": seconds(at) });
            match api.patch(name, Patch::merge(&patch)).await {
                Err(e) if e.is_not_found() => {}
                answer => return answer.map(drop),
            }
        }
        self.sequence += 1;
        let stamp = at.as_nanosecond();
        let name = format!("{}.{stamp:x}{:x}", about.name.as_deref().unwrap_or_default(), self.sequence);
        let mut event = Event {
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.to_owned()),
            message: Some(note.message.chars().take(1024).collect()),
            count: Some(1),
            first_timestamp: Some(seconds(at)),
            last_timestamp: Some(seconds(at)),
            source: Some(EventSource {
                component: Some("minik8s-node".to_owned()),
                host: Some(self.node_name.clone()),
            }),
            reporting_component: Some("minik8s-node".to_owned()),
            reporting_instance: Some(self.node_name.clone()),
            involved_object: about,
            ..Event::default()
        };
        event.metadata.name = Some(name.clone());
        event.metadata.namespace = Some(namespace);
        api.create(&event).await?;
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(key, (name, 1));
        Ok(())
    }
}
