//! Ingresses, network policies, endpoint slices.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{
    IPBlock, Ingress, IngressBackend, IngressRule, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::label_selector;
use crate::field::{FieldErrors, FieldPath};
use crate::name;

/// What is wrong with an Ingress.
pub fn ingress(ingress: &Ingress) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let spec = ingress.spec.clone().unwrap_or_default();
    let rules = spec.rules.unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(path.clone(), &ingress.spec, why);
    }
    if let Some(backend) = &spec.default_backend {
        self::backend(&mut errors, &path.child("defaultBackend"), backend);
    }
    for (index, rule) in rules.iter().enumerate() {
        self::rule(&mut errors, &path.child("rules").index(index), rule);
    }
    errors
}

fn rule(errors: &mut FieldErrors, path: &FieldPath, rule: &IngressRule) {
    let host = rule.host.as_deref().unwrap_or_default();
    if !host.is_empty() {
        let path = path.child("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(path, host, "must be a DNS name, not an IP address");
        } else {
            let plain = host.strip_prefix("*.").unwrap_or(host);
            errors.invalid_each(&path, host, name::dns_subdomain(plain));
        }
    }
    let Some(http) = &rule.http else { return };
    let paths = path.child("http").child("paths");
    if http.paths.is_empty() {
        errors.required(paths.clone(), "");
    }
    for (index, entry) in http.paths.iter().enumerate() {
        let path = paths.index(index);
        let text = entry.path.as_deref().unwrap_or_default();
        match entry.path_type.as_str() {
            "" => errors.required(path.child("pathType"), "pathType must be specified"),
            "Exact" | "Prefix" if !text.starts_with('/') => {
                errors.invalid(path.child("path"), text, "must be an absolute path");
            }
            "ImplementationSpecific" if !text.is_empty() && !text.starts_with('/') => {
                errors.invalid(path.child("path"), text, "must be an absolute path");
            }
            "Exact" | "Prefix" | "ImplementationSpecific" => {}
            other => {
                let known = ["Exact", "ImplementationSpecific", "Prefix"];
                errors.not_supported(path.child("pathType"), other, &known);
            }
        }
        backend(errors, &path.child("backend"), &entry.backend);
    }
}

fn backend(errors: &mut FieldErrors, path: &FieldPath, backend: &IngressBackend) {
    let service = match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            errors.invalid(path.clone(), "", "cannot set both resource and service backends");
            return;
        }
        (None, Some(_)) => return,
        (None, None) => {
            errors.required(path.clone(), "resource or service backend is required");
            return;
        }
        (Some(service), None) => service,
    };
    let path = path.child("service");
    if service.name.is_empty() {
        errors.required(path.child("name"), "");
    } else {
        errors.invalid_each(&path.child("name"), &service.name, name::dns_1035_label(&service.name));
    }
    let port = service.port.clone().unwrap_or_default();
    let path = path.child("port");
    match (port.name.filter(|n| !n.is_empty()), port.number.filter(|&n| n != 0)) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both port name & port number"),
        (None, None) => errors.required(path, "port name or number is required"),
        (Some(name), None) => errors.invalid_each(&path.child("name"), &name, name::port_name(&name)),
        (None, Some(n)) => errors.invalid_each(&path.child("number"), n, name::port_number(n)),
    }
}

/// What is wrong with a NetworkPolicy.
pub fn policy(policy: &NetworkPolicy) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &policy.spec else { return errors };
    if let Some(selector) = &spec.pod_selector {
        label_selector::check(&mut errors, &path.child("podSelector"), selector);
    }
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = path.child("ingress").index(index);
        ports(&mut errors, &path, rule.ports.as_deref());
        peers(&mut errors, &path.child("from"), rule.from.as_deref());
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = path.child("egress").index(index);
        ports(&mut errors, &path, rule.ports.as_deref());
        peers(&mut errors, &path.child("to"), rule.to.as_deref());
    }
    let types = spec.policy_types.iter().flatten();
    for (index, type_) in types.enumerate().filter(|(_, t)| !matches!(t.as_str(), "Ingress" | "Egress")) {
        let path = path.child("policyTypes").index(index);
        errors.not_supported(path, type_, &["Ingress", "Egress"]);
    }
    errors
}

fn ports(errors: &mut FieldErrors, path: &FieldPath, ports: Option<&[NetworkPolicyPort]>) {
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let path = path.child("ports").index(index);
        if let Some(protocol) = port.protocol.as_deref().filter(|p| !matches!(*p, "TCP" | "UDP" | "SCTP")) {
            errors.not_supported(path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
        }
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(n)), end) => {
                errors.invalid_each(&path.child("port"), n, name::port_number(*n));
                if let Some(end) = end.filter(|end| end < n) {
                    let why = "must be greater than or equal to `port`";
                    errors.invalid(path.child("endPort"), end, why);
                }
            }
            (Some(IntOrString::String(text)), end) => {
                errors.invalid_each(&path.child("port"), text, name::port_name(text));
                if let Some(end) = end {
                    let why = "may not be specified when `port` is non-numeric";
                    errors.invalid(path.child("endPort"), end, why);
                }
            }
            (None, Some(end)) => {
                errors.invalid(
                    path.child("endPort"),
                    end,
                    "may not be specified when `port` is not specified",
                );
            }
            (None, None) => {}
        }
    }
}

fn peers(errors: &mut FieldErrors, path: &FieldPath, peers: Option<&[NetworkPolicyPeer]>) {
    for (index, peer) in peers.into_iter().flatten().enumerate() {
        let path = path.index(index);
        let selectors =
            [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
        for (field, selector) in selectors {
            if let Some(selector) = selector {
                label_selector::check(errors, &path.child(field), selector);
            }
        }
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            None if !selects => errors.required(path, "must specify a peer"),
            Some(_) if selects => {
                let why = "may not specify both ipBlock and another peer";
                errors.forbidden(path, why);
            }
            Some(block) => ip_block(errors, &path.child("ipBlock"), block),
            None => {}
        }
    }
}

fn ip_block(errors: &mut FieldErrors, path: &FieldPath, block: &IPBlock) {
    let except = block.except.iter().flatten().enumerate();
    let except = except.map(|(index, text)| (path.child("except").index(index), text));
    for (path, text) in [(path.child("cidr"), &block.cidr)].into_iter().chain(except) {
        if text.is_empty() {
            errors.required(path, "");
        } else if !is_cidr(text) {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.invalid(path, text, why);
        }
    }
}

fn is_cidr(text: &str) -> bool {
    text.parse::<crate::Cidr>().is_ok()
}

/// What is wrong with an EndpointSlice.
pub fn slice(slice: &EndpointSlice) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("addressType");
    match slice.address_type.as_str() {
        "" => errors.required(path, ""),
        "FQDN" | "IPv4" | "IPv6" => {}
        other => errors.not_supported(path, other, &["FQDN", "IPv4", "IPv6"]),
    }
    let endpoints = slice.endpoints.iter().flatten();
    for (index, _) in endpoints.enumerate().filter(|(_, e)| e.addresses.is_empty()) {
        let path = FieldPath::new("endpoints").index(index).child("addresses");
        errors.required(path, "must contain at least 1 address");
    }
    errors
}

/// What is wrong with a change of an EndpointSlice.
pub fn slice_update(new: &EndpointSlice, old: &EndpointSlice) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new.address_type != old.address_type {
        errors.invalid(FieldPath::new("addressType"), &new.address_type, super::IMMUTABLE);
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::registry::Registry;

    fn complaints(api_version: &str, kind: &str, spec: Value) -> String {
        let registry = Registry::builtin();
        let kind = registry.by_kind(api_version, kind).expect("built in");
        let object = json!({ "metadata": { "name": "a" }, "spec": spec });
        let mut object = kind.decode_value(&object).expect("decodes").object;
        kind.default(&mut *object);
        kind.validate(&*object).to_string()
    }

    #[test]
    fn ingresses() {
        let of = |spec| complaints("networking.k8s.io/v1", "Ingress", spec);
        let rule = |path: Value| json!({ "rules": [{ "host": "a.example", "http": { "paths": [path] } }] });
        let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
        let good = rule(json!({ "path": "/", "pathType": "Prefix", "backend": backend }));
        assert_eq!(of(good), "[]");
        assert!(of(json!({})).contains("either `defaultBackend` or `rules` must be specified"));
        let place = "spec.rules[0].http.paths[0]";
        let untyped = rule(json!({ "path": "/", "backend": backend }));
        assert_eq!(of(untyped), format!("{place}.pathType: Required value: pathType must be specified"));
        let relative = rule(json!({ "path": "x", "pathType": "Exact", "backend": backend }));
        assert_eq!(of(relative), format!("{place}.path: Invalid value: \"x\": must be an absolute path"));
        let nowhere = rule(json!({ "path": "/", "pathType": "Exact", "backend": {} }));
        let why = "resource or service backend is required";
        assert_eq!(of(nowhere), format!("{place}.backend: Required value: {why}"));
        let address = json!({ "rules": [{ "host": "10.0.0.1" }] });
        assert!(of(address).contains("must be a DNS name, not an IP address"));
    }

    #[test]
    fn policies() {
        let of = |spec| complaints("networking.k8s.io/v1", "NetworkPolicy", spec);
        let rule = |rule: Value| json!({ "podSelector": {}, "ingress": [rule] });
        assert_eq!(
            of(rule(json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }], "ports": [{ "port": 80 }] }))),
            "[]"
        );
        assert!(
            of(rule(json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0/33" } }] }))).contains("valid CIDR")
        );
        assert!(of(rule(json!({ "from": [{}] }))).contains("must specify a peer"));
        assert!(
            of(rule(json!({ "ports": [{ "port": 80, "endPort": 79 }] })))
                .contains("spec.ingress[0].ports[0].endPort")
        );
    }

    #[test]
    fn roles() {
        let registry = Registry::builtin();
        let of = |kind: &str, rule: Value| {
            let kind = registry.by_kind("rbac.authorization.k8s.io/v1", kind).expect("built in");
            let role = json!({ "metadata": { "name": "a" }, "rules": [rule] });
            kind.validate(&*kind.decode_value(&role).expect("decodes").object).to_string()
        };
        let good = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] });
        assert_eq!((of("Role", good.clone()), of("ClusterRole", good)), ("[]".to_owned(), "[]".to_owned()));
        let idle = json!({ "apiGroups": [""], "resources": ["pods"] });
        let words = "rules[0].verbs: Required value: verbs must contain at least one value";
        assert_eq!(of("Role", idle), words);
        let path = json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz"] });
        assert_eq!(of("ClusterRole", path.clone()), "[]");
        assert!(of("Role", path).contains("namespaced rules cannot apply to non-resource URLs"));
    }
}
