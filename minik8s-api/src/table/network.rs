//! Services, endpoints, ingresses and network policies.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};

use super::{NONE, UNSET, age, columns, first_three, joined, labels, name, row, selector, text};
use crate::kind::{Cell, Column};

pub(crate) fn service_columns() -> Vec<Column> {
    columns![
        "Type" "Who can reach it.",
        "Cluster-IP" "Its address within the cluster.",
        "External-IP" "Its addresses for the outside.",
        "Port(s)" "Its ports.",
        "Age" "How long ago the object was created.",
        "Selector" "Which pods serve it.": wide,
    ]
}

pub(crate) fn service(service: &Service, now: Timestamp) -> Vec<Cell> {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    row![
        name(&service.metadata),
        spec.type_.clone().unwrap_or_default(),
        text(spec.cluster_ip.as_deref(), NONE),
        external_ip(service, spec),
        joined(spec.ports.iter().flatten().map(port)),
        age(&service.metadata, now),
        labels(spec.selector.as_ref()),
    ]
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> String {
    let own = spec.external_ips.iter().flatten();
    match spec.type_.as_deref() {
        Some("ExternalName") => text(spec.external_name.as_deref(), NONE),
        Some("LoadBalancer") => {
            let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let balancers = status.into_iter().flat_map(|b| b.ingress.iter().flatten());
            let balancers = balancers.filter_map(|i| i.ip.as_ref().or(i.hostname.as_ref()));
            let all: Vec<_> = balancers.chain(own).map(String::as_str).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => joined(own),
    }
}

fn port(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.node_port.unwrap_or(0) {
        0 => format!("{}/{protocol}", port.port),
        node_port => format!("{}:{node_port}/{protocol}", port.port),
    }
}

pub(crate) fn endpoints_columns() -> Vec<Column> {
    columns!["Endpoints" "The addresses behind the service.", "Age" "How long ago the object was created."]
}

pub(crate) fn endpoints(endpoints: &Endpoints, now: Timestamp) -> Vec<Cell> {
    let mut list = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let ports = subset.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            list.extend(addresses.iter().map(|a| a.ip.clone()));
        }
        for port in ports {
            list.extend(addresses.iter().map(|a| match a.ip.contains(':') {
                true => format!("[{}]:{}", a.ip, port.port),
                false => format!("{}:{}", a.ip, port.port),
            }));
        }
    }
    let cell = if endpoints.subsets.iter().flatten().next().is_none() {
        NONE.to_owned()
    } else {
        first_three(&list)
    };
    row![name(&endpoints.metadata), cell, age(&endpoints.metadata, now)]
}

pub(crate) fn slice_columns() -> Vec<Column> {
    columns![
        "AddressType" "The family of its addresses.",
        "Ports" "The ports of each endpoint.",
        "Endpoints" "The addresses behind the service.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn slice(slice: &EndpointSlice, now: Timestamp) -> Vec<Cell> {
    let ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .map(|p| match (p.port, &p.name) {
            (Some(port), _) => port.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let endpoints = slice.endpoints.iter().flatten();
    let addresses: Vec<_> = endpoints.flat_map(|e| e.addresses.iter().cloned()).collect();
    row![
        name(&slice.metadata),
        slice.address_type.clone(),
        text(Some(&first_three(&ports)), UNSET),
        text(Some(&first_three(&addresses)), UNSET),
        age(&slice.metadata, now),
    ]
}

pub(crate) fn ingress_columns() -> Vec<Column> {
    columns![
        "Class" "Who serves it.",
        "Hosts" "The host names it answers to.",
        "Address" "Where it can be reached.",
        "Ports" "Its ports.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn ingress(ingress: &Ingress, now: Timestamp) -> Vec<Cell> {
    let spec = ingress.spec.as_ref();
    let hosts: Vec<_> = spec
        .into_iter()
        .flat_map(|s| s.rules.iter().flatten())
        .filter_map(|r| r.host.clone().filter(|h| !h.is_empty()))
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { first_three(&hosts) };
    let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let addresses: Vec<_> = balancer
        .into_iter()
        .flat_map(|b| b.ingress.iter().flatten())
        .filter_map(|i| i.ip.as_deref().or(i.hostname.as_deref()))
        .collect();
    let tls = spec.is_some_and(|s| s.tls.as_ref().is_some_and(|t| !t.is_empty()));
    row![
        name(&ingress.metadata),
        text(spec.and_then(|s| s.ingress_class_name.as_deref()), NONE),
        hosts,
        addresses.join(","),
        if tls { "80, 443" } else { "80" },
        age(&ingress.metadata, now),
    ]
}

pub(crate) fn ingress_class_columns() -> Vec<Column> {
    columns![
        "Controller" "Who serves ingresses of the class.",
        "Parameters" "Where its settings are.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn ingress_class(class: &IngressClass, now: Timestamp) -> Vec<Cell> {
    let spec = class.spec.as_ref();
    let parameters = spec.and_then(|s| s.parameters.as_ref()).map(|p| match &p.api_group {
        Some(group) => format!("{}.{group}/{}", p.kind, p.name),
        None => format!("{}/{}", p.kind, p.name),
    });
    row![
        name(&class.metadata),
        spec.and_then(|s| s.controller.clone()).unwrap_or_default(),
        text(parameters.as_deref(), NONE),
        age(&class.metadata, now),
    ]
}

pub(crate) fn policy_columns() -> Vec<Column> {
    columns!["Pod-Selector" "Which pods it is about.", "Age" "How long ago the object was created."]
}

pub(crate) fn policy(policy: &NetworkPolicy, now: Timestamp) -> Vec<Cell> {
    let pods = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
    row![name(&policy.metadata), selector(pods), age(&policy.metadata, now)]
}

pub(crate) fn ip_address_columns() -> Vec<Column> {
    columns!["ParentRef" "What the address was given to.", "Age" "How long ago the object was created."]
}

pub(crate) fn ip_address(address: &IPAddress, now: Timestamp) -> Vec<Cell> {
    let parent = &address.spec.parent_ref;
    let resource = match parent.group.as_deref() {
        None | Some("") => parent.resource.clone(),
        Some(group) => format!("{}.{group}", parent.resource),
    };
    let namespace = parent.namespace.as_deref().filter(|n| !n.is_empty());
    let parts = [Some(resource.as_str()), namespace, Some(&parent.name)];
    let parent = parts.into_iter().flatten().collect::<Vec<_>>().join("/");
    row![name(&address.metadata), parent, age(&address.metadata, now)]
}

pub(crate) fn cidr_columns() -> Vec<Column> {
    columns!["CIDRs" "The ranges of addresses.", "Age" "How long ago the object was created."]
}

pub(crate) fn cidr(cidr: &ServiceCIDR, now: Timestamp) -> Vec<Cell> {
    let cidrs = cidr.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
    row![name(&cidr.metadata), joined(cidrs), age(&cidr.metadata, now)]
}
