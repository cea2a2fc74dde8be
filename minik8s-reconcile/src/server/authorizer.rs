//! Who may do what.

mod union;

use std::borrow::Cow;

use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule, SubjectRulesReviewStatus};
use minik8s_api::Kind;
use minik8s_api::selector::FieldSelector;

use crate::error::ApiError;
use crate::request::{Operation, User};
use crate::storage::StorageError;

pub use union::Union;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Something with objects. What is empty is meant in general: all namespaces, all names.
    Resource {
        /// The verb, such as `get`.
        verb: &'a str,
        /// The API group; empty for the core group.
        group: &'a str,
        /// The version, such as `v1`.
        version: &'a str,
        /// The resource, such as `pods`.
        resource: &'a str,
        /// The subresource, such as `log`.
        subresource: &'a str,
        /// The namespace.
        namespace: &'a str,
        /// The object.
        name: &'a str,
        /// For lists and watches: the fields that objects must have to be in them.
        field_selector: &'a str,
    },
    /// Something with a path that is no object's.
    NonResource {
        /// The verb, such as `get`.
        verb: &'a str,
        /// The path, such as `/healthz`.
        path: &'a str,
    },
}

/// What an authorizer thinks of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Whether it is forbidden for good, whatever another authorizer says.
    pub denied: bool,
    /// Why; may be empty.
    pub reason: String,
}

impl Decision {
    /// It may be done.
    pub fn allow(reason: String) -> Self {
        Self { allowed: true, denied: false, reason }
    }

    /// Nothing says that it may be done.
    pub fn no_opinion(reason: String) -> Self {
        Self { allowed: false, denied: false, reason }
    }
}

/// Decides who may do what. It is asked for every request, so it must answer from memory.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `user` may do that.
    fn authorize(&self, user: &User, action: &Action<'_>) -> Decision;

    /// All that `user` may do in `namespace`, as far as it can be listed.
    fn rules(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus;

    /// Waits until everything counts that has been written. For authorizers that go by what is stored and hear of it
    /// later.
    ///
    /// # Errors
    /// The storage does not answer.
    async fn settle(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Everybody may do everything; but those of whom nothing is known learn the version and whether the server is well,
/// and no more.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, user: &User, action: &Action<'_>) -> Decision {
        let open = |path: &str| matches!(path, "/healthz" | "/livez" | "/readyz" | "/version");
        match action {
            _ if !user.is_anonymous() => Decision::allow(String::new()),
            Action::NonResource { verb: "get", path } if open(path) => Decision::allow(String::new()),
            _ => Decision::no_opinion(String::new()),
        }
    }

    fn rules(&self, _user: &User, _namespace: &str) -> SubjectRulesReviewStatus {
        let all = || vec!["*".to_owned()];
        SubjectRulesReviewStatus {
            evaluation_error: None,
            incomplete: false,
            non_resource_rules: vec![NonResourceRule { non_resource_urls: Some(all()), verbs: all() }],
            resource_rules: vec![ResourceRule {
                api_groups: Some(all()),
                resource_names: None,
                resources: Some(all()),
                verbs: all(),
            }],
        }
    }
}

/// What a request of the API is about.
pub(crate) fn action<'a>(
    kind: &'a Kind,
    verb: &'a str,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
) -> Action<'a> {
    // A namespace is in itself: whoever may read it there may read it.
    let own = name.filter(|_| kind.kind == "Namespace" && kind.group.is_empty());
    Action::Resource {
        verb,
        group: &kind.group,
        version: &kind.version,
        resource: &kind.plural,
        subresource: subresource.unwrap_or_default(),
        namespace: namespace.or(own).unwrap_or_default(),
        name: name.unwrap_or_default(),
        field_selector: "",
    }
}

/// The fields by which an operation selects.
pub(crate) fn field_selector(operation: &Operation) -> &str {
    match operation {
        Operation::List(params) | Operation::DeleteCollection(params, _) => &params.field_selector,
        Operation::Watch(params) => &params.field_selector,
        _ => "",
    }
}

/// The value that `field` must have for an object to be selected, if the selector says one.
pub(crate) fn selected<'a>(selector: &'a str, field: &str) -> Option<Cow<'a, str>> {
    if !selector.contains(field) {
        return None;
    }
    // The usual form needs no parser.
    if let Some(value) = selector.strip_prefix(field).and_then(|rest| rest.strip_prefix('='))
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    {
        return Some(Cow::Borrowed(value));
    }
    let selector = FieldSelector::parse(selector).ok()?;
    selector.exact_value(field).map(|value| Cow::Owned(value.to_owned()))
}

/// 403, in Kubernetes' words.
pub(super) fn forbidden(user: &User, action: &Action<'_>, decision: &Decision) -> ApiError {
    let mut why = format!("User {:?} cannot ", &*user.name);
    match *action {
        Action::NonResource { verb, path } => why.push_str(&format!("{verb} path {path:?}")),
        Action::Resource { verb, group, resource, subresource, namespace, .. } => {
            why.push_str(&format!("{verb} resource \"{resource}"));
            if !subresource.is_empty() {
                why.push_str(&format!("/{subresource}"));
            }
            why.push_str(&format!("\" in API group \"{group}\" "));
            match namespace {
                "" => why.push_str("at the cluster scope"),
                namespace => why.push_str(&format!("in the namespace \"{namespace}\"")),
            }
        }
    }
    if !decision.reason.is_empty() {
        why.push_str(": ");
        why.push_str(&decision.reason);
    }
    match *action {
        Action::NonResource { .. } => ApiError::new(403, "Forbidden", format!("forbidden: {why}")),
        Action::Resource { group, resource, name, .. } => {
            ApiError::forbidden_resource(group, resource, name, why)
        }
    }
}
