//! What nodes may write, seen from what they write
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use minik8s_api::Object;

use super::graph::Thing;
use super::references::{is_mirror, referred_to};
use super::{LEASES, MIRROR, node_name};
use crate::error::ApiError;
use crate::server::key::Scope;
use crate::stored::Stored;

/// Labels below this are for administrators alone.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Of Kubernetes' own labels, a node sets these.
const OWN_LABELS: [&str; 13] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// And those in or below these.
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether whoever asks, if it is a node, may write `new`, in place of `old` or as a new object.
///
/// # Errors
/// 403, if not.
pub(in crate::server) fn admit(
    scope: &Scope,
    old: Option<&dyn Object>,
    new: &dyn Object,
) -> Result<(), ApiError> {
    let Some(node) = node_name(&scope.user) else { return Ok(()) };
    let name = new.metadata().name.as_deref().unwrap_or_default();
    let why = if let Some(pod) = new.downcast_ref::<Pod>() {
        match old {
            None => new_pod(node, pod),
            Some(old) => old.downcast_ref::<Pod>().map_or(Ok(()), |old| changed_pod(node, old, pod)),
        }
    } else if let Some(object) = new.downcast_ref::<Node>() {
        let old = old.and_then(|old| old.downcast_ref::<Node>());
        own_node(node, name, old, object)
    } else if new.downcast_ref::<Lease>().is_some() {
        match scope.namespace.as_deref() {
            Some(LEASES) if name == node => Ok(()),
            Some(LEASES) => {
                Err("can only access node lease with the same name as the requesting node".to_owned())
            }
            _ => Err(format!("can only access leases in the {LEASES:?} system namespace")),
        }
    } else if new.downcast_ref::<CSINode>().is_some() && name != node {
        Err("can only access CSINode with the same name as the requesting node".to_owned())
    } else {
        Ok(())
    };
    why.map_err(|why| ApiError::forbidden(&scope.kind, name, why))
}

/// Whether whoever asks, if it is a node, may see `object`.
///
/// # Errors
/// 403, if not.
pub(in crate::server) fn admit_reading(scope: &Scope, object: &Stored) -> Result<(), ApiError> {
    let Some(node) = node_name(&scope.user) else { return Ok(()) };
    if scope.kind.kind != "Pod" || !scope.kind.group.is_empty() {
        return Ok(());
    }
    let pod = object.typed::<Pod>().map_err(ApiError::internal)?;
    if runs_on(&pod) == node {
        return Ok(());
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let why = format!("node {node:?} can only read pods with spec.nodeName set to itself");
    Err(ApiError::forbidden(&scope.kind, name, why))
}

/// Whether whoever asks, if it is a node, may delete or evict `object`.
///
/// # Errors
/// 403, if not.
pub(in crate::server) fn admit_deletion(scope: &Scope, object: &dyn Object) -> Result<(), ApiError> {
    let (Some(node), Some(pod)) = (node_name(&scope.user), object.downcast_ref::<Pod>()) else {
        return Ok(());
    };
    if runs_on(pod) == node {
        return Ok(());
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
    Err(ApiError::forbidden(&scope.kind, name, why))
}

fn runs_on(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

fn new_pod(node: &str, pod: &Pod) -> Result<(), String> {
    if !is_mirror(pod) {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if runs_on(pod) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    for owner in pod.metadata.owner_references.iter().flatten() {
        let own = owner.api_version == "v1" && owner.kind == "Node" && owner.name == node;
        if !own || owner.controller != Some(true) || owner.block_owner_deletion == Some(true) {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
    }
    if pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).is_some_and(|a| !a.is_empty()) {
        return Err(format!("node {node:?} can not create pods that reference a service account"));
    }
    match referred_to(pod).first() {
        None => Ok(()),
        Some((thing, _)) => {
            let what = match thing {
                Thing::Secret => "secrets",
                Thing::ConfigMap => "configmaps",
                Thing::Claim => "persistentvolumeclaims",
                Thing::Account => "service accounts",
            };
            Err(format!("node {node:?} can not create pods that reference {what}"))
        }
    }
}

fn changed_pod(node: &str, old: &Pod, new: &Pod) -> Result<(), String> {
    if runs_on(old) != node {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if old.metadata.labels != new.metadata.labels {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

fn own_node(node: &str, name: &str, old: Option<&Node>, new: &Node) -> Result<(), String> {
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let none = BTreeMap::new();
    let labels = |of: Option<&Node>| of.and_then(|n| n.metadata.labels.clone()).unwrap_or_default();
    let before = labels(old);
    let after = new.metadata.labels.as_ref().unwrap_or(&none);
    let changed = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    let foreign: BTreeSet<&str> = changed.map(String::as_str).filter(|key| !is_own_label(key)).collect();
    let spec = |of: &Node| of.spec.clone().unwrap_or_default();
    match old {
        _ if !foreign.is_empty() => {
            let foreign: Vec<&str> = foreign.into_iter().collect();
            let verb = if old.is_some() { "modify labels" } else { "set the following labels" };
            Err(format!("node {node:?} is not allowed to {verb}: {}", foreign.join(", ")))
        }
        Some(old) if spec(old).taints != spec(new).taints => {
            Err(format!("node {node:?} is not allowed to modify taints"))
        }
        Some(old) if old.metadata.owner_references != new.metadata.owner_references => {
            Err(format!("node {node:?} is not allowed to modify ownerReferences"))
        }
        Some(old)
            if spec(new).config_source.is_some() && spec(old).config_source != spec(new).config_source =>
        {
            Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"))
        }
        _ => Ok(()),
    }
}

/// Whether a node may set that label: any that is not Kubernetes' own, and of these, those about the node.
fn is_own_label(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within =
        |of: &str| namespace == of || namespace.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if within(RESTRICTED) {
        return false;
    }
    let of_kubernetes = within("kubernetes.io") || within("k8s.io");
    !of_kubernetes || OWN_LABELS.contains(&key) || OWN_NAMESPACES.iter().any(|of| within(of))
}
