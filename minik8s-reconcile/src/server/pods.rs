//! Subresources that are made, and bindings.

#[cfg(feature = "http")]
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
#[cfg(feature = "http")]
use minik8s_api::Kind;
use minik8s_api::Unstructured;
use serde_json::Value;

use super::admission::{Options, Request, Verb};
use super::create::to_second;
use super::key::Scope;
use super::{ApiServer, encoding};
use crate::error::ApiError;
#[cfg(feature = "http")]
use crate::request::User;
use crate::request::{ApiResponse, Notes, Payload, ResponseBody, WriteParams};
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
        let body: Value = match &payload {
            Payload::Json(json) => serde_json::from_slice(json)
                .map_err(|e| ApiError::bad_request(format!("the body is not JSON: {e}")))?,
            Payload::Typed(object) => object.to_value(),
        };
        let named = (scope.kind.kind.as_ref(), subresource);
        let kind = match named {
            ("Pod", "binding") => ("v1", "Binding"),
            ("ServiceAccount", "token") => ("authentication.k8s.io/v1", "TokenRequest"),
            ("Pod", "eviction") => ("policy/v1", "Eviction"),
            _ => return Err(ApiError::no_such_resource()),
        };
        let mut notes = Notes::default();
        let options = Options::Write("CreateOptions", params);
        let body =
            self.admit_part(scope, Verb::Create, name, subresource, options, kind, body, &mut notes).await;
        let done = match body {
            Err(error) => Err(error),
            Ok(body) => match named {
                ("Pod", "binding") => self.bind(scope, name, body, params).await,
                ("ServiceAccount", _) => self.request_token(scope, name, body, params).await,
                _ => self.evict(scope, name, body, params).await,
            },
        };
        match done {
            Ok(mut response) => {
                notes.extend(Notes { warnings: response.warnings, annotations: response.annotations });
                (response.warnings, response.annotations) = (notes.warnings, notes.annotations);
                Ok(response)
            }
            Err(error) => Err(error.with_notes(notes)),
        }
    }

    /// Asks admission about what is made of or said to an object through a subresource; it may change that.
    #[allow(clippy::too_many_arguments)]
    async fn admit_part(
        &self,
        scope: &Scope,
        verb: Verb,
        name: &str,
        subresource: &str,
        options: Options<'_>,
        (api_version, kind): (&str, &str),
        body: Value,
        notes: &mut Notes,
    ) -> Result<Value, ApiError> {
        let mut object = Unstructured::from_value(body, &mut Vec::new())
            .map_err(|e| ApiError::bad_request(format!("the body is not a {kind}: {e}")))?;
        for (given, default) in [(&mut object.api_version, api_version), (&mut object.kind, kind)] {
            if given.is_empty() {
                default.clone_into(given);
            }
        }
        let mut request =
            Request::new(self, scope, verb, name, options).of_part(subresource).with_object(Box::new(object));
        self.admission.mutate(&mut request, notes).await?;
        self.admission.validate(&request, notes).await?;
        let object = request.take_object().expect("it was put in");
        Ok(object.to_value())
    }

    /// Whether whoever asks may begin to talk with an object; `options` is what the query says.
    ///
    /// # Errors
    /// Admission is against it.
    #[cfg(feature = "http")]
    pub(crate) async fn admit_connection(
        &self,
        kind: &Arc<Kind>,
        namespace: Option<&str>,
        user: &User,
        name: &str,
        subresource: &str,
        options: Value,
    ) -> Result<(), ApiError> {
        let scope = Scope::new(kind.clone(), namespace.map(ToOwned::to_owned), user.clone())?;
        let of = match (kind.kind.as_ref(), subresource) {
            ("Pod", "exec") => "PodExecOptions",
            ("Pod", "attach") => "PodAttachOptions",
            ("Pod", "portforward") => "PodPortForwardOptions",
            ("Node", "proxy") => "NodeProxyOptions",
            // To read is not to connect.
            _ => return Ok(()),
        };
        let mut notes = Notes::default();
        let asked = self.admit_part(
            &scope,
            Verb::Connect,
            name,
            subresource,
            Options::None,
            ("v1", of),
            options,
            &mut notes,
        );
        match asked.await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.with_notes(notes)),
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
