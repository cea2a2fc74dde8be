//! Calls of webhooks: where they are, and asking them.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use minik8s_api::Resource;

use super::ApiServer;
use crate::storage::Query;

/// The port of a webhook that does not say.
const PORT: i32 = 443;

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As it calls itself: who it has to prove to be.
    pub(crate) host: String,
    /// Where it listens: names or addresses, with ports, to be tried in this order.
    pub(crate) addresses: Vec<String>,
    /// The path and the query.
    pub(crate) path: String,
    /// How users know it, for errors.
    pub(crate) url: String,
    /// The authorities that it may be known by; the machine's own, if there are none.
    pub(crate) authorities: Option<Vec<u8>>,
}

/// Sends `body` to a webhook, and gives back what it answers.
///
/// # Errors
/// It cannot be found, does not answer in time, or answers with an error; the words say which.
pub(super) async fn call(
    server: &ApiServer,
    client: &WebhookClientConfig,
    timeout: Duration,
    body: Bytes,
) -> Result<Bytes, String> {
    let asked = async {
        let target = find(server, client).await?;
        let url = target.url.clone();
        let answer = post(&target, body).await;
        answer.map_err(|why| format!("failed to call webhook: Post {url:?}: {why}"))
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(format!("failed to call webhook: no answer within {} s (timeoutSeconds)", timeout.as_secs()))
        }
    }
}

#[cfg(feature = "tls")]
async fn post(target: &Target, body: Bytes) -> Result<Bytes, String> {
    crate::http::call::post(target, body).await
}

#[cfg(not(feature = "tls"))]
async fn post(_: &Target, _: Bytes) -> Result<Bytes, String> {
    Err("this program was built without TLS (feature `tls`), and calls no webhooks".to_owned())
}

async fn find(server: &ApiServer, client: &WebhookClientConfig) -> Result<Target, String> {
    let authorities = client.ca_bundle.as_ref().map(|ByteString(pem)| pem.clone()).filter(|p| !p.is_empty());
    if let Some(url) = client.url.as_deref().filter(|u| !u.is_empty()) {
        return at(url, authorities);
    }
    let Some(service) = &client.service else {
        return Err("its clientConfig has neither a url nor a service".to_owned());
    };
    let port = service.port.unwrap_or(PORT);
    let host = format!("{}.{}.svc", service.name, service.namespace);
    let path = service.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("https://{host}:{port}{path}");
    let addresses = addresses(server, &service.namespace, &service.name, port).await;
    let addresses = addresses.map_err(|why| format!("failed to call webhook: Post {url:?}: {why}"))?;
    Ok(Target { host, addresses, path, url, authorities })
}

fn at(url: &str, authorities: Option<Vec<u8>>) -> Result<Target, String> {
    let wrong = |why: &str| format!("its url {url:?} {why}");
    let parsed: http::Uri = url.parse().map_err(|_| wrong("is malformed"))?;
    if parsed.scheme_str() != Some("https") {
        return Err(wrong("must begin with https://"));
    }
    let host = parsed.host().filter(|h| !h.is_empty()).ok_or_else(|| wrong("has no host"))?;
    let port = parsed.port_u16().unwrap_or(443);
    Ok(Target {
        host: host.trim_matches(['[', ']']).to_owned(),
        addresses: vec![format!("{host}:{port}")],
        path: parsed.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        url: url.to_owned(),
        authorities,
    })
}

/// Where the pods behind a service listen; without pods that are known, where the service itself does.
async fn addresses(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    port: i32,
) -> Result<Vec<String>, String> {
    let key = format!("services/{namespace}/{name}");
    let service: Service = read(server, &key).await?.ok_or_else(|| format!("service {name:?} not found"))?;
    let spec = service.spec.unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let external = spec.external_name.unwrap_or_default();
        return Ok(vec![format!("{external}:{port}")]);
    }
    let ports = spec.ports.unwrap_or_default();
    let Some(wanted) = ports.iter().find(|p| p.port == port) else {
        return Err(format!("no service port {port} found for service {name:?}"));
    };
    let port_name = wanted.name.clone().unwrap_or_default();
    let mut found = Vec::new();
    let prefix = format!("endpointslices.discovery.k8s.io/{namespace}/");
    for (_, stored) in server.storage.list(&Query::prefix(prefix)).await.map_err(|e| e.to_string())?.items {
        let Ok(slice) = stored.typed::<EndpointSlice>() else { continue };
        let of = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
        if of.map(String::as_str) != Some(name) {
            continue;
        }
        let target = slice.ports.iter().flatten().find(|p| p.name.clone().unwrap_or_default() == port_name);
        let Some(target) = target.and_then(|p| p.port) else { continue };
        let endpoints = slice.endpoints.iter().flatten();
        let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        found.extend(ready.flat_map(|e| &e.addresses).map(|address| joined(address, target)));
    }
    if found.is_empty()
        && let Some(endpoints) = read::<Endpoints>(server, &format!("endpoints/{namespace}/{name}")).await?
    {
        for subset in endpoints.subsets.iter().flatten() {
            let target =
                subset.ports.iter().flatten().find(|p| p.name.clone().unwrap_or_default() == port_name);
            let Some(target) = target else { continue };
            let addresses = subset.addresses.iter().flatten();
            found.extend(addresses.map(|a| joined(&a.ip, target.port)));
        }
    }
    let cluster_ip = spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None");
    match (found.is_empty(), cluster_ip, &wanted.target_port) {
        (false, ..) => Ok(found),
        // Something that serves cluster addresses may know what is not known here.
        (true, Some(ip), _) => Ok(vec![joined(&ip, port)]),
        (true, None, Some(IntOrString::Int(_) | IntOrString::String(_)) | None) => {
            Err(format!("no endpoints available for service {name:?}"))
        }
    }
}

fn joined(address: &str, port: i32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

async fn read<K: Resource>(server: &ApiServer, key: &str) -> Result<Option<K>, String> {
    match server.storage.get(key).await.map_err(|e| e.to_string())? {
        Some(stored) => stored.typed::<K>().map(|k| Some((*k).clone())).map_err(|e| e.to_string()),
        None => Ok(None),
    }
}

#[cfg(all(test, feature = "tls"))]
pub(super) mod fake;
#[cfg(test)]
mod tests;
