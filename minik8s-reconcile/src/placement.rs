//! Which pods are on which node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cache::Cache;

const BY_NODE: &str = "node";

/// The node that the pod is bound to; empty if it waits for one.
pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// The pods on `node`; with an empty name those that wait for one.
pub(crate) fn on(pods: &Cache<Pod>, node: &str) -> Vec<Arc<Pod>> {
    pods.index(BY_NODE, |pod| vec![node_of(pod).to_owned()]);
    pods.by_index(BY_NODE, node)
}

/// Whether all of the pod's containers have ended for good.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
