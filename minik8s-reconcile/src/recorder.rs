//! Events: notes to users about what happened to an object
//! (<https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use minik8s_api::Resource;
use serde_json::json;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::clock::Clock;
use crate::request::Patch;

/// Notes that may wait to be written; more are dropped, since nothing may wait for them.
const QUEUE: usize = 1024;
/// Different notes whose repetitions are counted instead of written anew.
const REMEMBERED: usize = 4096;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// As planned.
    Normal,
    /// A user should look.
    Warning,
}

/// Writes events in the name of a component. Cheap to clone; never blocks and never fails.
#[derive(Clone)]
pub struct Recorder {
    component: Arc<str>,
    host: Arc<str>,
    clock: Clock,
    outbox: mpsc::Sender<Note>,
}

struct Note {
    component: Arc<str>,
    host: Arc<str>,
    object: ObjectReference,
    kind: EventKind,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// Starts writing events through `client`; the other half of the answer is to be run, and ends when the last
    /// recorder is gone.
    pub fn new(
        component: &str,
        client: Client,
        clock: Clock,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let recorder = Self { component: component.into(), host: "".into(), clock, outbox };
        (recorder, write(client, inbox))
    }

    /// The same recorder, in the name of another component.
    #[must_use]
    pub fn component(&self, name: &str) -> Self {
        Self { component: name.into(), ..self.clone() }
    }

    /// The same recorder, from a node.
    #[must_use]
    pub fn host(&self, name: &str) -> Self {
        Self { host: name.into(), ..self.clone() }
    }

    /// Notes that `reason` (one word in CamelCase) happened to `object`; `message` says more.
    pub fn event<K: Resource>(&self, object: &K, kind: EventKind, reason: &str, message: impl Into<String>) {
        self.event_about(reference(object), kind, reason, message);
    }

    /// Notes something about a part of an object, such as a container (see [`reference`]).
    pub fn event_about(
        &self,
        object: ObjectReference,
        kind: EventKind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let note = Note {
            component: self.component.clone(),
            host: self.host.clone(),
            object,
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            at: self.clock.now(),
        };
        if let Err(error) = self.outbox.try_send(note) {
            tracing::debug!(%error, "an event was dropped");
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({})", self.component)
    }
}

/// How events refer to `object`.
pub fn reference<K: Resource>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// What makes two notes the same.
type Sameness = (String, String, String, String, Arc<str>);

async fn write(client: Client, mut inbox: mpsc::Receiver<Note>) {
    let mut written: BTreeMap<Sameness, (String, i32)> = BTreeMap::new();
    let mut number: u64 = 0;
    while let Some(note) = inbox.recv().await {
        let same = (
            note.object.uid.clone().unwrap_or_default(),
            note.object.field_path.clone().unwrap_or_default(),
            note.reason.clone(),
            note.message.clone(),
            note.component.clone(),
        );
        let namespace = note.object.namespace.clone().filter(|n| !n.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let events = client.namespaced::<Event>(&namespace);
        if let Some((name, count)) = written.get_mut(&same) {
            let patch = Patch::merge(&json!({ "count": *count + 1, "lastTimestamp": Time(note.at) }));
            match events.patch(name, patch).await {
                Ok(_) => {
                    *count += 1;
                    continue;
                }
                // It has expired; write it anew.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(%error, "an event was not written");
                    continue;
                }
            }
        }
        number += 1;
        match events.create(&event(&note, &namespace, number)).await {
            Ok(event) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(same, (event.metadata.name.clone().unwrap_or_default(), 1));
            }
            Err(error) => tracing::debug!(%error, "an event was not written"),
        }
    }
}

/// `number` tells notes of one moment apart.
fn event(note: &Note, namespace: &str, number: u64) -> Event {
    let name = note.object.name.clone().unwrap_or_default();
    let nanos = u64::try_from(note.at.as_nanosecond()).unwrap_or(0);
    let kind = match note.kind {
        EventKind::Normal => "Normal",
        EventKind::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", nanos.wrapping_add(number))),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: note.object.clone(),
        type_: Some(kind.to_owned()),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource {
            component: Some(note.component.to_string()),
            host: (!note.host.is_empty()).then(|| note.host.to_string()),
        }),
        reporting_component: Some(note.component.to_string()),
        reporting_instance: Some(note.host.to_string()),
        ..Event::default()
    }
}
