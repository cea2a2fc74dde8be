//! What may come in.

use k8s_openapi::api::core::v1::Namespace;
use minik8s_api::{Kind, Object};

use super::key::Scope;
use super::key::namespace_key;
use super::update::Part;
use super::{ApiServer, node, rbac};
use crate::error::ApiError;

impl ApiServer {
    /// Whether whoever asks may write `new`, for reasons that are in the object: in place of the part of the second one,
    /// or as a new object.
    pub(super) async fn admit(
        &self,
        scope: &Scope,
        old: Option<(Part, &dyn Object)>,
        new: &dyn Object,
    ) -> Result<(), ApiError> {
        node::admit(scope, old, new)?;
        self.admit_certificate(scope, old, new).await?;
        if scope.kind.group == rbac::GROUP {
            rbac::may_grant(self, scope, old.map(|(_, old)| old), new).await?;
        }
        Ok(())
    }

    /// Nothing is made in a namespace that does not exist or is going.
    pub(super) async fn admit_to_namespace(
        &self,
        kind: &Kind,
        name: &str,
        namespace: &str,
    ) -> Result<(), ApiError> {
        let Some(stored) = self.storage.get(&namespace_key(namespace)).await? else {
            return Err(no_namespace(namespace));
        };
        let found = stored.typed::<Namespace>().map_err(ApiError::internal)?;
        // Events about the end of things in the namespace are welcome to the last.
        if found.metadata.deletion_timestamp.is_some() && kind.kind != "Event" {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(ApiError::forbidden(kind, name, why));
        }
        Ok(())
    }
}

/// 404 for a namespace that does not exist.
pub(super) fn no_namespace(name: &str) -> ApiError {
    ApiError::new(404, "NotFound", format!("namespaces \"{name}\" not found"))
}
