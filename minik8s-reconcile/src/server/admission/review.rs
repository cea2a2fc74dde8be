//! A request as webhooks and expressions see it.

use std::sync::Arc;

use minik8s_api::crd::{Authorize, Question};
use minik8s_api::{Kind, Object};
use serde_json::{Value, json};

use super::Request;
use crate::error::ApiError;
use crate::request::User;
use crate::server::authorizer::{Action, Authorizer};
use crate::server::review::user_info;

/// The request without its objects, in the terms of `kind`.
pub(super) fn request(request: &Request<'_>, kind: &Kind) -> Value {
    let own = request.kind();
    let gvk = |kind: &Kind| match request.object().and_then(|o| o.as_unstructured()) {
        // What a subresource makes is of a kind of its own.
        Some(object) if !request.subresource().is_empty() && !kind.custom => {
            let (group, version) =
                object.api_version.split_once('/').unwrap_or(("", object.api_version.as_str()));
            json!({ "group": group, "version": version, "kind": object.kind })
        }
        _ => json!({ "group": kind.group, "version": kind.version, "kind": kind.kind }),
    };
    let gvr = |kind: &Kind| json!({ "group": kind.group, "version": kind.version, "resource": kind.plural });
    let mut value = json!({
        "kind": gvk(kind),
        "resource": gvr(kind),
        "requestKind": gvk(own),
        "requestResource": gvr(own),
        "operation": request.verb().as_str(),
        "userInfo": user_info(request.user()),
        "dryRun": request.is_dry_run(),
    });
    for (field, text) in [
        ("name", request.name()),
        ("namespace", request.namespace().unwrap_or_default()),
        ("subResource", request.subresource()),
        ("requestSubResource", request.subresource()),
    ] {
        if !text.is_empty() {
            value[field] = text.into();
        }
    }
    let options = request.options();
    if !options.is_null() {
        value["options"] = options;
    }
    value
}

/// An object in another version of its kind.
pub(super) async fn in_version(
    request: &Request<'_>,
    object: Option<&dyn Object>,
    kind: &Arc<Kind>,
) -> Result<Value, ApiError> {
    let Some(object) = object else { return Ok(Value::Null) };
    let own = request.kind();
    if Arc::ptr_eq(own, kind) || !own.owns(object) {
        return Ok(object.to_value());
    }
    request.server.in_version(object, own, kind).await
}

/// What the one who asks may do, for expressions.
pub(super) struct Rights {
    authorizer: Arc<dyn Authorizer>,
    user: User,
}

impl Rights {
    pub(super) fn of(request: &Request<'_>) -> Arc<dyn Authorize> {
        Arc::new(Self { authorizer: request.server.authorizer.clone(), user: request.user().clone() })
    }
}

impl Authorize for Rights {
    fn check(&self, question: &Question) -> (bool, String) {
        let account = question.service_account.as_ref().map(|(namespace, name)| {
            let groups =
                vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            User::authenticated(&format!("system:serviceaccount:{namespace}:{name}"), groups)
        });
        let user = account.as_ref().unwrap_or(&self.user);
        let action = match &question.path {
            Some(path) => Action::NonResource { verb: &question.verb, path },
            None => Action::Resource {
                verb: &question.verb,
                group: &question.group,
                version: "*",
                resource: &question.resource,
                subresource: &question.subresource,
                namespace: &question.namespace,
                name: &question.name,
                field_selector: "",
            },
        };
        let decision = self.authorizer.authorize(user, &action);
        (decision.allowed, decision.reason)
    }
}

/// The question whether the request's own object may be something or other.
pub(super) fn own_resource(request: &Request<'_>) -> Question {
    Question {
        group: request.kind().group.to_string(),
        resource: request.kind().plural.to_string(),
        subresource: request.subresource().to_owned(),
        namespace: request.namespace().unwrap_or_default().to_owned(),
        name: request.name().to_owned(),
        ..Question::default()
    }
}
