//! Evictions: deletions that ask the pod's disruption budget first.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::Selector;
use serde_json::Value;

use super::create::to_second;
use super::key::Scope;
use super::update::modified;
use super::{ApiServer, encoding};
use crate::controllers::disruption::{is_ready, set_allowed_condition};
use crate::error::ApiError;
use crate::request::{ApiResponse, DeleteParams, ResponseBody, WriteParams};
use crate::storage::{Compare, Op, Query, Txn, TxnOutcome};
use crate::stored::Stored;

/// How often a write is tried that others get in the way of.
const ATTEMPTS: usize = 20;
/// Pods that a budget lets go before its controller has to confirm some.
const MAX_DISRUPTED: usize = 2000;
/// The cause in a refusal that comes from a budget.
const CAUSE: &str = "DisruptionBudget";
/// When to ask again about a budget that its controller has not seen yet.
const RETRY_S: i32 = 10;

impl ApiServer {
    /// Deletes a pod, if its budget allows it.
    pub(super) async fn evict(
        &self,
        scope: &Scope,
        name: &str,
        body: Value,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let eviction = read(body)?;
        if eviction.metadata.name.as_deref().is_some_and(|n| !n.is_empty() && n != name) {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = eviction.delete_options.unwrap_or_default();
        let preconditions = options.preconditions.unwrap_or_default();
        let dry_run = params.dry_run || options.dry_run.iter().flatten().any(|d| d == "All");
        let mut delete = DeleteParams {
            grace_period_s: options.grace_period_seconds,
            uid: preconditions.uid,
            resource_version: match preconditions.resource_version.as_deref() {
                Some(version) => Some(version.parse().map_err(|_| modified(&scope.kind, name))?),
                None => None,
            },
            dry_run,
            propagation: None,
        };
        let insists = delete.resource_version;
        for _ in 0..ATTEMPTS {
            let stored = self.read(scope, name).await?;
            let pod = stored.typed::<Pod>().map_err(ApiError::internal)?;
            let budget = if needs_no_budget(&pod) { None } else { self.budget_of(scope, &pod).await? };
            // A pod that does not count as healthy goes for free; but not if it has become healthy meanwhile.
            let as_seen = match &budget {
                None => pending(&pod),
                Some((_, budget)) => goes_for_free(budget, &pod),
            };
            match budget {
                Some((key, _)) if !as_seen => self.spend(scope, &key, name, dry_run).await?,
                _ => {}
            }
            delete.resource_version = insists.or_else(|| as_seen.then(|| stored.revision()));
            match self.delete(scope, name, &delete).await {
                Err(e) if e.is_conflict() && as_seen && insists.is_none() => {}
                other => return other.map(|_| ResponseBody::Done.into()),
            }
        }
        Err(modified(&scope.kind, name))
    }

    /// The budget that the pod counts to, with its key.
    async fn budget_of(
        &self,
        scope: &Scope,
        pod: &Pod,
    ) -> Result<Option<(String, Arc<PodDisruptionBudget>)>, ApiError> {
        let registry = self.registry();
        let Some(kind) = registry.of::<PodDisruptionBudget>() else { return Ok(None) };
        let budgets = Scope { kind: kind.clone(), ..scope.clone() };
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut found = None;
        for (key, stored) in self.storage.list(&Query::prefix(budgets.prefix())).await?.items {
            let budget = stored.typed::<PodDisruptionBudget>().map_err(ApiError::internal)?;
            let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
            let selector =
                selector.map(Selector::from_label_selector).transpose().map_err(ApiError::internal)?;
            if !selector.is_some_and(|s| s.matches(&labels)) {
                continue;
            }
            if found.is_some() {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
                           not support.";
                return Err(ApiError::new(500, "", why));
            }
            found = Some((key.to_string(), budget));
        }
        Ok(found)
    }

    /// Takes one from what the budget allows, and notes for whom.
    async fn spend(&self, scope: &Scope, key: &str, pod: &str, dry_run: bool) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            // A budget that is gone forbids nothing.
            let Some(stored) = self.storage.get(key).await? else { return Ok(()) };
            let mut budget = self.may_disrupt(scope, &stored)?;
            if dry_run {
                return Ok(());
            }
            let now = Time(to_second(self.clock.now()));
            let status = budget.status.get_or_insert_default();
            let allowed = status.disruptions_allowed.unwrap_or(0) - 1;
            status.disruptions_allowed = Some(allowed);
            status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), now.clone());
            if allowed == 0 {
                set_allowed_condition(&mut budget, now);
            }
            let compare = vec![Compare::Revision(key.to_owned(), stored.revision())];
            let registry = self.registry();
            let kind = registry.of::<PodDisruptionBudget>().ok_or_else(ApiError::no_such_resource)?;
            let draft = encoding::draft(kind, &mut budget, stored.managed_fields())?;
            let ops = vec![Op::Put(key.to_owned(), draft)];
            if let TxnOutcome::Committed(_) = self.storage.txn(Txn { compare, ops }).await? {
                return Ok(());
            }
        }
        Err(ApiError::timeout("couldn't update PodDisruptionBudget due to conflicts"))
    }

    /// The budget, if it allows another disruption.
    fn may_disrupt(&self, scope: &Scope, stored: &Stored) -> Result<PodDisruptionBudget, ApiError> {
        let budget = stored.typed::<PodDisruptionBudget>().map_err(ApiError::internal)?;
        let name = budget.metadata.name.as_deref().unwrap_or_default();
        let status = budget.status.clone().unwrap_or_default();
        let forbidden = |why: &str| match self.registry().of::<PodDisruptionBudget>() {
            Some(kind) => ApiError::forbidden(kind, name, why),
            None => ApiError::forbidden(&scope.kind, name, why),
        };
        if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
            let cause = format!("The disruption budget {name} is still being processed by the server.");
            return Err(refused(RETRY_S, cause));
        }
        if status.disruptions_allowed.unwrap_or(0) < 0 {
            return Err(forbidden("pdb disruptions allowed is negative"));
        }
        if status.disrupted_pods.as_ref().is_some_and(|d| d.len() > MAX_DISRUPTED) {
            return Err(forbidden(
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            ));
        }
        if status.disruptions_allowed.unwrap_or(0) == 0 {
            let cause = format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                status.desired_healthy.unwrap_or(0),
                status.current_healthy.unwrap_or(0)
            );
            return Err(refused(0, cause));
        }
        Ok((*budget).clone())
    }
}

/// Reads an Eviction of either version, which have the same fields.
fn read(mut body: Value) -> Result<Eviction, ApiError> {
    if body.get("apiVersion").is_some_and(|v| v == "policy/v1beta1") {
        body["apiVersion"] = "policy/v1".into();
    }
    serde_json::from_value(body)
        .map_err(|e| ApiError::bad_request(format!("the body is not an Eviction: {e}")))
}

fn refused(retry_after_s: i32, cause: String) -> ApiError {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    ApiError::too_many_requests(message, retry_after_s).with_cause(CAUSE, cause)
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn pending(pod: &Pod) -> bool {
    phase(pod) == "Pending" && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the pod serves nobody, or goes already.
fn needs_no_budget(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

/// Whether the budget lets this pod go without counting it, since it is not healthy.
fn goes_for_free(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    if is_ready(pod) {
        return false;
    }
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.as_ref();
    let current = status.and_then(|s| s.current_healthy).unwrap_or(0);
    let desired = status.and_then(|s| s.desired_healthy).unwrap_or(0);
    policy == Some("AlwaysAllow") || (current >= desired && desired > 0)
}

#[cfg(test)]
mod tests;
