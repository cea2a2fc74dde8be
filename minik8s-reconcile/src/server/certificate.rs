//! Certificate signing requests: who asks is for the server to say.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::{Kind, Object};
use serde_json::{Value, json};

use super::create::to_second;
use crate::request::{Payload, User};

/// Whether the kind is that of certificate signing requests.
pub(super) fn is_request(kind: &Kind) -> bool {
    kind.kind == "CertificateSigningRequest" && kind.group == "certificates.k8s.io"
}

/// The request, with `user` as the one who asks.
pub(super) fn asked_by(payload: Payload, user: &User) -> Payload {
    match payload {
        Payload::Json(json) => match serde_json::from_slice::<Value>(&json) {
            Ok(mut value) if value["spec"].is_object() => {
                let spec = &mut value["spec"];
                spec["username"] = json!(&*user.name);
                spec["uid"] = json!(&*user.uid);
                spec["groups"] = json!(&*user.groups);
                spec["extra"] = json!(&*user.extra);
                Payload::Json(value.to_string().into())
            }
            // Whoever decodes it will say what is wrong.
            _ => Payload::Json(json),
        },
        Payload::Typed(mut object) => {
            if let Some(request) = object.downcast_mut::<CertificateSigningRequest>() {
                request.spec.username = Some(user.name.to_string());
                request.spec.uid = Some(user.uid.to_string());
                request.spec.groups = Some(user.groups.to_vec());
                request.spec.extra = Some((*user.extra).clone());
            }
            Payload::Typed(object)
        }
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
