//! Requests for tokens.

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use minik8s_api::{FieldErrors, FieldPath, Resource};
use serde_json::Value;

use super::claims::{Bound, Claims, Reference, user_name};
use crate::error::ApiError;
use crate::request::{ApiResponse, ResponseBody, WriteParams};
use crate::server::create::to_second;
use crate::server::key::Scope;
use crate::server::{ApiServer, node};
use crate::stored::Stored;

/// How long a token lasts that says nothing of it, in seconds.
const LIFETIME_S: i64 = 3600;
/// The shortest life of a token, in seconds.
const SHORTEST_S: i64 = 600;
/// The longest life of a token, in seconds.
const LONGEST_S: i64 = 1 << 32;

impl ApiServer {
    /// Issues a token of the account `name`.
    pub(in crate::server) async fn request_token(
        &self,
        scope: &Scope,
        name: &str,
        body: Value,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let Some(tokens) = &self.tokens else { return Err(ApiError::no_such_resource()) };
        let mut request: TokenRequest = serde_json::from_value(body)
            .map_err(|e| ApiError::bad_request(format!("the body is not a TokenRequest: {e}")))?;
        let given = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
        if given(&request.metadata.name).is_some_and(|n| n != name) {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                request.metadata.name.unwrap_or_default()
            )));
        }
        let namespace = scope.namespace.clone().unwrap_or_default();
        if given(&request.metadata.namespace).is_some_and(|n| n != namespace) {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let mut spec = request.spec.take().unwrap_or_default();
        check(&spec)?;
        let stored = self.read(scope, name).await?;
        let account = stored.typed::<ServiceAccount>().map_err(ApiError::internal)?;
        let mut bound = Bound {
            namespace: namespace.clone(),
            serviceaccount: reference(&account.metadata),
            pod: None,
            secret: None,
            node: None,
        };
        match &spec.bound_object_ref {
            Some(to) => self.bind_token(scope, name, to, &mut bound).await?,
            None => self.node_must_bind(scope, name, None)?,
        }
        let audiences =
            spec.audiences.take().filter(|a| !a.is_empty()).unwrap_or_else(|| tokens.own_audiences());
        let now = to_second(self.clock.now());
        let lifetime = *spec.expiration_seconds.get_or_insert(LIFETIME_S);
        spec.audiences = Some(audiences.clone());
        let claims = Claims {
            aud: audiences,
            exp: now.as_second().saturating_add(lifetime),
            iat: now.as_second(),
            iss: tokens.0.issuer.clone(),
            jti: self.rng.uid(),
            sub: user_name(&namespace, name),
            nbf: now.as_second(),
            bound,
        };
        let expires = jiff::Timestamp::from_second(claims.exp).map_err(ApiError::internal)?;
        let token =
            if params.dry_run { String::new() } else { tokens.sign(&claims).map_err(ApiError::internal)? };
        request.metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace),
            creation_timestamp: Some(Time(now)),
            ..ObjectMeta::default()
        };
        request.spec = Some(spec);
        request.status =
            Some(TokenRequestStatus { expiration_timestamp: Some(Time(expires)), token: Some(token) });
        let json = serde_json::to_vec(&request).map_err(ApiError::internal)?;
        let object = Stored::new(json.into(), 0);
        Ok(ResponseBody::Object { object, created: true }.into())
    }

    /// Binds a token of the account `name` to an object.
    async fn bind_token(
        &self,
        scope: &Scope,
        name: &str,
        to: &BoundObjectReference,
        bound: &mut Bound,
    ) -> Result<(), ApiError> {
        let kind = to.kind.as_deref().unwrap_or_default();
        let object = to.name.as_deref().unwrap_or_default();
        if kind != "Pod" {
            self.node_must_bind(scope, name, None)?;
        }
        match (to.api_version.as_deref(), kind) {
            (Some("v1"), "Pod") => {
                let pod = self.bound::<Pod>(scope, object, to).await?;
                self.node_must_bind(scope, name, Some((&pod, to)))?;
                let spec = pod.spec.clone().unwrap_or_default();
                if spec.service_account_name.as_deref() != Some(name) {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount \
                         name."
                    )));
                }
                bound.pod = Some(reference(&pod.metadata));
                if let Some(node) = spec.node_name.filter(|n| !n.is_empty()) {
                    let found = self.client().all::<Node>().get_opt(&node).await?;
                    let uid = found.and_then(|n| n.metadata.uid.clone()).unwrap_or_default();
                    bound.node = Some(Reference { name: node, uid });
                }
            }
            (Some("v1"), "Secret") => {
                let secret = self.bound::<Secret>(scope, object, to).await?;
                bound.secret = Some(reference(&secret.metadata));
            }
            (Some("v1"), "Node") => {
                let node = self.bound::<Node>(scope, object, to).await?;
                bound.node = Some(reference(&node.metadata));
            }
            (version, _) => {
                let version = version.unwrap_or_default();
                return Err(ApiError::bad_request(format!(
                    "cannot bind token to object of type {version}, Kind={kind}"
                )));
            }
        }
        Ok(())
    }

    /// The object that a token is to be bound to.
    async fn bound<K: Resource>(
        &self,
        scope: &Scope,
        name: &str,
        to: &BoundObjectReference,
    ) -> Result<std::sync::Arc<K>, ApiError> {
        let place = scope.namespace.as_deref().unwrap_or_default();
        let found = self.client().namespaced::<K>(place).get(name).await?;
        let uid = found.meta().uid.as_deref().unwrap_or_default();
        match to.uid.as_deref().filter(|u| !u.is_empty()) {
            Some(wanted) if wanted != uid => {
                let registry = self.registry();
                let kind = registry.of::<K>().unwrap_or(&scope.kind);
                let why = format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object \
                     might have been deleted and then recreated"
                );
                Err(ApiError::conflict(kind, name, why))
            }
            _ => Ok(found),
        }
    }

    /// A node gets tokens that are bound to its own pods, and no others.
    fn node_must_bind(
        &self,
        scope: &Scope,
        account: &str,
        to: Option<(&Pod, &BoundObjectReference)>,
    ) -> Result<(), ApiError> {
        let Some(node) = node::node_name(&scope.user) else { return Ok(()) };
        let runs_on = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        let why = match to {
            None => "node requested token not bound to a pod",
            Some((_, to)) if to.uid.as_deref().unwrap_or_default().is_empty() => {
                "node requested token with a pod binding without a uid"
            }
            Some((pod, _)) if runs_on(pod) != node => {
                "node requested token bound to a pod scheduled on a different node"
            }
            Some(_) => return Ok(()),
        };
        Err(ApiError::forbidden(&scope.kind, account, why))
    }
}

fn reference(metadata: &ObjectMeta) -> Reference {
    Reference {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

fn check(spec: &TokenRequestSpec) -> Result<(), ApiError> {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec").child("expirationSeconds");
    match spec.expiration_seconds {
        Some(seconds) if seconds < SHORTEST_S => {
            errors.invalid(path, seconds, "may not specify a duration less than 10 minutes");
        }
        Some(seconds) if seconds > LONGEST_S => {
            errors.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        _ => {}
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid_object("authentication.k8s.io", "TokenRequest", "", &errors)),
    }
}
