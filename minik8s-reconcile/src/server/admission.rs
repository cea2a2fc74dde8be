//! Admission: what becomes of a write that is permitted, before it is stored
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/>).
//!
//! Every create, update, delete and connect goes through a chain of plugins, twice: first those that change the object,
//! then, when it has been checked against its kind, those that refuse it. The built-in ones are Kubernetes' own, in
//! Kubernetes' order; those of [`ApiServerBuilder::admission`](super::ApiServerBuilder::admission) come behind them and
//! before the webhooks:
//!
//! NamespaceLifecycle, LimitRanger, ServiceAccount, NodeRestriction, TaintNodesByCondition, PodSecurity, Priority, DefaultTolerationSeconds,
//! DefaultStorageClass, CertificateApproval, CertificateSigning, CertificateSubjectRestriction, *yours*, MutatingAdmissionWebhook, ValidatingAdmissionPolicy, ValidatingAdmissionWebhook,
//! ResourceQuota.
//!
//! What the plugins have to know (limits, quotas, policies, webhooks …) is at hand in memory, fed by the storage. Where
//! there is none of it, a plugin has nothing to do. A write of such an object is acknowledged when it is in force.
//!
//! ```
//! use async_trait::async_trait;
//! use k8s_openapi::api::core::v1::Pod;
//! use minik8s_reconcile::server::admission::{Admission, Notes, Request, Verb};
//! use minik8s_reconcile::storage::memory::MemoryStorage;
//! use minik8s_reconcile::{ApiError, ApiServer};
//! use serde_json::json;
//!
//! /// Nobody runs what nobody has named a version of.
//! struct Tagged;
//!
//! #[async_trait]
//! impl Admission for Tagged {
//!     fn name(&self) -> &'static str {
//!         "Tagged"
//!     }
//!
//!     fn handles(&self, request: &Request<'_>) -> bool {
//!         request.verb() == Verb::Create && request.kind().kind == "Pod" && request.subresource().is_empty()
//!     }
//!
//!     async fn validate(&self, request: &Request<'_>, notes: &mut Notes) -> Result<(), ApiError> {
//!         let pod = request.object().and_then(|o| o.downcast_ref::<Pod>());
//!         for container in pod.iter().filter_map(|p| p.spec.as_ref()).flat_map(|s| &s.containers) {
//!             match container.image.as_deref().unwrap_or_default() {
//!                 image if image.ends_with(":latest") => notes.warn(format!("{image} may change any time")),
//!                 image if image.contains(':') => {}
//!                 image => return Err(request.forbidden(format!("the image {image} has no tag"))),
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ApiError> {
//! let server = ApiServer::builder().admission(Tagged).build(MemoryStorage::new());
//! server.bootstrap().await?;
//! let pod: Pod = serde_json::from_value(json!({
//!     "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "web", "image": "nginx" }] },
//! })).unwrap();
//! let error = server.client().namespaced::<Pod>("default").create(&pod).await.unwrap_err();
//! assert_eq!(error.to_string(), "pods \"web\" is forbidden: the image nginx has no tag");
//! # Ok(())
//! # }
//! ```

mod amounts;
mod certificates;
mod chain;
mod conditions;
mod known;
mod lifecycle;
mod limits;
mod matching;
mod node_taints;
mod pod_security;
mod policy;
mod priority;
pub(crate) mod quota;
mod request;
mod restriction;
mod review;
mod storage_class;
mod tolerations;
mod webhook;

use async_trait::async_trait;
use minik8s_api::Kind;

pub(super) use self::chain::Chain;
pub(super) use self::lifecycle::no_namespace;
pub(super) use self::priority::bootstrap;
pub(super) use self::request::Options;
pub use self::request::{Request, Verb};
pub use self::tolerations::TolerationSeconds;
use crate::error::ApiError;
pub use crate::request::Notes;

/// Whether objects of the kind decide about others, so that a write of one has to be in force when it is acknowledged.
pub(super) fn is_about(kind: &Kind) -> bool {
    known::Known::is_about(&kind.stored_resource())
}

/// A step of admission.
///
/// # Guarantees
/// - [`mutate`](Self::mutate) is called before the object is checked, [`validate`](Self::validate) after: what
///   `validate` sees is what will be stored, if nobody objects.
/// - Both may be called more than once for a request: when others change the object after this plugin has seen it, and
///   when others write it meanwhile.
/// - Nothing has been written when they are called, and a dry run goes through them too: they must not have effects of
///   their own for a request that [`is_dry_run`](Request::is_dry_run).
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Its name, for logs.
    fn name(&self) -> &'static str;

    /// Whether it looks at such requests. This is asked for every write, and decides what admission costs the others.
    fn handles(&self, request: &Request<'_>) -> bool;

    /// Changes the object, and says whether it did; see [`Request::object_mut`].
    ///
    /// # Errors
    /// It may not be written: [`Request::forbidden`].
    async fn mutate(&self, request: &mut Request<'_>, notes: &mut Notes) -> Result<bool, ApiError> {
        let _ = (request, notes);
        Ok(false)
    }

    /// Decides about the object.
    ///
    /// # Errors
    /// It may not be written: [`Request::forbidden`].
    async fn validate(&self, request: &Request<'_>, notes: &mut Notes) -> Result<(), ApiError> {
        let _ = (request, notes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
