//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is going, and those that every cluster has
//! stay (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespacelifecycle>).

use async_trait::async_trait;

use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;

/// Namespaces that are not deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        match request.verb() {
            Verb::Create => request.namespace().is_some() && request.subresource().is_empty(),
            Verb::Delete => request.is("", "Namespace") && IMMORTAL.contains(&request.name()),
            Verb::Update | Verb::Connect => false,
        }
    }

    async fn validate(&self, request: &Request<'_>, _: &mut Notes) -> Result<(), ApiError> {
        if request.verb() == Verb::Delete {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        let name = request.namespace().unwrap_or_default();
        let Some(namespace) = request.namespace_object().await? else { return Err(no_namespace(name)) };
        // Events about the end of things in the namespace are welcome to the last.
        if namespace.metadata.deletion_timestamp.is_some() && request.kind().kind != "Event" {
            let why =
                format!("unable to create new content in namespace {name} because it is being terminated");
            return Err(request
                .forbidden(why)
                .with_cause("NamespaceTerminating", format!("namespace {name} is being terminated")));
        }
        Ok(())
    }
}

/// 404 for a namespace that does not exist.
pub(in crate::server) fn no_namespace(name: &str) -> ApiError {
    ApiError::new(404, "NotFound", format!("namespaces \"{name}\" not found"))
}
