//! Autoscalers, disruption budgets, bindings, classes and claims.

use k8s_openapi::api::autoscaling::{v1, v2};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;

use super::{IMMUTABLE, label_selector, one_of, required, resources};
use crate::field::{FieldErrors, FieldPath};
use crate::name;
use crate::quantity::Quantity;

/// The largest priority that users may give; what is above is the system's.
const PRIORITY_MAX: i32 = 1_000_000_000;

/// What is wrong with an autoscaler.
pub fn autoscaler(object: &v2::HorizontalPodAutoscaler) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &object.spec);
    scale_target(&mut errors, &path, &spec.scale_target_ref.kind, &spec.scale_target_ref.name);
    bounds(&mut errors, &path, spec.min_replicas, spec.max_replicas);
    let list = path.child("metrics");
    for (i, metric) in spec.metrics.iter().flatten().enumerate() {
        let path = list.index(i);
        let types = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        one_of(&mut errors, path.child("type"), Some(&metric.type_), &types);
        let given = [
            ("ContainerResource", "containerResource", metric.container_resource.as_ref().map(|m| &m.target)),
            ("External", "external", metric.external.as_ref().map(|m| &m.target)),
            ("Object", "object", metric.object.as_ref().map(|m| &m.target)),
            ("Pods", "pods", metric.pods.as_ref().map(|m| &m.target)),
            ("Resource", "resource", metric.resource.as_ref().map(|m| &m.target)),
        ];
        for (type_, field, target) in given {
            let path = path.child(field);
            match target {
                Some(target) => self::target(&mut errors, &path.child("target"), target),
                None if metric.type_ == type_ => {
                    let detail = format!("must populate information for the given metric source, `{field}`");
                    errors.required(path, detail);
                }
                None => {}
            }
        }
    }
    errors
}

/// What is wrong with an autoscaler of version 1.
pub fn autoscaler_v1(object: &v1::HorizontalPodAutoscaler) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &object.spec);
    scale_target(&mut errors, &path, &spec.scale_target_ref.kind, &spec.scale_target_ref.name);
    bounds(&mut errors, &path, spec.min_replicas, spec.max_replicas);
    if let Some(percent) = spec.target_cpu_utilization_percentage.filter(|&p| p < 1) {
        errors.invalid(path.child("targetCPUUtilizationPercentage"), percent, "must be greater than 0");
    }
    errors
}

fn scale_target(errors: &mut FieldErrors, path: &FieldPath, kind: &str, of: &str) {
    let path = path.child("scaleTargetRef");
    for (field, value) in [("kind", kind), ("name", of)] {
        if required(errors, path.child(field), Some(value)).is_some() {
            errors.invalid_each(&path.child(field), value, name::path_segment(value));
        }
    }
}

fn bounds(errors: &mut FieldErrors, path: &FieldPath, min: Option<i32>, max: i32) {
    if let Some(min) = min.filter(|&m| m < 0) {
        errors.invalid(path.child("minReplicas"), min, "must be greater than or equal to 0");
    }
    if max < 1 {
        errors.invalid(path.child("maxReplicas"), max, "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(path.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
    }
}

fn target(errors: &mut FieldErrors, path: &FieldPath, target: &v2::MetricTarget) {
    let types = ["AverageValue", "Utilization", "Value"];
    one_of(errors, path.child("type"), Some(&target.type_), &types);
    if let Some(percent) = target.average_utilization.filter(|&p| p < 1) {
        errors.invalid(path.child("averageUtilization"), percent, "must be greater than 0");
    }
    let mut set = target.average_utilization.is_some();
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        let Some(value) = value else { continue };
        set = true;
        match Quantity::try_from(value) {
            Ok(amount) if amount > Quantity::ZERO => {}
            Ok(amount) => errors.invalid(path.child(field), amount.to_string(), "must be positive"),
            Err(error) => errors.invalid(path.child(field), &value.0, error.to_string()),
        }
    }
    if !set {
        errors.required(path.clone(), "must set either a target value or a target utilization");
    }
}

/// What is wrong with a disruption budget.
pub fn disruption_budget(budget: &PodDisruptionBudget) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &budget.spec else { return errors };
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        errors.invalid(path.clone(), spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for (field, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        if let Some(value) = value {
            super::workload::count_or_percent(&mut errors, &path.child(field), value);
        }
    }
    if let Some(selector) = &spec.selector {
        label_selector::check(&mut errors, &path.child("selector"), selector);
    }
    errors
}

/// What is wrong with a RoleBinding.
pub fn role_binding(binding: &RoleBinding) -> FieldErrors {
    binding_parts(&binding.role_ref, binding.subjects.as_deref(), &["ClusterRole", "Role"])
}

/// What is wrong with a change of a RoleBinding: what it gives is fixed.
pub fn role_binding_update(new: &RoleBinding, old: &RoleBinding) -> FieldErrors {
    role_ref_update(&new.role_ref, &old.role_ref)
}

/// What is wrong with a ClusterRoleBinding.
pub fn cluster_role_binding(binding: &ClusterRoleBinding) -> FieldErrors {
    binding_parts(&binding.role_ref, binding.subjects.as_deref(), &["ClusterRole"])
}

/// What is wrong with a change of a ClusterRoleBinding: what it gives is fixed.
pub fn cluster_role_binding_update(new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> FieldErrors {
    role_ref_update(&new.role_ref, &old.role_ref)
}

fn role_ref_update(new: &RoleRef, old: &RoleRef) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new != old {
        errors.invalid(FieldPath::new("roleRef"), new, "cannot change roleRef");
    }
    errors
}

fn binding_parts(role: &RoleRef, subjects: Option<&[Subject]>, kinds: &[&str]) -> FieldErrors {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("roleRef");
    if role.api_group.as_deref() != Some(GROUP) {
        let group = role.api_group.as_deref().unwrap_or_default();
        errors.not_supported(path.child("apiGroup"), group, &[GROUP]);
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported(path.child("kind"), &role.kind, kinds);
    }
    if required(&mut errors, path.child("name"), Some(&role.name)).is_some() {
        errors.invalid_each(&path.child("name"), &role.name, name::path_segment(&role.name));
    }
    for (i, subject) in subjects.unwrap_or_default().iter().enumerate() {
        let path = FieldPath::new("subjects").index(i);
        required(&mut errors, path.child("name"), Some(&subject.name));
        let group = subject.api_group.as_deref().unwrap_or_default();
        match subject.kind.as_str() {
            "ServiceAccount" => {
                errors.invalid_each(&path.child("name"), &subject.name, name::dns_subdomain(&subject.name));
                if !group.is_empty() {
                    errors.not_supported(path.child("apiGroup"), group, &[""]);
                }
                required(&mut errors, path.child("namespace"), subject.namespace.as_deref());
            }
            "User" | "Group" if group != GROUP => {
                errors.not_supported(path.child("apiGroup"), group, &[GROUP]);
            }
            "User" | "Group" => {}
            other => {
                errors.not_supported(path.child("kind"), other, &["Group", "ServiceAccount", "User"]);
            }
        }
    }
    errors
}

/// What is wrong with a PriorityClass.
pub fn priority_class(class: &PriorityClass) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let own = class.metadata.name.as_deref().unwrap_or_default();
    if own.starts_with("system-") {
        if !matches!(own, "system-cluster-critical" | "system-node-critical") {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            errors.forbidden(FieldPath::new("metadata").child("name"), detail);
        }
    } else if class.value.is_some_and(|v| v > PRIORITY_MAX) {
        let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        errors.forbidden(FieldPath::new("value"), detail);
    }
    let policy = class.preemption_policy.as_deref();
    one_of(&mut errors, FieldPath::new("preemptionPolicy"), policy, &["Never", "PreemptLowerPriority"]);
    errors
}

/// What is wrong with a change of a PriorityClass.
pub fn priority_class_update(new: &PriorityClass, old: &PriorityClass) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new.value != old.value {
        errors.forbidden(FieldPath::new("value"), "may not be changed in an update.");
    }
    if new.preemption_policy != old.preemption_policy {
        errors.invalid(FieldPath::new("preemptionPolicy"), &new.preemption_policy, IMMUTABLE);
    }
    errors
}

/// What is wrong with a StorageClass.
pub fn storage_class(class: &StorageClass) -> FieldErrors {
    let mut errors = FieldErrors::new();
    required(&mut errors, FieldPath::new("provisioner"), Some(&class.provisioner));
    let policy = class.reclaim_policy.as_deref();
    one_of(&mut errors, FieldPath::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    let mode = class.volume_binding_mode.as_deref();
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(&mut errors, FieldPath::new("volumeBindingMode"), mode, &modes);
    errors
}

/// What is wrong with a change of a StorageClass.
pub fn storage_class_update(new: &StorageClass, old: &StorageClass) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let fixed = "updates to parameters are forbidden.";
    if new.parameters != old.parameters {
        errors.forbidden(FieldPath::new("parameters"), fixed);
    }
    if new.provisioner != old.provisioner {
        errors.forbidden(FieldPath::new("provisioner"), "updates to provisioner are forbidden.");
    }
    if new.reclaim_policy != old.reclaim_policy {
        errors.forbidden(FieldPath::new("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
    }
    if new.volume_binding_mode != old.volume_binding_mode {
        errors.invalid(FieldPath::new("volumeBindingMode"), &new.volume_binding_mode, IMMUTABLE);
    }
    errors
}

/// What is wrong with a claim.
pub fn claim(claim: &PersistentVolumeClaim) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &claim.spec else {
        errors.required(path.child("accessModes"), "at least 1 access mode is required");
        return errors;
    };
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(path.child("accessModes"), "at least 1 access mode is required");
    }
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.iter().filter(|m| !supported.contains(&m.as_str())) {
        errors.not_supported(path.child("accessModes"), mode, &supported);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.forbidden(path.child("accessModes"), detail);
    }
    let requests = path.child("resources").child("requests").key("storage");
    match spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")) {
        None => errors.required(path.child("resources").child("requests").key("storage"), ""),
        Some(amount) => {
            if resources::amount(&mut errors, &requests, "storage", amount).is_some_and(|q| q.is_zero()) {
                errors.invalid(requests, &amount.0, "must be greater than zero");
            }
        }
    }
    let mode = spec.volume_mode.as_deref();
    one_of(&mut errors, path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        errors.invalid_each(&path.child("storageClassName"), class, name::dns_subdomain(class));
    }
    if let Some(selector) = &spec.selector {
        label_selector::check(&mut errors, &path.child("selector"), selector);
    }
    errors
}

/// What is wrong with a change of a claim: a volume may be bound to it once, and a bound claim may grow.
pub fn claim_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let (Some(new), Some(before)) = (&new.spec, &old.spec) else {
        return errors;
    };
    let mut unchanged = new.clone();
    if before.volume_name.as_deref().unwrap_or_default().is_empty() {
        unchanged.volume_name.clone_from(&before.volume_name);
    }
    if before.storage_class_name.is_none() {
        unchanged.storage_class_name = None;
    }
    let bound = old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if bound {
        let storage = |s: &Option<k8s_openapi::api::core::v1::VolumeResourceRequirements>| {
            s.as_ref().and_then(|r| Quantity::try_from(r.requests.as_ref()?.get("storage")?).ok())
        };
        if storage(&new.resources) < storage(&before.resources) {
            let detail = "field can not be less than previous value";
            errors.forbidden(path.child("resources").child("requests").child("storage"), detail);
        }
        unchanged.resources.clone_from(&before.resources);
    }
    if unchanged != *before {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        errors.forbidden(path, detail);
    }
    errors
}

#[cfg(test)]
mod tests;

/// What is wrong with a RuntimeClass.
pub fn runtime_class(class: &RuntimeClass) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("handler");
    if class.handler.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_each(&path, &class.handler, crate::name::dns_label(&class.handler));
    }
    errors
}

/// What is wrong with a change of a RuntimeClass: its handler stays.
pub fn runtime_class_update(new: &RuntimeClass, old: &RuntimeClass) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new.handler != old.handler {
        errors.invalid(FieldPath::new("handler"), &new.handler, super::IMMUTABLE);
    }
    errors
}

/// What is wrong with a Role.
pub fn role(role: &Role) -> FieldErrors {
    rules(role.rules.as_deref(), true)
}

/// What is wrong with a ClusterRole.
pub fn cluster_role(role: &ClusterRole) -> FieldErrors {
    rules(role.rules.as_deref(), false)
}

fn rules(rules: Option<&[PolicyRule]>, namespaced: bool) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let path = FieldPath::new("rules").index(index);
        if rule.verbs.is_empty() {
            errors.required(path.child("verbs"), "verbs must contain at least one value");
        }
        if !none(&rule.non_resource_urls) {
            let field = path.child("nonResourceURLs");
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.invalid(field.clone(), &rule.non_resource_urls, why);
            }
            if ![&rule.api_groups, &rule.resources, &rule.resource_names].into_iter().all(none) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(field, &rule.non_resource_urls, why);
            }
            continue;
        }
        if none(&rule.api_groups) {
            errors.required(path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if none(&rule.resources) {
            errors.required(path.child("resources"), "resource rules must supply at least one resource");
        }
    }
    errors
}

/// What is wrong with a Lease.
pub fn lease(lease: &Lease) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &lease.spec else { return errors };
    if let Some(seconds) = spec.lease_duration_seconds.filter(|&s| s <= 0) {
        errors.invalid(path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    super::not_negative(&mut errors, path.child("leaseTransitions"), spec.lease_transitions);
    errors
}
