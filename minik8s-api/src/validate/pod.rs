//! Pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{container, one_of, required, scheduling, security, volume};
use crate::field::{FieldErrors, FieldPath};
use crate::name;

/// What is wrong with a pod.
pub fn validate(pod: &Pod) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    match &pod.spec {
        None => errors.required(path.child("containers"), ""),
        Some(pod_spec) => {
            spec(&mut errors, &path, pod_spec);
            if pod_spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty())
                && pod_spec.node_name.is_some()
            {
                let detail = "cannot be set until all schedulingGates have been cleared";
                errors.forbidden(path.child("nodeName"), detail);
            }
        }
    }
    errors
}

/// What is wrong with a change of a pod. Nearly everything is fixed once the pod exists.
pub fn validate_update(new: &Pod, old: &Pod) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return errors;
    };
    let count = |containers: &Option<Vec<Container>>| containers.as_ref().map_or(0, Vec::len);
    let mut same = true;
    if new.containers.len() != old.containers.len() {
        errors.forbidden(path.child("containers"), "pod updates may not add or remove containers");
        same = false;
    }
    if count(&new.init_containers) != count(&old.init_containers) {
        errors.forbidden(path.child("initContainers"), "pod updates may not add or remove containers");
        same = false;
    }
    if !same {
        return errors;
    }
    deadline_update(&mut errors, &path, new, old);
    scheduling::tolerations_update(&mut errors, &path.child("tolerations"), new, old);
    gates_update(&mut errors, &path.child("schedulingGates"), new, old);

    // With all that may change put back, the two must be equal.
    let mut unchanged = new.clone();
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    for (new, old) in unchanged.containers.iter_mut().zip(&old.containers) {
        new.image.clone_from(&old.image);
    }
    for (new, old) in unchanged.init_containers.iter_mut().flatten().zip(init(old)) {
        new.image = old.image;
    }
    unchanged.active_deadline_seconds = old.active_deadline_seconds;
    unchanged.tolerations.clone_from(&old.tolerations);
    unchanged.scheduling_gates.clone_from(&old.scheduling_gates);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && new.termination_grace_period_seconds == Some(1)
    {
        unchanged.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if unchanged != *old {
        let detail = "pod updates may not change fields other than \
                      `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                      `spec.tolerations` (only additions to existing tolerations),\
                      `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        let changed = differences(&unchanged, old);
        errors.forbidden(path, format!("{detail}\nchanged: {}", changed.join(", ")));
    }
    errors
}

fn deadline_update(errors: &mut FieldErrors, path: &FieldPath, new: &PodSpec, old: &PodSpec) {
    let path = path.child("activeDeadlineSeconds");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.invalid(path, new.active_deadline_seconds, detail);
        }
        _ => {}
    }
}

fn gates_update(errors: &mut FieldErrors, path: &FieldPath, new: &PodSpec, old: &PodSpec) {
    let before: BTreeSet<_> = old.scheduling_gates.iter().flatten().map(|g| &g.name).collect();
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !before.contains(&gate.name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.forbidden(path.index(i), detail);
        }
    }
}

/// The top-level fields of the spec in which two pods differ.
fn differences(new: &PodSpec, old: &PodSpec) -> Vec<String> {
    let fields = |spec| match serde_json::to_value(spec) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (new, old) = (fields(new), fields(old));
    let keys: BTreeSet<_> = new.keys().chain(old.keys()).collect();
    keys.into_iter().filter(|k| new.get(*k) != old.get(*k)).map(|k| format!("spec.{k}")).collect()
}

/// What is wrong with the spec of a pod or of a template at `path`.
pub(super) fn spec(errors: &mut FieldErrors, path: &FieldPath, spec: &PodSpec) {
    let volumes =
        volume::volumes(errors, &path.child("volumes"), spec.volumes.as_deref().unwrap_or_default());
    container::containers(errors, path, spec, &volumes);
    one_of(
        errors,
        path.child("restartPolicy"),
        spec.restart_policy.as_deref(),
        &["Always", "Never", "OnFailure"],
    );
    dns(errors, path, spec);
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|&s| s < 0) {
        errors.invalid(path.child("terminationGracePeriodSeconds"), seconds, super::NOT_NEGATIVE);
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(path.child("activeDeadlineSeconds"), seconds, detail);
    }
    identity(errors, path, spec);
    security::pod(errors, path, spec);
    scheduling::spec(errors, path, spec);
}

fn dns(errors: &mut FieldErrors, path: &FieldPath, spec: &PodSpec) {
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(errors, path.child("dnsPolicy"), spec.dns_policy.as_deref(), &policies);
    let path = path.child("dnsConfig");
    let none = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if none {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if none && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required(path.child("nameservers"), detail);
    }
    if servers.len() > 3 {
        errors.invalid(path.child("nameservers"), servers, "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().enumerate() {
        errors.invalid_each(&path.child("nameservers").index(i), server, name::ip(server));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > 32 {
        errors.invalid(path.child("searches"), searches, "must not have more than 32 search paths");
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        // A trailing dot is fine, and so is the underscore of SRV records.
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "-");
        errors.invalid_each(&path.child("searches").index(i), search, name::dns_subdomain(&plain));
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errors.required(path.child("options").index(i), "must not be empty");
        }
    }
}

/// The names by which the pod is known and that it knows others by.
fn identity(errors: &mut FieldErrors, path: &FieldPath, spec: &PodSpec) {
    type Check = fn(&str) -> Vec<String>;
    let names: [(&str, &Option<String>, Check); 7] = [
        ("serviceAccountName", &spec.service_account_name, name::dns_subdomain),
        ("nodeName", &spec.node_name, name::dns_subdomain),
        ("priorityClassName", &spec.priority_class_name, name::dns_subdomain),
        ("runtimeClassName", &spec.runtime_class_name, name::dns_subdomain),
        ("schedulerName", &spec.scheduler_name, name::dns_subdomain),
        ("hostname", &spec.hostname, name::dns_label),
        ("subdomain", &spec.subdomain, name::dns_label),
    ];
    for (field, value, check) in names {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            errors.invalid_each(&path.child(field), value, check(value));
        }
    }
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        required(errors, path.child("imagePullSecrets").index(i).child("name"), Some(&secret.name));
    }
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.child("hostAliases").index(i);
        errors.invalid_each(&path.child("ip"), &alias.ip, name::ip(&alias.ip));
        for (i, host) in alias.hostnames.iter().flatten().enumerate() {
            errors.invalid_each(&path.child("hostnames").index(i), host, name::dns_subdomain(host));
        }
    }
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        errors.invalid_each(&path, &gate.condition_type, name::qualified(&gate.condition_type));
    }
    if let Some(os) = &spec.os {
        one_of(errors, path.child("os").child("name"), Some(&os.name), &["linux", "windows"]);
    }
}

#[cfg(test)]
mod tests;
