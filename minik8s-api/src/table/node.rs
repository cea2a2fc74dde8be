//! Nodes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::{NONE, UNKNOWN, age, columns, joined, name, row, text};
use crate::kind::{Cell, Column};

pub(crate) fn columns() -> Vec<Column> {
    columns![
        "Status" "Whether the node takes pods.",
        "Roles" "What the node is for.",
        "Age" "How long ago the object was created.",
        "Version" "The version of the node's agent.",
        "Internal-IP" "The address within the cluster.": wide,
        "External-IP" "The address for the outside.": wide,
        "OS-Image" "The operating system.": wide,
        "Kernel-Version" "The version of its kernel.": wide,
        "Container-Runtime" "The container runtime and its version.": wide,
    ]
}

pub(crate) fn row(node: &Node, now: Timestamp) -> Vec<Cell> {
    let status = node.status.as_ref();
    let ready = status.into_iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready");
    let mut words = vec![match ready.map(|c| c.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        words.push("SchedulingDisabled");
    }
    let address = |type_: &str| {
        let addresses = status.into_iter().flat_map(|s| s.addresses.iter().flatten());
        text(addresses.into_iter().find(|a| a.type_ == type_).map(|a| a.address.as_str()), NONE)
    };
    let info = status.and_then(|s| s.node_info.as_ref());
    row![
        name(&node.metadata),
        words.join(","),
        roles(node),
        age(&node.metadata, now),
        info.map(|i| i.kubelet_version.clone()).unwrap_or_default(),
        address("InternalIP"),
        address("ExternalIP"),
        text(info.map(|i| i.os_image.as_str()), UNKNOWN),
        text(info.map(|i| i.kernel_version.as_str()), UNKNOWN),
        text(info.map(|i| i.container_runtime_version.as_str()), UNKNOWN),
    ]
}

fn roles(node: &Node) -> String {
    let mut roles: Vec<_> = node
        .metadata
        .labels
        .iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" && !value.is_empty() => Some(value.as_str()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    joined(roles)
}
