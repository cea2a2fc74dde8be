//! Certificate signing requests: who asks is for the server to say, and who may decide and sign is asked by signer
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization>).

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::{Kind, Object};
use serde_json::{Value, json};

use super::ApiServer;
use super::authorizer::Action;
use super::create::to_second;
use super::key::Scope;
use super::part::Part;
use crate::error::ApiError;
use crate::request::User;

/// Whether the kind is that of certificate signing requests.
pub(super) fn is_request(kind: &Kind) -> bool {
    kind.kind == "CertificateSigningRequest" && kind.group == "certificates.k8s.io"
}

/// Notes `user` as the one who asks, whatever a new request says of that.
pub(super) fn stamp(object: &mut dyn Object, user: &User) {
    let Some(request) = object.downcast_mut::<CertificateSigningRequest>() else { return };
    let spec = &mut request.spec;
    spec.username = Some(user.name.to_string());
    spec.uid = Some(user.uid.to_string()).filter(|u| !u.is_empty());
    spec.groups = Some(user.groups.to_vec()).filter(|g| !g.is_empty());
    spec.extra = Some((*user.extra).clone()).filter(|e| !e.is_empty());
}

/// Whether the condition says that the request was granted or refused.
fn is_verdict(condition: &Value) -> bool {
    condition["type"] == "Approved" || condition["type"] == "Denied"
}

/// Whoever signs does not decide: the verdict stays as it was in `old`.
pub(super) fn keep_verdict(new: &mut Value, old: &Value) {
    let conditions = |of: &Value| of.pointer("/status/conditions").and_then(Value::as_array).cloned();
    let verdict = conditions(old).into_iter().flatten().filter(is_verdict);
    let others = conditions(new).into_iter().flatten().filter(|c| !is_verdict(c));
    let kept: Vec<Value> = verdict.chain(others).collect();
    if !kept.is_empty() && !new["status"].is_object() {
        new["status"] = json!({});
    }
    if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("conditions".to_owned(), kept.into());
    }
}

/// Dates the conditions that are new.
pub(super) fn date_conditions(request: &mut dyn Object, now: jiff::Timestamp) {
    let now = Time(to_second(now));
    let request = request.downcast_mut::<CertificateSigningRequest>();
    for condition in request.and_then(|r| r.status.as_mut()?.conditions.as_mut()).into_iter().flatten() {
        condition.last_update_time.get_or_insert_with(|| now.clone());
        condition.last_transition_time.get_or_insert_with(|| now.clone());
    }
}

impl ApiServer {
    /// Whether whoever asks may write the request `new`, in place of the part of the second one or as a new object.
    ///
    /// # Errors
    /// 403, if not.
    pub(super) async fn admit_certificate(
        &self,
        scope: &Scope,
        old: Option<(Part, &dyn Object)>,
        new: &dyn Object,
    ) -> Result<(), ApiError> {
        let Some(request) = new.downcast_ref::<CertificateSigningRequest>() else { return Ok(()) };
        let old = old.map(|(part, old)| (part, old.downcast_ref::<CertificateSigningRequest>()));
        let verb = match old {
            #[cfg(feature = "tls")]
            None => return may_ask(scope, request),
            Some((Part::Approval, _)) => "approve",
            Some((Part::Status, Some(old))) if signs(old.status.as_ref(), request.status.as_ref()) => "sign",
            _ => return Ok(()),
        };
        let signer = request.spec.signer_name.as_str();
        let domain = signer.split_once('/').map_or_else(String::new, |(domain, _)| format!("{domain}/*"));
        let allowed = |name: &str| {
            let action = Action::Resource {
                verb,
                group: &scope.kind.group,
                version: "*",
                resource: "signers",
                subresource: "",
                namespace: "",
                name,
                field_selector: "",
            };
            self.authorizer.authorize(&scope.user, &action).allowed
        };
        if allowed(signer) || allowed(&domain) {
            return Ok(());
        }
        self.authorizer.settle().await?;
        if allowed(signer) || allowed(&domain) {
            return Ok(());
        }
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
        Err(ApiError::forbidden(&scope.kind, name, why))
    }
}

/// Whether a new status holds what a signer says.
fn signs(
    old: Option<&CertificateSigningRequestStatus>,
    new: Option<&CertificateSigningRequestStatus>,
) -> bool {
    let certificate = |of: Option<&CertificateSigningRequestStatus>| of.and_then(|s| s.certificate.clone());
    let conditions = |of: Option<&CertificateSigningRequestStatus>| of.and_then(|s| s.conditions.clone());
    certificate(old) != certificate(new)
        || conditions(old).unwrap_or_default() != conditions(new).unwrap_or_default()
}

/// Nobody asks for the rights of administrators, and no node for another's name.
#[cfg(feature = "tls")]
fn may_ask(scope: &Scope, request: &CertificateSigningRequest) -> Result<(), ApiError> {
    use crate::pki::{CertificateRequest, NODE, Signer};

    let Some(signer) = Signer::find(&request.spec.signer_name) else { return Ok(()) };
    // What cannot be read will not be signed.
    let Ok(wanted) = CertificateRequest::parse(&request.spec.request.0) else { return Ok(()) };
    let holder = wanted.holder();
    let why = match (signer, super::node::node_name(&scope.user)) {
        (Signer::Client, _) if holder.groups.iter().any(|g| g == super::rbac::MASTERS) => {
            let (signer, masters) = (signer.name(), super::rbac::MASTERS);
            format!("use of {signer} signer with {masters} group is not allowed")
        }
        (Signer::NodeClient | Signer::NodeServing, Some(node)) if *holder.name != format!("{NODE}{node}") => {
            format!("can only create a node CSR with CN={NODE}{node}")
        }
        _ => return Ok(()),
    };
    let name = request.metadata.name.as_deref().unwrap_or_default();
    Err(ApiError::forbidden(&scope.kind, name, why))
}
