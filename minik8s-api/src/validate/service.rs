//! Services.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{one_of, probe};
use crate::field::{FieldErrors, FieldPath};
use crate::{meta, name};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// What is wrong with a Service. Whether its addresses and node ports are free and in range is the server's matter.
pub fn validate(service: &Service) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &service.spec else {
        errors.required(path.child("ports"), "");
        return errors;
    };
    let type_ = spec.type_.as_deref().unwrap_or_default();
    one_of(&mut errors, path.child("type"), Some(type_), &TYPES);
    let affinity = spec.session_affinity.as_deref();
    one_of(&mut errors, path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    addresses(&mut errors, &path, spec, type_);
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_headless(spec) && type_ != "ExternalName" {
        errors.required(path.child("ports"), "");
    }
    check_ports(&mut errors, &path.child("ports"), ports, type_);
    if let Some(selector) = &spec.selector {
        errors.extend(meta::labels(selector, &path.child("selector")));
    }
    for (field, policy) in [
        ("internalTrafficPolicy", &spec.internal_traffic_policy),
        ("externalTrafficPolicy", &spec.external_traffic_policy),
    ] {
        if policy.is_some() {
            one_of(&mut errors, path.child(field), policy.as_deref(), &["Cluster", "Local"]);
        }
    }
    let seconds = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = seconds.filter(|s| !(1..=86_400).contains(s)) {
        let path = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        errors.invalid(path, seconds, "must be greater than 0 and less than 86400");
    }
    errors
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn addresses(errors: &mut FieldErrors, path: &FieldPath, spec: &ServiceSpec, type_: &str) {
    let own = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    if type_ == "ExternalName" {
        let external = path.child("externalName");
        match spec.external_name.as_deref().unwrap_or_default() {
            "" => errors.required(external, ""),
            host => {
                let plain = host.strip_suffix('.').unwrap_or(host);
                errors.invalid_each(&external, host, name::dns_subdomain(plain));
            }
        }
        if own.is_some() {
            errors.forbidden(path.child("clusterIPs"), "may not be set for ExternalName services");
        }
    } else if let Some(ip) = own {
        let path = path.child("clusterIPs").index(0);
        if ip != "None" {
            errors.invalid_each(&path, ip, name::ip(ip));
        } else if matches!(type_, "NodePort" | "LoadBalancer") {
            errors.invalid(path, ip, format!("may not be set to 'None' for {type_} services"));
        }
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        errors.invalid_each(&path.child("externalIPs").index(i), ip, name::ip(ip));
    }
}

fn check_ports(errors: &mut FieldErrors, path: &FieldPath, ports: &[ServicePort], type_: &str) {
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        match port.name.as_deref().unwrap_or_default() {
            "" if ports.len() > 1 => errors.required(path.child("name"), ""),
            "" => {}
            own => {
                errors.invalid_each(&path.child("name"), own, name::dns_label(own));
                if !names.insert(own) {
                    errors.duplicate(path.child("name"), own);
                }
            }
        }
        errors.invalid_each(&path.child("port"), port.port, name::port_number(port.port));
        let protocol = port.protocol.as_deref();
        one_of(errors, path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        if let Some(target) = &port.target_port {
            probe::port(errors, &path.child("targetPort"), target);
        }
        if !numbers.insert((protocol, port.port)) {
            let key = serde_json::json!({"port": port.port, "protocol": protocol});
            errors.duplicate(path.clone(), key);
        }
        let Some(node_port) = port.node_port.filter(|&p| p != 0) else {
            continue;
        };
        let path = path.child("nodePort");
        if matches!(type_, "ClusterIP" | "ExternalName") {
            errors.forbidden(path, format!("may not be used when `type` is '{type_}'"));
        } else {
            errors.invalid_each(&path, node_port, name::port_number(node_port));
            if !node_ports.insert((protocol, node_port)) {
                errors.duplicate(path, node_port);
            }
        }
    }
}

/// What is wrong with a change of a Service: it keeps its address for as long as it has one.
pub fn validate_update(new: &Service, old: &Service) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return errors;
    };
    let external = |s: &ServiceSpec| s.type_.as_deref() == Some("ExternalName");
    let before = old.cluster_ip.as_deref().unwrap_or_default();
    if !external(new) && !external(old) && !before.is_empty() && new.cluster_ip.as_deref() != Some(before) {
        let path = FieldPath::new("spec").child("clusterIPs").index(0);
        errors.invalid(path, &new.cluster_ip, "may not change once set");
    }
    errors
}
