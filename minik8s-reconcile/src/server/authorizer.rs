//! Who may do what.

use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule, SubjectRulesReviewStatus};
use minik8s_api::Kind;

use crate::error::ApiError;
use crate::request::User;

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

/// Decides who may do what. It is asked for every request, so it must answer from memory.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `user` may do that.
    fn authorize(&self, user: &User, action: &Action<'_>) -> Decision;

    /// All that `user` may do in `namespace`, as far as it can be listed.
    fn rules(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus;
}

/// Everybody may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _user: &User, _action: &Action<'_>) -> Decision {
        Decision { allowed: true, denied: false, reason: String::new() }
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
    Action::Resource {
        verb,
        group: &kind.group,
        version: &kind.version,
        resource: &kind.plural,
        subresource: subresource.unwrap_or_default(),
        namespace: namespace.unwrap_or_default(),
        name: name.unwrap_or_default(),
    }
}

/// 403, in Kubernetes' words.
pub(super) fn forbidden(kind: &Kind, user: &User, action: &Action<'_>, decision: &Decision) -> ApiError {
    let Action::Resource { verb, group, resource, subresource, namespace, name, .. } = *action else {
        return ApiError::new(403, "Forbidden", "forbidden");
    };
    let resource = match subresource {
        "" => resource.to_owned(),
        part => format!("{resource}/{part}"),
    };
    let place = match namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let mut why = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}",
        user.name
    );
    if !decision.reason.is_empty() {
        why.push_str(": ");
        why.push_str(&decision.reason);
    }
    ApiError::forbidden(kind, name, why)
}
