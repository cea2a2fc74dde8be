//! What objects use of a quota: pure functions, which the server and the controller share.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, ScopedResourceSelectorRequirement, Service,
};
use minik8s_api::{Kind, Object, Quantity, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::server::admission::amounts::Amounts;

/// Kinds that are counted under their plural alone, besides pods, services and claims.
const COUNTED: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// What a quota names a storage class by.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
const CLAIMS: &str = "persistentvolumeclaims";

fn one() -> Quantity {
    Quantity::from_milli(1000)
}

fn many(count: usize) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Default::default())
}

/// Everything that the object uses, by the names that quotas have for it.
pub(crate) fn of(kind: &Kind, object: &dyn Object) -> Amounts {
    let mut used = Amounts::default();
    used.add_one(&format!("count/{}", kind.stored_resource()), one());
    if let Some(pod) = object.downcast_ref::<Pod>() {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        // A pod that has ended uses nothing but its place.
        if !matches!(phase, Some("Succeeded" | "Failed")) {
            used.add_one("pods", one());
            if let Some(spec) = &pod.spec {
                resources(spec, &mut used);
            }
        }
    } else if let Some(service) = object.downcast_ref::<Service>() {
        used.add_one("services", one());
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default();
        match spec.type_.as_deref() {
            Some("NodePort") => used.add_one("services.nodeports", many(ports.len())),
            Some("LoadBalancer") => {
                used.add_one("services.loadbalancers", one());
                let given = ports.iter().filter(|p| p.node_port.unwrap_or(0) != 0).count();
                let all = spec.allocate_load_balancer_node_ports != Some(false);
                used.add_one("services.nodeports", many(if all { ports.len() } else { given }));
            }
            _ => {}
        }
    } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        self::claim(claim, &mut used);
    } else if kind.group.is_empty() && COUNTED.contains(&kind.plural.as_ref()) {
        used.add_one(&kind.plural, one());
    }
    used
}

fn resources(spec: &PodSpec, used: &mut Amounts) {
    for (name, amount) in Amounts::requests(spec).0 {
        used.add_one(&format!("requests.{name}"), amount);
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.add_one(&name, amount);
        }
    }
    for (name, amount) in Amounts::limits(spec).0 {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.add_one(&format!("limits.{name}"), amount);
        }
    }
}

fn claim(claim: &PersistentVolumeClaim, used: &mut Amounts) {
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let asked = Amounts::of(requests).get("storage").unwrap_or(Quantity::ZERO);
    // Of a claim that has been given more than it asks for, what it was given counts.
    let allocated = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref());
    let given = Amounts::of(allocated).get("storage").unwrap_or(Quantity::ZERO);
    let storage = asked.max(given);
    used.add_one(CLAIMS, one());
    used.add_one("requests.storage", storage);
    if let Some(class) = spec.and_then(|s| s.storage_class_name.as_deref()).filter(|c| !c.is_empty()) {
        used.add_one(&format!("{class}{OF_CLASS}{CLAIMS}"), one());
        used.add_one(&format!("{class}{OF_CLASS}requests.storage"), storage);
    }
}

/// The kinds that a quota is about.
pub(crate) fn kinds(quota: &ResourceQuota, registry: &Registry) -> Vec<Arc<Kind>> {
    let hard = quota.spec.iter().flat_map(|s| s.hard.iter().flatten());
    let resources: BTreeSet<String> = hard.map(|(name, _)| resource_of(name)).collect();
    let found = |resource: &String| {
        registry
            .iter()
            .find(|k| k.namespaced && k.stored && k.is_stored_form() && k.qualified() == *resource)
            .cloned()
    };
    resources.iter().filter_map(found).collect()
}

/// The resource whose objects use what a quota names so.
fn resource_of(name: &str) -> String {
    if let Some(resource) = name.strip_prefix("count/") {
        return resource.to_owned();
    }
    match name {
        _ if name.contains(OF_CLASS) => CLAIMS.to_owned(),
        "requests.storage" => CLAIMS.to_owned(),
        "services.nodeports" | "services.loadbalancers" => "services".to_owned(),
        "services" | CLAIMS => name.to_owned(),
        _ if COUNTED.contains(&name) => name.to_owned(),
        _ => "pods".to_owned(),
    }
}

/// Whether the object is in the quota's scopes.
pub(crate) fn is_in_scope(quota: &ResourceQuota, object: &dyn Object) -> bool {
    let Some(spec) = &quota.spec else { return true };
    let plain = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let chosen = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten().cloned());
    plain.chain(chosen).all(|requirement| {
        if let Some(pod) = object.downcast_ref::<Pod>() {
            return pod_matches(&requirement, pod);
        }
        match object.downcast_ref::<PersistentVolumeClaim>() {
            Some(claim) if requirement.scope_name == "VolumeAttributesClass" => {
                let class = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
                holds(&requirement, class.unwrap_or_default())
            }
            // Nothing else is in a scope.
            _ => false,
        }
    })
}

fn pod_matches(requirement: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let ends = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
    match requirement.scope_name.as_str() {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_best_effort(spec),
        "NotBestEffort" => !is_best_effort(spec),
        "PriorityClass" => holds(requirement, spec.priority_class_name.as_deref().unwrap_or_default()),
        "CrossNamespacePodAffinity" => looks_elsewhere(spec),
        _ => false,
    }
}

fn holds(requirement: &ScopedResourceSelectorRequirement, value: &str) -> bool {
    let listed = requirement.values.iter().flatten().any(|v| v == value);
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        _ => false,
    }
}

fn is_best_effort(spec: &PodSpec) -> bool {
    let some = |amounts: &Amounts| {
        amounts.0.iter().any(|(name, q)| matches!(name.as_str(), "cpu" | "memory") && !q.is_zero())
    };
    !some(&Amounts::requests(spec)) && !some(&Amounts::limits(spec))
}

/// Whether the pod's wishes about its neighbours are about other namespaces too.
fn looks_elsewhere(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let mut terms = Vec::new();
    if let Some(of) = &affinity.pod_affinity {
        terms.extend(of.required_during_scheduling_ignored_during_execution.iter().flatten());
        let weighted = of.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(weighted.map(|w| &w.pod_affinity_term));
    }
    if let Some(of) = &affinity.pod_anti_affinity {
        terms.extend(of.required_during_scheduling_ignored_during_execution.iter().flatten());
        let weighted = of.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(weighted.map(|w| &w.pod_affinity_term));
    }
    terms
        .iter()
        .any(|t| t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some())
}

/// What a new pod fails to say although the quota counts it; in Kubernetes' words.
pub(crate) fn unsaid(quota: &ResourceQuota, pod: &Pod) -> Option<String> {
    let hard: Vec<&String> =
        quota.spec.iter().flat_map(|s| s.hard.iter().flatten()).map(|(n, _)| n).collect();
    let spec = pod.spec.as_ref()?;
    let whole = spec.resources.as_ref();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.as_ref();
        for name in &hard {
            let (limits, resource) = match name.as_str() {
                "cpu" | "memory" => (false, name.as_str()),
                "requests.cpu" | "requests.memory" => (false, &name["requests.".len()..]),
                "limits.cpu" | "limits.memory" => (true, &name["limits.".len()..]),
                _ => continue,
            };
            let given = |of: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
                let list = of.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
                list.is_some_and(|l| l.contains_key(resource))
            };
            if !given(resources) && !given(whole) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
    }
    let each: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
        })
        .collect();
    (!each.is_empty()).then(|| format!("must specify {}", each.join("; ")))
}
