//! What a pod may know of itself: the downward API
//! (<https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>).

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::pod_fsm::spec;
use super::qos;

/// Facts about a pod's place that its spec does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The node's name.
    pub(crate) node_name: String,
    /// The node's addresses.
    pub(crate) host_ips: Vec<IpAddr>,
    /// The pod's addresses.
    pub(crate) pod_ips: Vec<IpAddr>,
    /// Thousandths of CPUs that pods may use on this node.
    pub(crate) cpu_milli: i64,
    /// Bytes of memory that pods may use on this node.
    pub(crate) memory: i64,
    /// Bytes of disk that pods may use on this node.
    pub(crate) storage: i64,
}

/// The value of a field of the pod.
pub(crate) fn field(pod: &Pod, place: &Place, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let all = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => meta.annotations.as_ref(),
            "metadata.labels" => meta.labels.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => place.node_name.clone(),
        "spec.serviceAccountName" => {
            spec(pod).service_account_name.clone().unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" => first(&place.host_ips),
        "status.hostIPs" => all(&place.host_ips),
        "status.podIP" => first(&place.pod_ips),
        "status.podIPs" => all(&place.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// The value of a resource of `container`, or of the container that `selector` names.
pub(crate) fn resource(
    pod: &Pod,
    container: Option<&Container>,
    place: &Place,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let spec = spec(pod);
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        Some(name) => {
            spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
        }
        None => container,
    };
    let container = container.ok_or_else(|| format!("container {} not found", named.unwrap_or_default()))?;
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let on_node = match name {
        "cpu" => place.cpu_milli,
        "memory" => place.memory,
        "ephemeral-storage" => place.storage,
        _ => 0,
    };
    let value = match kind {
        // Without a limit, all that the node has is the limit.
        "limits" => qos::limit(container, name).filter(|v| *v > 0).unwrap_or(on_node),
        "requests" => qos::request(container, name).unwrap_or(0),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let one = if name == "cpu" { 1000 } else { 1 };
    let divisor =
        selector.divisor.as_ref().and_then(|d| qos::amount(name, d)).filter(|d| *d > 0).unwrap_or(one);
    Ok(value.saturating_add(divisor - 1).div_euclid(divisor).to_string())
}

/// `metadata.labels['key']` as (`metadata.labels`, `key`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"`, one a line.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = Vec::new();
    for (key, value) in map.into_iter().flatten() {
        out.push(format!("{key}={}", quoted(value)));
    }
    out.join("\n")
}

/// The value as a Go string literal, which is what readers of these files expect.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u",
                         "labels": {"app": "web"}, "annotations": {"a": "x \"y\"\nz"}},
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields() {
        let place = Place {
            node_name: "n1".into(),
            pod_ips: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            ..Place::default()
        };
        let get = |path: &str| field(&pod(), &place, path).unwrap();
        assert_eq!(get("metadata.labels['app']"), "web");
        assert_eq!(get("metadata.labels['none']"), "");
        assert_eq!(get("metadata.annotations"), "a=\"x \\\"y\\\"\\nz\"");
        assert_eq!(get("status.podIP"), "10.0.0.2");
        assert_eq!(get("status.podIPs"), "10.0.0.2,fd00::2");
        assert_eq!(get("spec.serviceAccountName"), "default");
        assert!(field(&pod(), &place, "spec.volumes").is_err());
    }

    #[test]
    fn resources_round_up() {
        let pod = pod();
        let place = Place { cpu_milli: 8000, memory: 1 << 30, ..Place::default() };
        let get = |resource: &str, divisor: Option<&str>| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            super::resource(&pod, Some(&spec(&pod).containers[0]), &place, &selector).unwrap()
        };
        assert_eq!(get("limits.cpu", None), "2");
        assert_eq!(get("limits.cpu", Some("1m")), "1500");
        assert_eq!(get("limits.memory", Some("1Mi")), "1024");
        assert_eq!(get("requests.memory", None), "67108864");
        assert_eq!(get("requests.cpu", None), "2");
    }
}
