//! What stands against a node by itself, whatever runs elsewhere.

use std::borrow::Cow;

use super::demand::Demand;
use super::plugin::Against;
use super::snapshot::NodeInfo;
use super::{node_affinity, taint};

/// The names of the filters of this module, as Kubernetes' plugins are called.
pub(super) const UNSCHEDULABLE: &str = "NodeUnschedulable";
pub(super) const TAINTS: &str = "TaintToleration";
pub(super) const AFFINITY: &str = "NodeAffinity";
pub(super) const PORTS: &str = "NodePorts";
pub(super) const FIT: &str = "NodeResourcesFit";

/// Everything that the first filter that objects has against the node; nothing if it will do.
pub(super) fn against(demand: &Demand, node: &NodeInfo) -> Vec<Against> {
    let spec = demand.spec();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let refused = |by, reason: Cow<'static, str>| vec![Against { by, reason, never: true }];
    if node.is_cordoned() && !taint::tolerates_cordon(tolerations) {
        return refused(UNSCHEDULABLE, "node(s) were unschedulable".into());
    }
    if let Some(taint) = taint::untolerated(node.taints(), tolerations) {
        let reason = format!("node(s) had untolerated taint(s) {{{}}}", taint::words(taint));
        return refused(TAINTS, reason.into());
    }
    if !node_affinity::matches(spec, node) {
        return refused(AFFINITY, "node(s) didn't match Pod's node affinity/selector".into());
    }
    if demand.host_ports.iter().any(|wanted| node.host_ports.iter().any(|taken| wanted.conflicts(taken))) {
        let reason = "node(s) didn't have free ports for the requested pod ports".into();
        return vec![Against { by: PORTS, reason, never: false }];
    }
    let mut reasons = Vec::new();
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if node.allocatable.iter().any(|(name, _)| name == "pods") && pods >= node.allocatable.get("pods") {
        reasons.push(Against { by: FIT, reason: "Too many pods".into(), never: false });
    }
    for (name, amount) in demand.requests.iter() {
        let all = node.allocatable.get(name);
        if amount > 0 && amount > all.saturating_sub(node.requested.get(name)) {
            // Whoever has to go: a node that has less than that never will do.
            let reason = format!("Insufficient {name}").into();
            reasons.push(Against { by: FIT, reason, never: amount > all });
        }
    }
    reasons
}

/// Whether the pod's node selector and affinity accept the node.
pub(super) fn matches_affinity(demand: &Demand, node: &NodeInfo) -> bool {
    node_affinity::matches(demand.spec(), node)
}

/// Whether the pod's node selector and affinity accept every node, because there are none.
pub(super) fn matches_any_node(demand: &Demand) -> bool {
    let spec = demand.spec();
    let selects = spec.node_selector.as_ref().is_some_and(|selector| !selector.is_empty());
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let requires = affinity.is_some_and(|a| a.required_during_scheduling_ignored_during_execution.is_some());
    !selects && !requires
}

/// Whether the pod tolerates the node's taints.
pub(super) fn tolerates_taints(demand: &Demand, node: &NodeInfo) -> bool {
    let tolerations = demand.spec().tolerations.as_deref().unwrap_or_default();
    taint::untolerated(node.taints(), tolerations).is_none()
}
