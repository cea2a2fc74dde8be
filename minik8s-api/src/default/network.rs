//! Endpoints and network policies.

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::set;

/// Fills in the ports of Endpoints.
pub fn endpoints(endpoints: &mut Endpoints) {
    let ports = endpoints.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten());
    ports.for_each(|port| set(&mut port.protocol, "TCP"));
}

/// Fills in the ports of an EndpointSlice.
pub fn slice(slice: &mut EndpointSlice) {
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        set(&mut port.protocol, "TCP");
    }
}

/// Fills in a NetworkPolicy: it is about what comes in, and about what goes out if it has rules for that.
pub fn policy(policy: &mut NetworkPolicy) {
    let spec = policy.spec.get_or_insert_default();
    spec.pod_selector.get_or_insert_default();
    let incoming = spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
    let outgoing = spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
    incoming.chain(outgoing).for_each(|port| set(&mut port.protocol, "TCP"));
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        let egress = spec.egress.as_ref().is_some_and(|e| !e.is_empty());
        let types = ["Ingress", "Egress"].into_iter().take(if egress { 2 } else { 1 });
        spec.policy_types = Some(types.map(str::to_owned).collect());
    }
}
