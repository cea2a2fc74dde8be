//! `DNS`: a host name whose paths lead to Services.
//!
//! ```
//! # use minik8s_api::minik8s_io::dns::DNS;
//! let dns: DNS = serde_yaml::from_str("
//!     apiVersion: minik8s.io/v1
//!     kind: DNS
//!     metadata: {name: shop}
//!     spec:
//!       host: shop.example
//!       paths:
//!       - {path: /cart, serviceName: cart, servicePort: 80}
//! ").unwrap();
//! assert_eq!(dns.spec.paths[0].service_name, "cart");
//! ```

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::field::{FieldErrors, FieldPath};
use crate::kind::{Cell, Column, Kind, age};
use crate::name;

/// Where a host name leads.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "minik8s.io",
    version = "v1",
    kind = "DNS",
    plural = "dns",
    singular = "dns",
    namespaced,
    derive = "PartialEq",
    doc = "A host name within the cluster and the Services behind its paths.",
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DnsSpec {
    /// The host name, such as `shop.example`.
    pub host: String,
    /// Which Service answers below which path. The longest path that fits wins.
    #[serde(default)]
    pub paths: Vec<DnsPath>,
}

/// One path of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsPath {
    /// The path and all below it: `/cart` takes `/cart` and `/cart/1` but not `/carts`.
    pub path: String,
    /// The Service, in the same namespace.
    pub service_name: String,
    /// The port of the Service.
    pub service_port: i32,
}

/// The kind, for the registry.
pub(crate) fn kind() -> Kind {
    Kind::of::<DNS>()
        .generation(true)
        .validate(validate)
        .table(
            vec![
                Column::name(),
                Column::new("Host", "The host name."),
                Column::new("Paths", "Its paths and what answers them."),
                Column::age(),
            ],
            row,
        )
        .schema()
        .build()
}

fn row(dns: &DNS, now: Timestamp) -> Vec<Cell> {
    let paths: Vec<_> =
        dns.spec.paths.iter().map(|p| format!("{}={}:{}", p.path, p.service_name, p.service_port)).collect();
    vec![
        dns.metadata.name.clone().unwrap_or_default().into(),
        dns.spec.host.clone().into(),
        paths.join(",").into(),
        age(dns, now).into(),
    ]
}

/// What is wrong with a DNS object.
pub fn validate(dns: &DNS) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    match dns.spec.host.as_str() {
        "" => errors.required(path.child("host"), ""),
        host => errors.invalid_each(&path.child("host"), host, name::dns_subdomain(host)),
    }
    let list = path.child("paths");
    if dns.spec.paths.is_empty() {
        errors.required(list.clone(), "");
    }
    let mut seen = BTreeSet::new();
    for (i, each) in dns.spec.paths.iter().enumerate() {
        let path = list.index(i);
        match each.path.as_str() {
            "" => errors.required(path.child("path"), ""),
            given if !given.starts_with('/') => {
                errors.invalid(path.child("path"), given, "must be an absolute path");
            }
            given if given.contains(['?', '#', ' ']) => {
                errors.invalid(path.child("path"), given, "must not contain '?', '#' or spaces");
            }
            // A trailing slash makes no other path.
            given if !seen.insert(given.trim_end_matches('/')) => errors.duplicate(path.child("path"), given),
            _ => {}
        }
        match each.service_name.as_str() {
            "" => errors.required(path.child("serviceName"), ""),
            given => errors.invalid_each(&path.child("serviceName"), given, name::dns_1035_label(given)),
        }
        let port = each.service_port;
        errors.invalid_each(&path.child("servicePort"), port, name::port_number(port));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation() {
        let path = |path: &str, service: &str, port| DnsPath {
            path: path.to_owned(),
            service_name: service.to_owned(),
            service_port: port,
        };
        let wrong = |host: &str, paths: &[DnsPath]| -> Vec<String> {
            let dns = DNS::new("x", DnsSpec { host: host.to_owned(), paths: paths.to_vec() });
            validate(&dns).0.iter().map(ToString::to_string).collect()
        };
        assert_eq!(wrong("a.b", &[path("/", "s", 80), path("/x", "s", 81)]), Vec::<String>::new());
        assert_eq!(wrong("", &[]), ["spec.host: Required value", "spec.paths: Required value"]);
        let paths = [path("/a", "s", 1), path("/a/", "s", 1), path("b", "s", 1), path("/c", "", 0)];
        assert_eq!(
            wrong("a", &paths),
            [
                "spec.paths[1].path: Duplicate value: \"/a/\"",
                "spec.paths[2].path: Invalid value: \"b\": must be an absolute path",
                "spec.paths[3].serviceName: Required value",
                "spec.paths[3].servicePort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
    }
}
