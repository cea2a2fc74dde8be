//! Subresources that are made, and bindings.

use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::create::to_second;
use super::key::Scope;
use super::{ApiServer, encoding};
use crate::error::ApiError;
use crate::request::{ApiResponse, Payload, ResponseBody, WriteParams};
use crate::storage::{Compare, Op, Txn, TxnOutcome};

impl ApiServer {
    pub(super) async fn create_subresource(
        &self,
        scope: &Scope,
        name: &str,
        subresource: &str,
        payload: Payload,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let body = match &payload {
            Payload::Json(json) => serde_json::from_slice(json)
                .map_err(|e| ApiError::bad_request(format!("the body is not JSON: {e}")))?,
            Payload::Typed(object) => object.to_value(),
        };
        match (scope.kind.kind.as_ref(), subresource) {
            ("Pod", "binding") => self.bind(scope, name, body, params).await,
            ("ServiceAccount", "token") => self.request_token(scope, name, body, params).await,
            ("Pod", "eviction") => self.evict(scope, name, body, params).await,
            _ => Err(ApiError::no_such_resource()),
        }
    }

    /// Gives a pod to a node, once.
    pub(super) async fn bind(
        &self,
        scope: &Scope,
        name: &str,
        body: Value,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let binding: Binding = serde_json::from_value(body)
            .map_err(|e| ApiError::bad_request(format!("the body is not a Binding: {e}")))?;
        let node = binding.target.name.clone().unwrap_or_default();
        if node.is_empty() || binding.target.kind.as_deref().is_some_and(|k| k != "Node" && !k.is_empty()) {
            return Err(ApiError::bad_request("a Binding's target must name a Node"));
        }
        let kind = &scope.kind;
        loop {
            let stored = self.read(scope, name).await?;
            let mut pod = (*stored.typed::<Pod>().map_err(ApiError::internal)?).clone();
            if let Some(uid) = binding.metadata.uid.as_deref().filter(|u| !u.is_empty())
                && pod.metadata.uid.as_deref() != Some(uid)
            {
                let why = format!("Precondition failed: UID in precondition: {uid}");
                return Err(ApiError::conflict(kind, name, why));
            }
            if pod.metadata.deletion_timestamp.is_some() {
                let why = format!("pod {name} is being deleted, cannot be assigned to a host");
                return Err(ApiError::conflict(kind, name, why));
            }
            let spec = pod.spec.get_or_insert_default();
            if let Some(taken) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
                let why = format!("pod {name} is already assigned to node \"{taken}\"");
                return Err(ApiError::conflict(kind, name, why));
            }
            if spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
                let why = format!("pod {name} has non-empty .spec.schedulingGates");
                return Err(ApiError::conflict(kind, name, why));
            }
            spec.node_name = Some(node.clone());
            let annotations = pod.metadata.annotations.get_or_insert_default();
            annotations.extend(binding.metadata.annotations.clone().unwrap_or_default());
            if annotations.is_empty() {
                pod.metadata.annotations = None;
            }
            let scheduled = PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(to_second(self.clock.now()))),
                ..PodCondition::default()
            };
            let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.retain(|c| c.type_ != "PodScheduled");
            conditions.push(scheduled);
            if params.dry_run {
                return Ok(ResponseBody::Done.into());
            }
            let key = scope.key(name)?;
            let compare = vec![Compare::Revision(key.clone(), stored.revision())];
            let ops = vec![Op::Put(key, encoding::draft(kind, &mut pod, stored.managed_fields())?)];
            if let TxnOutcome::Committed(_) = self.storage.txn(Txn { compare, ops }).await? {
                return Ok(ResponseBody::Done.into());
            }
        }
    }
}
