//! Discovery in one answer: all resources of all groups, for clients that ask `/api` and `/apis` for it.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use minik8s_api::{Kind, Registry};
use serde_json::{Map, Value, json};

use super::body::Body;
use super::discovery::{groups, resource};
use super::negotiate;
use crate::error::ApiError;

/// The versions of the document: `v2`, and the same under its older name, which kubectl 1.26 to 1.29 know.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

/// The version of the document that a client wants; `None` for one that wants the plain lists.
///
/// # Errors
/// 406 for one that wants neither.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<&'static str>, ApiError> {
    let choice = negotiate::best(headers, |media_type, parameters| {
        let parameter = |name| parameters.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        match (media_type, parameter("as")) {
            ("application/json" | "application/*" | "*/*", None) => Some(None),
            ("application/json", Some("APIGroupDiscoveryList")) => {
                let version = VERSIONS.into_iter().find(|v| parameter("v") == Some(*v))?;
                (parameter("g") == Some("apidiscovery.k8s.io")).then_some(Some(version))
            }
            _ => None,
        }
    });
    choice.unwrap_or(Ok(None))
}

/// The document, of the core group or of all others. A client that shows the tag of what it has gets no more than
/// the word that it is still right.
pub(super) fn respond(
    registry: &Registry,
    core: bool,
    version: &'static str,
    headers: &HeaderMap,
) -> Response<Body> {
    let text = document(registry, core, version).to_string();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let tag = format!("\"{hash:016X}\"");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|t| t.as_bytes() == tag.as_bytes());
    let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let mut response = match known {
        true => super::respond_with(StatusCode::NOT_MODIFIED, &media_type, ""),
        false => super::respond_with(StatusCode::OK, &media_type, text),
    };
    let tag = HeaderValue::from_str(&tag).expect("hexadecimal digits");
    response.headers_mut().insert(header::ETAG, tag);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn document(registry: &Registry, core: bool, version: &str) -> Value {
    let items: Vec<Value> = match core {
        true => vec![group(registry, "", &["v1"])],
        false => groups(registry).iter().map(|(name, versions)| group(registry, name, versions)).collect(),
    };
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn group(registry: &Registry, name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let kinds = registry.iter().filter(|k| k.group == name && k.version == *version);
            let resources: Vec<Value> = kinds.map(|kind| entry(kind)).collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
    json!({ "metadata": metadata, "versions": versions })
}

/// A kind, with its subresources: what the plain list says, in other words.
fn entry(kind: &Kind) -> Value {
    let mut listed = resource(kind).into_iter();
    let main = listed.next().unwrap_or_default();
    let scope = if kind.namespaced { "Namespaced" } else { "Cluster" };
    let mut out = Map::from_iter([
        ("resource".to_owned(), json!(kind.plural)),
        ("responseKind".to_owned(), response_kind(kind, &main)),
        ("scope".to_owned(), json!(scope)),
        ("singularResource".to_owned(), json!(kind.singular)),
        ("verbs".to_owned(), main["verbs"].clone()),
    ]);
    for optional in ["shortNames", "categories"] {
        if let Some(names) = main.get(optional) {
            out.insert(optional.to_owned(), names.clone());
        }
    }
    let subresources: Vec<Value> = listed
        .map(|sub| {
            let name = sub["name"].as_str().and_then(|n| n.split_once('/')).map_or("", |(_, name)| name);
            json!({ "subresource": name, "responseKind": response_kind(kind, &sub), "verbs": sub["verbs"] })
        })
        .collect();
    if !subresources.is_empty() {
        out.insert("subresources".to_owned(), subresources.into());
    }
    Value::Object(out)
}

fn response_kind(kind: &Kind, listed: &Value) -> Value {
    let of = |field: &str, own: &str| listed[field].as_str().unwrap_or(own).to_owned();
    json!({
        "group": of("group", &kind.group), "version": of("version", &kind.version), "kind": listed["kind"],
    })
}
