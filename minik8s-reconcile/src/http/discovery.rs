//! What the server says about itself: versions, groups, resources and schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use minik8s_api::{Kind, Registry, openapi};
use serde_json::{Value, json};

use super::aggregated_discovery;
use super::body::Body;
use super::route::Route;
use crate::error::ApiError;

/// The version of the Kubernetes API that is served.
const KUBERNETES_MINOR: &str = "37";
/// What kubectl 1.20 to 1.33 asks the OpenAPI v2 document as.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Documents about a registry, made when first asked for.
pub(super) struct Discovery {
    registry: Arc<Registry>,
    openapi_v2_json: OnceLock<Bytes>,
    openapi_v2_protobuf: OnceLock<Bytes>,
    openapi_v3_index: OnceLock<Bytes>,
    /// By group and version. Most groups stay as they are when others come and go.
    openapi_v3: Mutex<BTreeMap<(String, String), GroupDocument>>,
}

/// The OpenAPI document of one group and version.
#[derive(Clone)]
struct GroupDocument {
    /// What it is about.
    kinds: Vec<Arc<Kind>>,
    json: Bytes,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Discovery")
    }
}

impl Discovery {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            openapi_v2_json: OnceLock::new(),
            openapi_v2_protobuf: OnceLock::new(),
            openapi_v3_index: OnceLock::new(),
            openapi_v3: Mutex::default(),
        }
    }

    pub(super) fn is_about(&self, registry: &Arc<Registry>) -> bool {
        Arc::ptr_eq(&self.registry, registry)
    }

    /// Documents about other kinds.
    pub(super) fn succeeded_by(&self, registry: Arc<Registry>) -> Self {
        let documents = self.openapi_v3.lock().expect("no writer panics").clone();
        Self { openapi_v3: Mutex::new(documents), ..Self::new(registry) }
    }

    /// The OpenAPI document of a group and version, made if there is none that is about the same kinds.
    fn openapi_v3(&self, group: &str, version: &str) -> Option<Bytes> {
        let kinds: Vec<_> =
            self.registry.iter().filter(|k| k.group == group && k.version == version).cloned().collect();
        let same = |known: &GroupDocument| {
            known.kinds.len() == kinds.len() && known.kinds.iter().zip(&kinds).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let mut documents = self.openapi_v3.lock().expect("no writer panics");
        let key = (group.to_owned(), version.to_owned());
        if let Some(known) = documents.get(&key).filter(|known| same(known)) {
            return Some(known.json.clone());
        }
        let Some(document) = openapi::v3(&self.registry, group, version) else {
            documents.remove(&key);
            return None;
        };
        let json = Bytes::from(document.to_string());
        documents.insert(key, GroupDocument { kinds, json: json.clone() });
        Some(json)
    }

    fn openapi_v3_index(&self) -> Bytes {
        let versions: BTreeSet<_> = self.registry.iter().map(|k| (&*k.group, &*k.version)).collect();
        let documents = versions
            .into_iter()
            .filter_map(|(group, version)| Some((group, version, self.openapi_v3(group, version)?)));
        openapi::v3_index_of(documents).to_string().into()
    }

    pub(super) fn get(&self, route: &Route, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
        let aggregated = match route {
            Route::CoreVersions | Route::Groups => aggregated_discovery::wanted(headers)?,
            _ => None,
        };
        if let Some(version) = aggregated {
            let core = *route == Route::CoreVersions;
            return Ok(aggregated_discovery::respond(&self.registry, core, version, headers));
        }
        let document = match route {
            Route::Root => self.paths(),
            Route::Version => version(),
            Route::CoreVersions => json!({
                "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
            }),
            Route::Groups => json!({
                "kind": "APIGroupList", "apiVersion": "v1",
                "groups": groups(&self.registry).iter().map(|(g, v)| group(g, v)).collect::<Vec<_>>(),
            }),
            Route::Group(name) => match groups(&self.registry).get_key_value(name.as_str()) {
                Some((name, versions)) => group(name, versions),
                None => return Err(ApiError::no_such_resource()),
            },
            Route::Resources(group, version) => self.resources(group, version)?,
            Route::OpenApiV2 => return Ok(self.openapi_v2(headers)),
            Route::OpenApiV3Index => {
                // Making it means making every document, for their hashes.
                let index = self.openapi_v3_index.get_or_init(|| self.openapi_v3_index()).clone();
                return Ok(super::json(StatusCode::OK, index));
            }
            Route::OpenApiV3(group, version) => {
                let document = self.openapi_v3(group, version).ok_or_else(ApiError::no_such_resource)?;
                return Ok(super::json(StatusCode::OK, document));
            }
            Route::Health(..)
            | Route::Backup
            | Route::OpenIdConfiguration
            | Route::KeySet
            | Route::Resource(_) => {
                return Err(ApiError::no_such_resource());
            }
        };
        let mut response = super::json(StatusCode::OK, document.to_string());
        if matches!(route, Route::CoreVersions | Route::Groups) {
            response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
        }
        Ok(response)
    }

    fn paths(&self) -> Value {
        let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
        for (group, versions) in groups(&self.registry) {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
        }
        for path in ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"] {
            paths.push(path.to_owned());
        }
        json!({ "paths": paths })
    }

    fn resources(&self, group: &str, version: &str) -> Result<Value, ApiError> {
        let kinds: Vec<_> =
            self.registry.iter().filter(|k| k.group == group && k.version == version).collect();
        let Some(first) = kinds.first() else { return Err(ApiError::no_such_resource()) };
        let resources: Vec<Value> = kinds.iter().flat_map(|k| resource(k)).collect();
        Ok(json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": first.api_version(), "resources": resources,
        }))
    }

    fn openapi_v2(&self, headers: &HeaderMap) -> Response<Body> {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if accept.contains("proto-openapi.spec.v2") {
            let document =
                self.openapi_v2_protobuf.get_or_init(|| openapi::v2_protobuf(&self.registry).into());
            super::respond_with(StatusCode::OK, GNOSTIC, document.clone())
        } else {
            let document =
                self.openapi_v2_json.get_or_init(|| openapi::v2_json(&self.registry).to_string().into());
            super::json(StatusCode::OK, document.clone())
        }
    }
}

/// Versions of all groups but the core, the preferred one first.
pub(super) fn groups(registry: &Registry) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in registry.iter().filter(|k| !k.group.is_empty()) {
        let versions = groups.entry(&kind.group).or_default();
        if !versions.contains(&kind.version.as_ref()) {
            versions.push(&kind.version);
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
    }
    groups
}

/// Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1.
fn priority(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    for (stage, rank) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(stage)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (rank, major, minor);
        }
    }
    number(rest).map_or((0, 0, 0), |major| (3, major, 0))
}

fn group(name: &str, versions: &[&str]) -> Value {
    let list: Vec<Value> =
        versions.iter().map(|v| json!({ "groupVersion": format!("{name}/{v}"), "version": v })).collect();
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name,
        "versions": list, "preferredVersion": list.first(),
    })
}

/// A kind and its subresources.
pub(super) fn resource(kind: &Kind) -> Vec<Value> {
    let mut main = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": kind.verbs(),
    });
    if !kind.short_names.is_empty() {
        main["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        main["categories"] = json!(kind.categories);
    }
    let mut all = vec![main];
    if kind.status {
        all.push(json!({
            "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": ["get", "patch", "update"],
        }));
    }
    for subresource in &kind.subresources {
        let mut entry = json!({
            "name": format!("{}/{subresource}", kind.plural), "singularName": "",
            "namespaced": kind.namespaced, "kind": kind.kind,
        });
        let proxied = match kind.kind.as_ref() {
            "Pod" => "PodProxyOptions",
            "Service" => "ServiceProxyOptions",
            _ => "NodeProxyOptions",
        };
        let (kind_name, group, version, verbs): (&str, &str, &str, &[&str]) = match subresource.as_ref() {
            "scale" => ("Scale", "autoscaling", "v1", &["get", "patch", "update"]),
            "eviction" => ("Eviction", "policy", "v1", &["create"]),
            "binding" => ("Binding", "", "", &["create"]),
            "exec" => ("PodExecOptions", "", "", &["create", "get"]),
            "attach" => ("PodAttachOptions", "", "", &["create", "get"]),
            "portforward" => ("PodPortForwardOptions", "", "", &["create", "get"]),
            "proxy" => (proxied, "", "", &["create", "delete", "get", "patch", "update"]),
            "token" => ("TokenRequest", "authentication.k8s.io", "v1", &["create"]),
            "finalize" => (&kind.kind, "", "", &["update"]),
            "log" => (&kind.kind, "", "", &["get"]),
            _ => (&kind.kind, "", "", &["get", "patch", "update"]),
        };
        entry["kind"] = kind_name.into();
        entry["verbs"] = json!(verbs);
        if !version.is_empty() {
            entry["group"] = group.into();
            entry["version"] = version.into();
        }
        all.push(entry);
    }
    all
}

fn version() -> Value {
    json!({
        "major": "1", "minor": KUBERNETES_MINOR,
        "gitVersion": format!("v1.{KUBERNETES_MINOR}.0+minik8s.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", std::env::consts::ARCH),
    })
}
