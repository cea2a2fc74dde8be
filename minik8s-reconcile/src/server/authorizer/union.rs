//! Several authorizers as one.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::SubjectRulesReviewStatus;

use super::{Action, Authorizer, Decision};
use crate::request::User;
use crate::server::node::NodeAuthorizer;
use crate::server::rbac::Rbac;
use crate::storage::{Storage, StorageError};

/// Asks one authorizer after the other, until one allows or forbids.
pub struct Union(Vec<Box<dyn Authorizer>>);

impl Union {
    /// These authorizers, in this order.
    pub fn new(authorizers: Vec<Box<dyn Authorizer>>) -> Self {
        Self(authorizers)
    }

    /// As clusters have it: nodes may do what they need for their pods, and everybody what the roles say. It follows
    /// the storage for as long as it lives.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use minik8s_reconcile::ApiServer;
    /// use minik8s_reconcile::server::{authorizer::Union, rbac};
    /// use minik8s_reconcile::storage::memory::MemoryStorage;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let storage = Arc::new(MemoryStorage::new());
    /// let access = Union::of_cluster(storage.clone()).await?;
    /// let server = ApiServer::builder().authorizer(access).build(storage);
    /// server.bootstrap().await?;
    /// rbac::bootstrap(&server.client()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The storage does not answer.
    ///
    /// # Panics
    /// Not in a tokio runtime.
    pub async fn of_cluster(storage: Arc<dyn Storage>) -> Result<Self, StorageError> {
        let nodes = NodeAuthorizer::start(storage.clone()).await?;
        let roles = Rbac::start(storage).await?;
        Ok(Self::new(vec![Box::new(nodes), Box::new(roles)]))
    }
}

impl fmt::Debug for Union {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Union({})", self.0.len())
    }
}

#[async_trait]
impl Authorizer for Union {
    fn authorize(&self, user: &User, action: &Action<'_>) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            let decision = authorizer.authorize(user, action);
            if decision.allowed || decision.denied {
                return decision;
            }
            reasons.extend(Some(decision.reason).filter(|r| !r.is_empty()));
        }
        Decision::no_opinion(reasons.join("\n"))
    }

    fn rules(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus {
        let mut all = SubjectRulesReviewStatus::default();
        for authorizer in &self.0 {
            let status = authorizer.rules(user, namespace);
            all.resource_rules.extend(status.resource_rules);
            all.non_resource_rules.extend(status.non_resource_rules);
            all.incomplete |= status.incomplete;
            all.evaluation_error = match (all.evaluation_error, status.evaluation_error) {
                (Some(a), Some(b)) => Some(format!("{a}; {b}")),
                (a, b) => a.or(b),
            };
        }
        all
    }

    async fn settle(&self) -> Result<(), StorageError> {
        for authorizer in &self.0 {
            authorizer.settle().await?;
        }
        Ok(())
    }
}
