//! Services.

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::set;

/// Seconds that a client stays with its pod, where the Service asks for that.
const AFFINITY_S: i32 = 10_800;

/// Fills in a Service. Addresses and node ports are the server's to allot.
pub fn service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    set(&mut spec.type_, "ClusterIP");
    set(&mut spec.session_affinity, "None");
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config: &mut SessionAffinityConfig = spec.session_affinity_config.get_or_insert_default();
        let client: &mut ClientIPConfig = config.client_ip.get_or_insert_default();
        client.timeout_seconds.get_or_insert(AFFINITY_S);
    } else {
        spec.session_affinity_config = None;
    }
    for port in spec.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    let type_ = spec.type_.clone().unwrap_or_default();
    if type_ != "ExternalName" {
        set(&mut spec.internal_traffic_policy, "Cluster");
    }
    if matches!(&*type_, "NodePort" | "LoadBalancer") {
        set(&mut spec.external_traffic_policy, "Cluster");
    }
    if type_ == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}
