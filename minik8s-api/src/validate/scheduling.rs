//! Where a pod may run: node selectors, tolerations, affinity, spreading.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration,
    TopologySpreadConstraint,
};

use super::{label_selector, required};
use crate::field::{FieldErrors, FieldPath};
use crate::{meta, name};

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];

pub(super) fn spec(errors: &mut FieldErrors, path: &FieldPath, spec: &PodSpec) {
    if let Some(labels) = &spec.node_selector {
        errors.extend(meta::labels(labels, &path.child("nodeSelector")));
    }
    for (i, each) in spec.tolerations.iter().flatten().enumerate() {
        toleration(errors, &path.child("tolerations").index(i), each);
    }
    if let Some(affinity) = &spec.affinity {
        let path = path.child("affinity");
        if let Some(affinity) = &affinity.node_affinity {
            node_affinity(errors, &path.child("nodeAffinity"), affinity);
        }
        let pods = affinity.pod_affinity.as_ref().map(|a| {
            (
                "podAffinity",
                &a.required_during_scheduling_ignored_during_execution,
                &a.preferred_during_scheduling_ignored_during_execution,
            )
        });
        let anti = affinity.pod_anti_affinity.as_ref().map(|a| {
            (
                "podAntiAffinity",
                &a.required_during_scheduling_ignored_during_execution,
                &a.preferred_during_scheduling_ignored_during_execution,
            )
        });
        for (field, must, may) in pods.into_iter().chain(anti) {
            let path = path.child(field);
            for (i, term) in must.iter().flatten().enumerate() {
                let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").index(i);
                pod_affinity_term(errors, &path, term);
            }
            for (i, term) in may.iter().flatten().enumerate() {
                let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
                weight(errors, &path, term.weight);
                pod_affinity_term(errors, &path.child("podAffinityTerm"), &term.pod_affinity_term);
            }
        }
    }
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    spread(errors, &path.child("topologySpreadConstraints"), constraints);
    let mut gates = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = path.child("schedulingGates").index(i);
        errors.invalid_each(&path, &gate.name, name::qualified(&gate.name));
        if !gates.insert(&gate.name) {
            errors.duplicate(path, &gate.name);
        }
    }
}

fn weight(errors: &mut FieldErrors, path: &FieldPath, weight: i32) {
    if !(1..=100).contains(&weight) {
        errors.invalid(path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn toleration(errors: &mut FieldErrors, path: &FieldPath, toleration: &Toleration) {
    let key = toleration.key.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !key.is_empty() {
        errors.invalid_each(&path.child("key"), key, name::qualified(key));
    } else if operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(path.child("operator"), operator, detail);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(path.child("effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => errors.invalid_each(&path.child("operator"), value, name::label_value(value)),
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.invalid(path.child("operator"), value, detail);
        }
        "Exists" => {}
        other => errors.not_supported(path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.not_supported(path.child("effect"), effect, &EFFECTS);
    }
}

/// Tolerations may be added, and how long they last may change.
pub(super) fn tolerations_update(errors: &mut FieldErrors, path: &FieldPath, new: &PodSpec, old: &PodSpec) {
    let timeless = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
    let new: Vec<_> = new.tolerations.iter().flatten().map(timeless).collect();
    if old.tolerations.iter().flatten().any(|t| !new.contains(&timeless(t))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(path.clone(), detail);
    }
}

fn node_affinity(errors: &mut FieldErrors, path: &FieldPath, affinity: &NodeAffinity) {
    if let Some(must) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
        if must.node_selector_terms.is_empty() {
            errors.required(path.clone(), "must have at least one node selector term");
        }
        for (i, term) in must.node_selector_terms.iter().enumerate() {
            node_term(errors, &path.index(i), term);
        }
    }
    let may = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (i, term) in may.enumerate() {
        let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
        weight(errors, &path, term.weight);
        node_term(errors, &path.child("preference"), &term.preference);
    }
}

fn node_term(errors: &mut FieldErrors, path: &FieldPath, term: &NodeSelectorTerm) {
    for (i, each) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        node_requirement(errors, &path, each);
        errors.invalid_each(&path.child("key"), &each.key, name::qualified(&each.key));
    }
    for (i, each) in term.match_fields.iter().flatten().enumerate() {
        let path = path.child("matchFields").index(i);
        let values = each.values.as_deref().unwrap_or_default();
        if !matches!(each.operator.as_str(), "In" | "NotIn") {
            errors.invalid(path.child("operator"), &each.operator, "not a valid selector operator");
        } else if values.len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(path.child("values"), detail);
        }
        if each.key != "metadata.name" {
            errors.invalid(path.child("key"), &each.key, "not a valid field selector key");
        }
    }
}

fn node_requirement(errors: &mut FieldErrors, path: &FieldPath, requirement: &NodeSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.required(path.child("values"), detail);
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(path.child("values"), detail);
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.required(path.child("values"), detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
    }
}

fn pod_affinity_term(errors: &mut FieldErrors, path: &FieldPath, term: &PodAffinityTerm) {
    if let Some(selector) = &term.label_selector {
        label_selector::check(errors, &path.child("labelSelector"), selector);
    }
    if let Some(selector) = &term.namespace_selector {
        label_selector::check(errors, &path.child("namespaceSelector"), selector);
    }
    for namespace in term.namespaces.iter().flatten() {
        errors.invalid_each(&path.child("namespace"), namespace, name::dns_label(namespace));
    }
    topology_key(errors, &path.child("topologyKey"), &term.topology_key);
}

fn topology_key(errors: &mut FieldErrors, path: &FieldPath, key: &str) {
    if key.is_empty() {
        errors.required(path.clone(), "can not be empty");
    } else {
        errors.invalid_each(path, key, name::qualified(key));
    }
}

fn spread(errors: &mut FieldErrors, path: &FieldPath, constraints: &[TopologySpreadConstraint]) {
    let supported = ["DoNotSchedule", "ScheduleAnyway"];
    let mut seen = BTreeSet::new();
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        if constraint.max_skew <= 0 {
            errors.invalid(path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
        }
        topology_key(errors, &path.child("topologyKey"), &constraint.topology_key);
        let when = &constraint.when_unsatisfiable;
        if required(errors, path.child("whenUnsatisfiable"), Some(when)).is_some()
            && !supported.contains(&when.as_str())
        {
            errors.not_supported(path.child("whenUnsatisfiable"), when, &supported);
        }
        if !seen.insert((&constraint.topology_key, when)) {
            let pair = format!("{{{}, {when}}}", constraint.topology_key);
            errors.duplicate(path.child("{topologyKey, whenUnsatisfiable}"), pair);
        }
        if let Some(domains) = constraint.min_domains {
            if domains <= 0 {
                errors.invalid(path.child("minDomains"), domains, "must be greater than zero");
            }
            if when != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.invalid(path.child("minDomains"), domains, detail);
            }
        }
        if let Some(selector) = &constraint.label_selector {
            label_selector::check(errors, &path.child("labelSelector"), selector);
        }
    }
}
