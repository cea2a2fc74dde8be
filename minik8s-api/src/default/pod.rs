//! Pods and pod templates.

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

use crate::quantity::Quantity;

/// Readies a new pod: it is pending, whatever its creator says.
pub fn prepare_for_create(pod: &mut Pod) {
    let qos_class = pod.spec.as_ref().map(|spec| qos_class(spec).to_owned());
    pod.status = Some(PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class,
        ..Default::default()
    });
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
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
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
