//! Bodies in protobuf.

use minik8s_api::object::duplicates;
use minik8s_api::protobuf;
use serde_json::Value;

/// Kinds whose messages are tried without an envelope. New ones go to the end: inputs name them by their place.
const KINDS: &[(&str, &str)] = &[
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("coordination.k8s.io/v1", "Lease"),
    ("events.k8s.io/v1", "Event"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("networking.k8s.io/v1", "Ingress"),
    ("meta.k8s.io/v1", "DeleteOptions"),
];
/// The most bytes of JSON for one byte of protobuf: a field of two bytes is a name and an empty object.
const GROWTH: usize = 64;

/// What is read is JSON without a key that stands twice, within bounds.
pub(crate) fn holds(data: &[u8]) {
    let wrapped;
    let body = match data {
        [b'k', b'8', b's', 0, ..] => data,
        [which, message @ ..] => {
            let (api_version, kind) = KINDS[usize::from(*which) % KINDS.len()];
            wrapped = envelope(api_version, kind, message);
            &wrapped
        }
        [] => return,
    };
    let Ok(json) = protobuf::to_json(body) else { return };
    assert!(json.len() <= body.len() * GROWTH, "{} bytes of {}", json.len(), body.len());
    let value: Value =
        serde_json::from_slice(&json).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&json)));
    let raw = |key: &String| key.contains("fieldsV1") || key.contains("raw") || key.contains("default");
    let twice = duplicates(&json);
    // What is JSON on the wire is passed on as it is.
    assert!(twice.iter().all(raw) || !body.starts_with(b"k8s\0") || is_json(body), "{twice:?}");
    let word = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    if let Some(kind) = crate::registry().by_kind(word("apiVersion"), word("kind")) {
        crate::json::object_of(kind, &json);
    }
}

/// Whether somewhere in it is JSON, as which everything may stand twice.
fn is_json(body: &[u8]) -> bool {
    body.contains(&b'{')
}

fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    field(&mut types, 1, api_version.as_bytes());
    field(&mut types, 2, kind.as_bytes());
    let mut out = b"k8s\0".to_vec();
    field(&mut out, 1, &types);
    field(&mut out, 2, message);
    out
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}
