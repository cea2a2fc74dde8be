//! Certificate signing requests: who asks is for the server to say.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::{Kind, Object};
use serde_json::{Value, json};

use super::create::to_second;
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
