//! The plugins in their order.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::known::Known;
use super::quota::Lanes;
use super::tolerations::TolerationSeconds;
use super::{
    Admission, Notes, Request, certificates, lifecycle, limits, node_taints, pod_security, policy, priority,
    restriction, storage_class, tolerations, webhook,
};
use crate::error::ApiError;
use crate::server::follow::Follower;
use crate::server::service_account::ServiceAccounts;
use crate::storage::{Storage, StorageError};

/// All plugins of a server.
pub(in crate::server) struct Chain {
    plugins: Vec<Arc<dyn Admission>>,
    /// What they have to know.
    pub(in crate::server) known: Arc<Known>,
    /// Where writes wait for one another that are charged to quotas.
    pub(super) lanes: Lanes,
    /// Keeps what is known up to date, from the first write on.
    follower: OnceCell<Follower>,
}

impl Chain {
    /// The built-in plugins, with `own` among them; `stay` is how long pods stay on a node that is down, for which they
    /// do not say so.
    pub(in crate::server) fn new(own: Vec<Arc<dyn Admission>>, stay: TolerationSeconds) -> Self {
        let known = Arc::new(Known::default());
        let mut plugins: Vec<Arc<dyn Admission>> = vec![
            Arc::new(lifecycle::NamespaceLifecycle),
            Arc::new(limits::LimitRanger(known.clone())),
            Arc::new(ServiceAccounts),
            Arc::new(restriction::NodeRestriction),
            Arc::new(node_taints::TaintNodesByCondition),
            Arc::new(pod_security::PodSecurity),
            Arc::new(priority::Priority(known.clone())),
            Arc::new(tolerations::DefaultTolerationSeconds(stay)),
            Arc::new(storage_class::DefaultStorageClass(known.clone())),
            Arc::new(certificates::Certificates),
        ];
        plugins.extend(own);
        Self { plugins, known, lanes: Lanes::default(), follower: OnceCell::new() }
    }

    /// Begins to follow the storage, if that has not been begun.
    pub(in crate::server) async fn begin(&self, storage: &Arc<dyn Storage>) -> Result<(), StorageError> {
        let start = || Follower::start(storage.clone(), Known::SHARDS, self.known.clone());
        self.follower.get_or_try_init(start).await.map(drop)
    }

    /// Waits until everything that has been written so far is known.
    pub(in crate::server) async fn settle(&self, storage: &Arc<dyn Storage>) -> Result<(), StorageError> {
        self.begin(storage).await?;
        match self.follower.get() {
            Some(follower) => follower.settle().await,
            None => Ok(()),
        }
    }

    /// Lets the plugins change the object, and says whether any did.
    pub(in crate::server) async fn mutate(
        &self,
        request: &mut Request<'_>,
        notes: &mut Notes,
    ) -> Result<bool, ApiError> {
        self.begin(&request.server.storage).await?;
        let mut changed = self.mutate_by_plugins(request, notes).await?;
        let mut round = webhook::Round::default();
        if self.known.mutating.any("") && webhook::mutate(&self.known, request, notes, &mut round).await? {
            changed = true;
            // They see what the webhooks made, and webhooks may want to see what they made of that.
            self.mutate_by_plugins(request, notes).await?;
            webhook::mutate_again(request, notes, round).await?;
        }
        Ok(changed)
    }

    async fn mutate_by_plugins(
        &self,
        request: &mut Request<'_>,
        notes: &mut Notes,
    ) -> Result<bool, ApiError> {
        let mut changed = false;
        for plugin in &self.plugins {
            if plugin.handles(request) {
                changed |= plugin.mutate(request, notes).await.map_err(|e| refused(&**plugin, request, e))?;
            }
        }
        Ok(changed)
    }

    /// Asks the plugins whether the object may be written.
    pub(in crate::server) async fn validate(
        &self,
        request: &Request<'_>,
        notes: &mut Notes,
    ) -> Result<(), ApiError> {
        self.begin(&request.server.storage).await?;
        for plugin in &self.plugins {
            if plugin.handles(request) {
                plugin.validate(request, notes).await.map_err(|e| refused(&**plugin, request, e))?;
            }
        }
        if self.known.policy_bindings.any("") {
            policy::validate(&self.known, request, notes).await?;
        }
        if self.known.validating.any("") {
            webhook::validate(&self.known, request, notes).await?;
        }
        Ok(())
    }
}

fn refused(plugin: &dyn Admission, request: &Request<'_>, error: ApiError) -> ApiError {
    tracing::debug!(plugin = plugin.name(), ?request, %error, "refused");
    error
}
