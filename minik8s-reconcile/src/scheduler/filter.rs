//! What stands against a node.

use k8s_openapi::api::core::v1::Pod;

use super::resources::Amounts;
use super::{NodeInfo, affinity, taint};

/// Everything that stands against `pod` on this node, in Kubernetes' words; nothing if it will do.
pub(super) fn against(pod: &Pod, info: &NodeInfo) -> Vec<String> {
    let Some(spec) = &pod.spec else { return vec!["pod has no spec".to_owned()] };
    let node = &info.node;
    let node_spec = node.spec.as_ref();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if node_spec.and_then(|s| s.unschedulable).unwrap_or(false) && !taint::tolerates_cordon(tolerations) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    let taints = node_spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    if let Some(taint) = taint::untolerated(taints, tolerations) {
        return vec![format!("node(s) had untolerated taint(s) {{{}}}", taint::words(taint))];
    }
    if !affinity::matches(spec, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    let wanted = host_ports(pod);
    if wanted.iter().any(|w| info.host_ports.iter().any(|t| conflict(w, t))) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    let mut reasons = Vec::new();
    if info.allocatable.iter().any(|(name, _)| name == "pods")
        && i64::try_from(info.pods).unwrap_or(i64::MAX) + 1 > info.allocatable.get("pods")
    {
        reasons.push("Too many pods".to_owned());
    }
    for (name, amount) in Amounts::of_pod(pod).iter() {
        let free = info.allocatable.get(name).saturating_sub(info.requested.get(name));
        if amount > 0 && amount > free {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}

/// Ports of the node that the pod takes: (protocol, address, port).
pub(super) fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let own_network = spec.host_network != Some(true);
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let port = p.host_port.filter(|&port| port > 0).or((!own_network).then_some(p.container_port))?;
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let address = p.host_ip.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((protocol, address, port))
        })
        .collect()
}

fn conflict(a: &(String, String, i32), b: &(String, String, i32)) -> bool {
    let any = |address: &str| matches!(address, "0.0.0.0" | "::");
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || any(&a.1) || any(&b.1))
}
