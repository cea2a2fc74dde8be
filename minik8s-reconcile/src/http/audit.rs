//! The audit log: who asked for what, when, and what became of it
//! (<https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/>).
//!
//! A [`Policy`] says of which requests how much is noted; each note is an `Event` of `audit.k8s.io/v1`, a line of JSON,
//! which a [`Sink`] keeps. [`LogFile`] is one that writes a file and rotates it.

mod event;
mod file;
mod policy;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyDataStream;
use serde_json::Value;

use super::body::Body;
use super::route::Place;
use crate::clock::Clock;
use crate::request::User;
use event::{Event, ObjectReference};

pub use file::{LogFile, Rotation};
pub(super) use policy::About;
pub use policy::{Level, Policy, PolicyError, Stage};

/// Keeps what is noted.
pub trait Sink: Send + Sync + 'static {
    /// Keeps a line, which has no end of line yet. It may wait until there is room: nothing is lost.
    fn write(&self, line: String);
}

/// Notes requests. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    policy: Arc<Policy>,
    sink: Arc<dyn Sink>,
    clock: Clock,
    ids: crate::rng::Rng,
}

impl Audit {
    /// Notes what `policy` says in `sink`.
    pub fn new(policy: Policy, sink: impl Sink) -> Self {
        Self {
            policy: Arc::new(policy),
            sink: Arc::new(sink),
            clock: Clock::system(),
            ids: crate::rng::Rng::from_entropy().child("audit"),
        }
    }

    /// Takes the time from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// A request has come.
    pub(super) fn begin<B>(&self, request: &Request<B>) -> Trail {
        let headers = request.headers();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
        let given = text("audit-id").filter(|id| !id.is_empty() && id.len() <= 64);
        let event = Event {
            audit_id: given.unwrap_or_else(|| self.ids.uid()),
            request_uri: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            verb: request.method().as_str().to_ascii_lowercase(),
            source_ips: sources(headers, peer),
            user_agent: text(header::USER_AGENT.as_str()).unwrap_or_default(),
            request_received_timestamp: self.clock.now(),
            ..Event::default()
        };
        let noted = Noted { event, level: Level::Metadata, omitted: Vec::new(), over: false, decided: false };
        Trail { audit: self.clone(), noted: Arc::new(Mutex::new(noted)) }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The addresses that a request came over, the client's own first, as far as it can be told.
fn sources(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<IpAddr> {
    let named = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let named = named.split(',').filter_map(|part| part.trim().parse().ok());
    let mut sources: Vec<IpAddr> = named.collect();
    sources.extend(peer.filter(|peer| sources.last() != Some(peer)));
    sources
}

/// What is noted of one request, while it is being answered. Clones are the same.
#[derive(Clone)]
pub(super) struct Trail {
    audit: Audit,
    noted: Arc<Mutex<Noted>>,
}

struct Noted {
    event: Event,
    level: Level,
    omitted: Vec<Stage>,
    /// Whether the last stage has been noted.
    over: bool,
    /// Whether the policy has been asked.
    decided: bool,
}

impl Trail {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().expect("nobody panics with it")
    }

    /// What tells the request from others.
    pub(super) fn id(&self) -> String {
        self.noted().event.audit_id.clone()
    }

    /// It is known who asks, on whose behalf, and for what: `verb` is Kubernetes', and `place` an object's, if it is about
    /// one.
    pub(super) fn about(&self, sender: &User, user: &User, verb: &str, path: &str, place: Option<&Place>) {
        let about = About { user, verb, path, place };
        let (level, omitted, managed_fields) = self.audit.policy.of(&about);
        {
            let mut noted = self.noted();
            noted.decided = true;
            (noted.level, noted.omitted) = (level, omitted);
            let event = &mut noted.event;
            event.level = level;
            event.omit_managed_fields = !managed_fields;
            verb.clone_into(&mut event.verb);
            event.user = Some(sender.clone());
            event.impersonated_user = (user != sender).then(|| user.clone());
            event.object_ref = place.map(ObjectReference::of);
        }
        self.note(Stage::RequestReceived);
    }

    /// That is the object that the request brings.
    pub(super) fn sent(&self, body: &Bytes) {
        let mut noted = self.noted();
        if noted.level >= Level::Request {
            noted.event.request_object = serde_json::from_slice(body).ok();
        }
    }

    /// Something that policies have to say.
    pub(super) fn annotate(&self, annotations: &BTreeMap<String, String>) {
        let mut noted = self.noted();
        for (key, value) in annotations {
            noted.event.annotations.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }

    /// The answer has begun; there is more to come.
    fn started(&self, code: StatusCode) {
        self.noted().event.code = code.as_u16();
        self.note(Stage::ResponseStarted);
    }

    /// The answer has ended, with that body, if it is known.
    fn complete(&self, code: StatusCode, body: Option<&Bytes>) {
        {
            let mut noted = self.noted();
            if std::mem::replace(&mut noted.over, true) {
                return;
            }
            // Those who are not let in are noted, too: nobody knows who they are.
            if !noted.decided {
                let (level, omitted) = self.audit.policy.of_strangers();
                (noted.level, noted.omitted, noted.event.level) = (level, omitted, level);
            }
            let level = noted.level;
            let event = &mut noted.event;
            event.code = code.as_u16();
            let failed = code.is_client_error() || code.is_server_error();
            if let Some(body) = body
                && (failed || level >= Level::RequestResponse)
            {
                let value: Option<Value> = serde_json::from_slice(body).ok();
                if failed {
                    event.status = value.filter(|v| v["kind"] == "Status");
                } else {
                    event.response_object = value;
                }
            }
        }
        self.note(Stage::ResponseComplete);
    }

    /// The answer is that. What is a stream is complete when it ends, whichever way.
    pub(super) fn close(self, response: Response<Body>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        if let Ok(id) = HeaderValue::from_str(&self.id()) {
            parts.headers.insert("audit-id", id);
        }
        let code = parts.status;
        let body = match body.into_whole() {
            Ok(bytes) => {
                self.complete(code, Some(&bytes));
                Body::from(bytes)
            }
            Err(body) => {
                self.started(code);
                let ending = Ending { trail: self, code };
                Body::stream(BodyDataStream::new(body).inspect(move |_| {
                    // Lives as long as the stream.
                    let _ = &ending;
                }))
            }
        };
        Response::from_parts(parts, body)
    }

    fn note(&self, stage: Stage) {
        let line = {
            let mut noted = self.noted();
            if noted.level == Level::None || noted.omitted.contains(&stage) {
                return;
            }
            noted.event.stage = stage;
            noted.event.stage_timestamp = self.audit.clock.now();
            noted.event.to_line()
        };
        self.audit.sink.write(line);
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trail({})", self.id())
    }
}

/// Notes the end of an answer.
#[derive(Debug)]
struct Ending {
    trail: Trail,
    code: StatusCode,
}

/// The address that a request came from, among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Drop for Ending {
    fn drop(&mut self) {
        self.trail.complete(self.code, None);
    }
}

#[cfg(test)]
mod tests;
