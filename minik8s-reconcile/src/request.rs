//! Requests and responses at the seam between clients and servers.
//!
//! Everything above this seam (clients, caches, controllers) works on any [`tower::Service`] from [`ApiRequest`] to
//! [`ApiResponse`]: the server in this process, one behind HTTP, or one that a test makes fail.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use minik8s_api::{Kind, Object};

use crate::error::ApiError;
use crate::stored::Stored;

/// One call of the API.
#[derive(Debug)]
pub struct ApiRequest {
    /// What it is about.
    pub kind: Arc<Kind>,
    /// The namespace; `None` for cluster-scoped kinds and for all namespaces at once.
    pub namespace: Option<String>,
    /// The object; `None` for the collection.
    pub name: Option<String>,
    /// A subresource such as `status` or `binding`.
    pub subresource: Option<String>,
    /// What to do.
    pub operation: Operation,
    /// Who asks.
    pub user: User,
}

/// What to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Read one object.
    Get,
    /// Read many.
    List(ListParams),
    /// Follow many.
    Watch(WatchParams),
    /// Make one.
    Create(Payload, WriteParams),
    /// Replace one.
    Update(Payload, WriteParams),
    /// Change one.
    Patch(Patch, WriteParams),
    /// Remove one.
    Delete(DeleteParams),
    /// Remove many.
    DeleteCollection(ListParams, DeleteParams),
}

impl Operation {
    /// The verb as RBAC and the audit log name it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List(_) => "list",
            Self::Watch(_) => "watch",
            Self::Create(..) => "create",
            Self::Update(..) => "update",
            Self::Patch(..) => "patch",
            Self::Delete(_) => "delete",
            Self::DeleteCollection(..) => "deletecollection",
        }
    }
}

/// An object on its way to the server.
#[derive(Debug)]
pub enum Payload {
    /// As JSON text.
    Json(Bytes),
    /// As it is, from a caller in the same process.
    Typed(Box<dyn Object>),
}

/// A change of an object.
#[derive(Clone, Debug)]
pub struct Patch {
    /// How to read `body`.
    pub format: PatchFormat,
    /// The change, as JSON (YAML too for [`PatchFormat::Apply`]).
    pub body: Bytes,
    /// For [`PatchFormat::Apply`]: take over fields that another manager owns.
    pub force: bool,
}

impl Patch {
    /// An RFC 7396 merge patch.
    pub fn merge(value: &serde_json::Value) -> Self {
        Self { format: PatchFormat::Merge, body: value.to_string().into(), force: false }
    }

    /// A strategic merge patch: lists are merged by their items' keys.
    pub fn strategic(value: &serde_json::Value) -> Self {
        Self { format: PatchFormat::StrategicMerge, ..Self::merge(value) }
    }
}

/// The languages of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchFormat {
    /// RFC 6902, `application/json-patch+json`.
    Json,
    /// RFC 7396, `application/merge-patch+json`.
    Merge,
    /// Kubernetes' own, `application/strategic-merge-patch+json`.
    StrategicMerge,
    /// Server-side apply, `application/apply-patch+yaml`.
    Apply,
}

/// Which objects to list, and how.
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// Only objects with these labels.
    pub label_selector: String,
    /// Only objects with these fields.
    pub field_selector: String,
    /// At most that many; 0 for all.
    pub limit: u32,
    /// The token of the previous page; empty for the first.
    pub continue_: String,
    /// How recent the answer must be.
    pub resource_version: Option<u64>,
    /// How to read `resource_version`.
    pub version_match: VersionMatch,
}

impl ListParams {
    /// Only objects with these labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { label_selector: selector.into(), ..Self::default() }
    }

    /// Only objects with these fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: selector.into(), ..Self::default() }
    }
}

/// How a list reads its `resourceVersion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionMatch {
    /// At least that recent; but with a limit, the state at just that revision.
    #[default]
    Unset,
    /// At least that recent.
    NotOlderThan,
    /// The state at just that revision.
    Exact,
}

/// Which objects to follow, and how.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// Only objects with these labels.
    pub label_selector: String,
    /// Only objects with these fields.
    pub field_selector: String,
    /// Events after this revision; `None` or 0 begins with the present state as [`EventType::Added`].
    pub resource_version: Option<u64>,
    /// Send a bookmark now and then, and one when the initial state has been sent.
    pub bookmarks: bool,
    /// Begin with the present state even when `resource_version` is given, and end it with a bookmark that carries
    /// the annotation `k8s.io/initial-events-end`.
    pub send_initial_events: bool,
    /// End the watch after that many seconds.
    pub timeout_s: Option<u32>,
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct WriteParams {
    /// Who writes, for `managedFields`.
    pub field_manager: String,
    /// Check everything, change nothing.
    pub dry_run: bool,
    /// What to do about fields that the kind does not have.
    pub field_validation: FieldValidation,
}

/// What to do about fields that the kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and say so in a warning.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteParams {
    /// Seconds to end gracefully; `None` for what the object says, 0 for at once.
    pub grace_period_s: Option<i64>,
    /// What becomes of the objects that it owns.
    pub propagation: Option<Propagation>,
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object is at this version.
    pub resource_version: Option<u64>,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

impl DeleteParams {
    /// Remove it at once, without grace.
    pub fn now() -> Self {
        Self { grace_period_s: Some(0), ..Self::default() }
    }
}

/// What becomes of the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    /// What a DeleteOptions calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's name, such as `system:node:n1`.
    pub name: Arc<str>,
    /// What tells it from others of that name over time; may be empty.
    pub uid: Arc<str>,
    /// The groups it is in.
    pub groups: Arc<[String]>,
    /// What else was found out about it.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
}

impl User {
    /// The user of calls from inside the server's process: may do everything.
    pub fn internal() -> Self {
        Self::named("system:apiserver", &["system:masters"])
    }

    /// The user of calls from outside that do not say who they are from.
    pub fn anonymous() -> Self {
        Self::named("system:anonymous", &["system:unauthenticated"])
    }

    /// A user of that name in these groups.
    pub fn named(name: &str, groups: &[&str]) -> Self {
        Self {
            name: name.into(),
            uid: "".into(),
            groups: groups.iter().map(|&g| g.to_owned()).collect(),
            extra: Arc::default(),
        }
    }

    /// The user `name`, who has proved to be that, in `groups` and the group of all such users.
    pub fn authenticated(name: &str, mut groups: Vec<String>) -> Self {
        groups.push("system:authenticated".to_owned());
        Self { name: name.into(), uid: "".into(), groups: groups.into(), extra: Arc::default() }
    }

    /// Whether nothing is known of who that is.
    pub fn is_anonymous(&self) -> bool {
        self.groups.iter().any(|g| g == "system:unauthenticated")
    }
}

/// The answer to a call.
#[derive(Debug)]
pub struct ApiResponse {
    /// What was asked for.
    pub body: ResponseBody,
    /// Things a user should know of, for `Warning` headers.
    pub warnings: Vec<String>,
    /// Things an audit log should keep, such as what a policy said. The same of a request that failed is in
    /// [`ApiError::notes`].
    pub annotations: BTreeMap<String, String>,
}

impl ApiResponse {
    /// The answer, with what else there is to be said.
    pub fn noted(body: ResponseBody, notes: Notes) -> Self {
        Self { body, warnings: notes.warnings, annotations: notes.annotations }
    }
}

impl From<ResponseBody> for ApiResponse {
    fn from(body: ResponseBody) -> Self {
        Self::noted(body, Notes::default())
    }
}

/// What else is to be said about a request, whatever becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// For whoever asks.
    pub warnings: Vec<String>,
    /// For an audit log, by keys such as `pod-security.kubernetes.io/enforce-policy`.
    pub annotations: BTreeMap<String, String>,
}

impl Notes {
    /// Tells whoever asks, once.
    pub fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Tells the audit log. What was noted first under a key stays.
    pub fn annotate(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.entry(key.into()).or_insert_with(|| value.into());
    }

    /// Adds what `other` says.
    pub fn extend(&mut self, other: Self) {
        other.warnings.into_iter().for_each(|warning| self.warn(warning));
        other.annotations.into_iter().for_each(|(key, value)| self.annotate(key, value));
    }

    /// Whether there is nothing to be said.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.annotations.is_empty()
    }
}

/// The parts of an answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResponseBody {
    /// One object.
    Object {
        /// As it is now.
        object: Stored,
        /// Whether the request made it.
        created: bool,
    },
    /// Many objects.
    List(ObjectList),
    /// A stream of changes.
    Watch(WatchStream),
    /// The object is gone.
    Deleted {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The revision at which it went.
        revision: u64,
    },
    /// Done, and there is nothing to show (a binding, an eviction).
    Done,
}

/// A page of objects.
#[derive(Debug)]
pub struct ObjectList {
    /// The objects, ordered by namespace and name.
    pub items: Vec<Stored>,
    /// The revision that the list shows.
    pub revision: u64,
    /// The token of the next page; empty on the last.
    pub continue_: String,
    /// How many objects follow this page, where that is known.
    pub remaining: Option<u64>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// It came to be, or came to match.
    Added,
    /// It changed.
    Modified,
    /// It went, or ceased to match.
    Deleted,
    /// Nothing: a note of how far the stream is.
    Bookmark,
}

/// One step of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub event: EventType,
    /// The object after it (for [`EventType::Deleted`], its last state at the revision of its removal). A bookmark
    /// holds nothing but its version.
    pub object: Stored,
    /// Whether this bookmark ends the initial state.
    pub initial_events_end: bool,
}

/// The events of a watch in the order of their revisions. It ends when the server ends it; an error is the last item.
pub struct WatchStream(Pin<Box<dyn Stream<Item = Result<WatchEvent, ApiError>> + Send>>);

impl WatchStream {
    /// A watch over `stream`.
    pub fn new(stream: impl Stream<Item = Result<WatchEvent, ApiError>> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchEvent, ApiError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchStream")
    }
}
