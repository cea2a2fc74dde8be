//! Containers of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec, VolumeMount};

use super::volume::VolumeNames;
use super::{env, inner_path, no_parents, one_of, probe, required, resources, security};
use crate::field::{FieldErrors, FieldPath};
use crate::name;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// All containers of `spec`. `volumes` are those that they may mount.
pub(super) fn containers(
    errors: &mut FieldErrors,
    path: &FieldPath,
    spec: &PodSpec,
    volumes: &VolumeNames<'_>,
) {
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let list = path.child("containers");
    if spec.containers.is_empty() {
        errors.required(list.clone(), "");
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let path = list.index(i);
        own_name(errors, &path, &container.name, &mut names);
        common(errors, &path, container, volumes);
        ports(errors, &path.child("ports"), container, spec.host_network == Some(true), &mut host_ports);
        probe::of_container(errors, &path, container);
        if container.restart_policy.is_some() {
            let detail = "may not be set for non-init containers";
            errors.forbidden(path.child("restartPolicy"), detail);
        }
    }
    let list = path.child("initContainers");
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = list.index(i);
        own_name(errors, &path, &container.name, &mut names);
        common(errors, &path, container, volumes);
        init(errors, &path, container);
        // Init containers run one after another; only those that stay must share the node's ports with the rest.
        let mut alone = BTreeSet::new();
        let taken = if is_sidecar(container) { &mut host_ports } else { &mut alone };
        ports(errors, &path.child("ports"), container, spec.host_network == Some(true), taken);
    }
    let list = path.child("ephemeralContainers");
    for (i, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = list.index(i);
        own_name(errors, &path, &container.name, &mut names);
        ephemeral(errors, &path, container, spec, volumes);
    }
}

/// Whether an init container keeps running beside the others.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn own_name<'a>(
    errors: &mut FieldErrors,
    path: &FieldPath,
    own_name: &'a str,
    names: &mut BTreeSet<&'a str>,
) {
    let path = path.child("name");
    if required(errors, path.clone(), Some(own_name)).is_none() {
        return;
    }
    errors.invalid_each(&path, own_name, name::dns_label(own_name));
    if !names.insert(own_name) {
        errors.duplicate(path, own_name);
    }
}

/// What is checked of every container.
fn common(errors: &mut FieldErrors, path: &FieldPath, container: &Container, volumes: &VolumeNames<'_>) {
    let image = path.child("image");
    if let Some(given) = required(errors, image.clone(), container.image.as_deref())
        && given.trim() != given
    {
        errors.invalid(image, given, "must not have leading or trailing whitespace");
    }
    let policy = container.image_pull_policy.as_deref();
    one_of(errors, path.child("imagePullPolicy"), policy, &PULL_POLICIES);
    let policy = container.termination_message_policy.as_deref();
    one_of(errors, path.child("terminationMessagePolicy"), policy, &["FallbackToLogsOnError", "File"]);
    env::env(errors, &path.child("env"), container.env.as_deref().unwrap_or_default());
    env::env_from(errors, &path.child("envFrom"), container.env_from.as_deref().unwrap_or_default());
    if let Some(needs) = &container.resources {
        resources::check(errors, &path.child("resources"), needs);
    }
    let privileged =
        security::container(errors, &path.child("securityContext"), container.security_context.as_ref());
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    volume_mounts(errors, &path.child("volumeMounts"), mounts, volumes, privileged);
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = path.child("volumeDevices").index(i);
        if required(errors, path.child("name"), Some(&device.name)).is_some()
            && !volumes.contains(device.name.as_str())
        {
            errors.not_found(path.child("name"), &device.name);
        }
        required(errors, path.child("devicePath"), Some(&device.device_path));
    }
}

fn init(errors: &mut FieldErrors, path: &FieldPath, container: &Container) {
    if let Some(policy) = container.restart_policy.as_deref() {
        if policy != "Always" {
            errors.not_supported(path.child("restartPolicy"), policy, &["Always"]);
        }
        probe::of_container(errors, path, container);
        return;
    }
    let detail = "may not be set for init containers without restartPolicy=Always";
    for (field, set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if set {
            errors.forbidden(path.child(field), detail);
        }
    }
}

fn ephemeral(
    errors: &mut FieldErrors,
    path: &FieldPath,
    container: &EphemeralContainer,
    spec: &PodSpec,
    volumes: &VolumeNames<'_>,
) {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if let Some(target) = container.target_container_name.as_deref().filter(|t| !t.is_empty())
        && !all.into_iter().any(|c| c.name == target)
    {
        errors.not_found(path.child("targetContainerName"), target);
    }
    for (field, set) in [
        ("ports", container.ports.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
        ("resources", container.resources.as_ref().is_some_and(|r| *r != Default::default())),
        ("restartPolicy", container.restart_policy.is_some()),
    ] {
        if set {
            errors.forbidden(path.child(field), "cannot be set for an Ephemeral Container");
        }
    }
    let as_container = Container {
        name: container.name.clone(),
        image: container.image.clone(),
        image_pull_policy: container.image_pull_policy.clone(),
        termination_message_policy: container.termination_message_policy.clone(),
        env: container.env.clone(),
        env_from: container.env_from.clone(),
        security_context: container.security_context.clone(),
        volume_mounts: container.volume_mounts.clone(),
        volume_devices: container.volume_devices.clone(),
        ..Default::default()
    };
    common(errors, path, &as_container, volumes);
}

fn ports(
    errors: &mut FieldErrors,
    path: &FieldPath,
    container: &Container,
    host_network: bool,
    host_ports: &mut BTreeSet<(String, String, i32)>,
) {
    let mut names = BTreeSet::new();
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let path = path.index(i);
        if let Some(own) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let wrong = name::port_name(own);
            if wrong.is_empty() && !names.insert(own) {
                errors.duplicate(path.child("name"), own);
            }
            errors.invalid_each(&path.child("name"), own, wrong);
        }
        let number = port.container_port;
        if number == 0 {
            errors.required(path.child("containerPort"), "");
        } else {
            errors.invalid_each(&path.child("containerPort"), number, name::port_number(number));
        }
        one_of(errors, path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS);
        host_port(errors, &path, port, host_network, host_ports);
    }
}

fn host_port(
    errors: &mut FieldErrors,
    path: &FieldPath,
    port: &ContainerPort,
    host_network: bool,
    taken: &mut BTreeSet<(String, String, i32)>,
) {
    let number = port.host_port.unwrap_or(0);
    if host_network && number != port.container_port {
        let detail = "must match `hostPort` when `hostNetwork` is true";
        errors.invalid(path.child("containerPort"), port.container_port, detail);
    }
    if number == 0 {
        return;
    }
    let path = path.child("hostPort");
    errors.invalid_each(&path, number, name::port_number(number));
    let protocol = port.protocol.clone().unwrap_or_default();
    let ip = port.host_ip.clone().unwrap_or_default();
    if !taken.insert((protocol.clone(), ip.clone(), number)) {
        errors.duplicate(path, format!("{protocol}/{ip}/{number}"));
    }
}

fn volume_mounts(
    errors: &mut FieldErrors,
    path: &FieldPath,
    mounts: &[VolumeMount],
    volumes: &VolumeNames<'_>,
    privileged: bool,
) {
    let mut places = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let path = path.index(i);
        if required(errors, path.child("name"), Some(&mount.name)).is_some()
            && !volumes.contains(mount.name.as_str())
        {
            errors.not_found(path.child("name"), &mount.name);
        }
        let place = path.child("mountPath");
        if required(errors, place.clone(), Some(&mount.mount_path)).is_some()
            && !places.insert(&mount.mount_path)
        {
            errors.invalid(place, &mount.mount_path, "must be unique");
        }
        let given = |s: &Option<String>| s.clone().filter(|s| !s.is_empty());
        if let Some(sub_path) = given(&mount.sub_path) {
            inner_path(errors, &path.child("subPath"), &sub_path);
            if let Some(expression) = given(&mount.sub_path_expr) {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(path.child("subPathExpr"), expression, detail);
            }
        } else if let Some(expression) = given(&mount.sub_path_expr) {
            no_parents(errors, &path.child("subPathExpr"), &expression);
        }
        if let Some(propagation) = mount.mount_propagation.as_deref() {
            let path = path.child("mountPropagation");
            let supported = ["Bidirectional", "HostToContainer", "None"];
            if !supported.contains(&propagation) {
                errors.not_supported(path, propagation, &supported);
            } else if propagation == "Bidirectional" && !privileged {
                let detail = "Bidirectional mount propagation is available only to privileged containers";
                errors.forbidden(path, detail);
            }
        }
        if let Some(recursive) = mount.recursive_read_only.as_deref() {
            let path = path.child("recursiveReadOnly");
            let supported = ["Disabled", "Enabled", "IfPossible"];
            if !supported.contains(&recursive) {
                errors.not_supported(path, recursive, &supported);
            } else if recursive != "Disabled" && mount.read_only != Some(true) {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
        }
    }
}
