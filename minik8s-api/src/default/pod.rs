//! Pods and pod templates.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, Lifecycle, LifecycleHandler, ObjectFieldSelector, Pod, PodSpec, PodStatus,
    PodTemplateSpec, Probe, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{set, volume};
use crate::quantity::Quantity;

/// Seconds that a pod is given to end if its spec does not say.
pub const GRACE_PERIOD_S: i64 = 30;
/// Seconds that a pod stays on a node that is not ready or not reachable, if it does not say.
pub const NODE_LOST_S: i64 = 300;

/// Fills in a pod.
pub fn pod(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    pod_spec(spec);
    spec.enable_service_links.get_or_insert(true);
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        // What is limited is requested.
        if let Some(resources) = &mut container.resources
            && let Some(limits) = &resources.limits
        {
            let requests = resources.requests.get_or_insert_default();
            for (name, limit) in limits {
                requests.entry(name.clone()).or_insert_with(|| limit.clone());
            }
        }
        if host_network {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or(0) == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
}

/// Fills in the template of a controller. Unlike a pod's, its requests stay as they are until a pod is made of it.
pub fn template(template: &mut PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        pod_spec(spec);
    }
}

/// The annotation of pods that show what a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Readies a new pod: it is pending, whatever its creator says, runs as its namespace's default account (unless it only
/// shows what a node runs), and leaves a node some minutes after that node is lost.
pub fn prepare_for_create(pod: &mut Pod) {
    let qos_class = pod.spec.as_ref().map(|spec| qos_class(spec).to_owned());
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), qos_class, ..Default::default() });
    let is_mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
    if let Some(spec) = &mut pod.spec {
        if !is_mirror {
            set(&mut spec.service_account_name, "default");
        }
        spec.service_account = spec.service_account_name.clone();
        tolerate_lost_nodes(spec);
    }
}

fn tolerate_lost_nodes(spec: &mut PodSpec) {
    let tolerations = spec.tolerations.get_or_insert_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|t| {
            (t.key.as_deref().unwrap_or_default().is_empty() || t.key.as_deref() == Some(key))
                && matches!(t.effect.as_deref(), None | Some("" | "NoExecute"))
        });
        if !tolerated {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(NODE_LOST_S),
                value: None,
            });
        }
    }
}

fn pod_spec(spec: &mut PodSpec) {
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(GRACE_PERIOD_S);
    spec.security_context.get_or_insert_default();
    // The deprecated name and the present one are the same field.
    if spec.service_account_name.is_none() {
        spec.service_account_name = spec.service_account.clone();
    }
    spec.service_account = spec.service_account_name.clone();
    for each in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container(each);
    }
    for each in spec.ephemeral_containers.iter_mut().flatten() {
        image_pull_policy(each.image.as_deref(), &mut each.image_pull_policy);
        set(&mut each.termination_message_path, "/dev/termination-log");
        set(&mut each.termination_message_policy, "File");
    }
    for each in spec.volumes.iter_mut().flatten() {
        volume::volume(each);
    }
}

fn container(container: &mut Container) {
    image_pull_policy(container.image.as_deref(), &mut container.image_pull_policy);
    set(&mut container.termination_message_path, "/dev/termination-log");
    set(&mut container.termination_message_policy, "File");
    container.resources.get_or_insert_default();
    for port in container.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
    }
    for source in container.env.iter_mut().flatten().filter_map(|e| e.value_from.as_mut()) {
        if let Some(field) = &mut source.field_ref {
            field_ref(field);
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    if let Some(Lifecycle { post_start, pre_stop, .. }) = &mut container.lifecycle {
        let handlers = [post_start, pre_stop].into_iter().flatten();
        handlers.for_each(|LifecycleHandler { http_get: get, .. }| get.iter_mut().for_each(http_get));
    }
}

pub(super) fn image_pull_policy(image: Option<&str>, policy: &mut Option<String>) {
    let always = tag(image.unwrap_or_default()) == Some("latest");
    set(policy, if always { "Always" } else { "IfNotPresent" });
}

/// The tag of an image's name: `latest` if it does not say; none if it names a digest.
fn tag(image: &str) -> Option<&str> {
    if image.contains('@') {
        return None;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    Some(last.split_once(':').map_or("latest", |(_, tag)| tag))
}

pub(super) fn field_ref(field: &mut ObjectFieldSelector) {
    set(&mut field.api_version, "v1");
}

fn probe(probe: &mut Probe) {
    for (field, value) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    }
    if let Some(get) = &mut probe.http_get {
        http_get(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get(get: &mut HTTPGetAction) {
    set(&mut get.path, "/");
    set(&mut get.scheme, "HTTP");
}

/// The pod's class of service: `Guaranteed` if every container has its cpu and memory limited to what it requests,
/// `BestEffort` if none says anything about them, `Burstable` otherwise.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    const RESOURCES: [&str; 2] = ["cpu", "memory"];
    type List = Option<BTreeMap<String, ApiQuantity>>;
    let amount = |list: &List, resource: &str| {
        let quantity = Quantity::try_from(list.as_ref()?.get(resource)?).ok()?;
        (!quantity.is_zero()).then_some(quantity)
    };
    let (mut any, mut guaranteed) = (false, true);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let resources: Vec<_> = match &spec.resources {
        Some(pod) if pod.requests.is_some() || pod.limits.is_some() => vec![Some(pod)],
        _ => containers.map(|c| c.resources.as_ref()).collect(),
    };
    for resources in resources {
        for resource in RESOURCES {
            let limit = resources.and_then(|r| amount(&r.limits, resource));
            let request = resources.and_then(|r| amount(&r.requests, resource)).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests;
