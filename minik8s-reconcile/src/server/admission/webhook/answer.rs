//! What webhooks answer.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

/// A webhook's answer.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) verdict: Verdict,
    /// A JSON patch.
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Allowed,
    /// With the code of the answer, and words, which may be missing.
    Denied {
        code: u16,
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: Option<String>,
    reason: Option<String>,
    code: Option<i32>,
}

impl Reply {
    /// Reads the answer to the question `uid`.
    pub(super) fn read(text: &[u8], uid: &str) -> Result<Self, String> {
        let review: Review =
            serde_json::from_slice(text).map_err(|e| format!("its answer cannot be read: {e}"))?;
        if review.api_version != "admission.k8s.io/v1" || review.kind != "AdmissionReview" {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
                review.api_version, review.kind
            ));
        }
        let response = review.response.ok_or("the webhook response is missing")?;
        if response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        let patch = match (response.patch, response.patch_type.as_deref()) {
            (None, None) => None,
            (Some(_), None) => return Err("response.patchType must be set with response.patch".to_owned()),
            (_, Some(type_)) if type_ != "JSONPatch" => {
                return Err(format!("unsupported patch type {type_:?}, it must be \"JSONPatch\""));
            }
            (None, Some(_)) => return Err("response.patch must be set with response.patchType".to_owned()),
            (Some(patch), Some(_)) => {
                let json =
                    BASE64_STANDARD.decode(patch).map_err(|e| format!("response.patch is no base64: {e}"))?;
                Some(serde_json::from_slice(&json).map_err(|e| format!("response.patch is no JSON: {e}"))?)
            }
        };
        let verdict = if response.allowed {
            Verdict::Allowed
        } else {
            let status = response.status.unwrap_or_default();
            let text = |field: Option<String>| field.filter(|t| !t.is_empty());
            let code = status.code.and_then(|c| u16::try_from(c).ok()).filter(|c| (400..600).contains(c));
            Verdict::Denied {
                code: code.unwrap_or(if status.code.is_some() { 400 } else { 403 }),
                message: text(status.message).or(text(status.reason)).unwrap_or_default(),
            }
        };
        Ok(Self {
            verdict,
            patch,
            warnings: response.warnings.unwrap_or_default(),
            annotations: response.audit_annotations.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_read_or_refused() {
        let review = |response: Value| json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
        let read = |value: Value| Reply::read(value.to_string().as_bytes(), "1");
        let patch = BASE64_STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        let reply =
            read(review(json!({ "uid": "1", "allowed": true, "patchType": "JSONPatch", "patch": patch,
            "warnings": ["careful"], "auditAnnotations": { "k": "v" } })))
            .unwrap();
        assert_eq!(reply.verdict, Verdict::Allowed);
        assert_eq!(reply.patch.unwrap()[0]["path"], "/a");
        assert_eq!((reply.warnings.len(), reply.annotations.len()), (1, 1));
        let denied = |status: Value| read(review(json!({ "uid": "1", "status": status }))).unwrap().verdict;
        let is = |code: u16, message: &str| Verdict::Denied { code, message: message.to_owned() };
        assert_eq!(denied(json!({ "code": 422, "message": "no" })), is(422, "no"));
        assert_eq!(denied(json!({ "code": 200, "reason": "Forbidden" })), is(400, "Forbidden"));
        assert_eq!(denied(json!(null)), is(403, ""));
        for (wrong, words) in [
            (json!({}), "expected webhook response of admission.k8s.io/v1"),
            (review(json!(null)), "the webhook response is missing"),
            (review(json!({ "uid": "2", "allowed": true })), "expected response.uid=\"1\", got \"2\""),
            (review(json!({ "uid": "1", "allowed": true, "patch": "" })), "response.patchType must be set"),
            (
                review(json!({ "uid": "1", "allowed": true, "patch": "", "patchType": "Merge" })),
                "unsupported patch",
            ),
        ] {
            assert!(read(wrong).unwrap_err().starts_with(words), "{words}");
        }
    }
}
