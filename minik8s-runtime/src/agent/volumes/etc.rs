//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a pod.

use std::fs;
use std::io;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use super::PodDir;
use crate::agent::pod_fsm::spec;

/// How names are resolved in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    /// The cluster's name servers; empty if it has none.
    pub(crate) servers: Vec<IpAddr>,
    /// The suffix of names in the cluster.
    pub(crate) domain: String,
    /// The node's own `/etc/resolv.conf`.
    pub(crate) node: String,
}

/// Writes the pod's files.
pub(crate) fn write(
    dir: &PodDir,
    pod: &Pod,
    hostname: &str,
    addresses: &[IpAddr],
    dns: &Dns,
    node_hosts: &str,
) -> io::Result<()> {
    fs::create_dir_all(dir.etc(""))?;
    let host_network = spec(pod).host_network == Some(true);
    let hosts =
        if host_network { with_aliases(pod, node_hosts.to_owned()) } else { hosts(pod, hostname, addresses) };
    for (file, text) in
        [("hosts", hosts), ("resolv.conf", resolv_conf(pod, dns)), ("hostname", format!("{hostname}\n"))]
    {
        let path = dir.etc(file);
        // In place: containers that run have this very file mounted.
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            fs::write(path, text)?;
        }
    }
    Ok(())
}

/// The pod's `/etc/hosts`.
pub(crate) fn hosts(pod: &Pod, hostname: &str, addresses: &[IpAddr]) -> String {
    let mut out = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for address in addresses {
        out.push_str(&format!("{address}\t{hostname}\n"));
    }
    with_aliases(pod, out)
}

fn with_aliases(pod: &Pod, mut hosts: String) -> String {
    if !hosts.is_empty() && !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    for alias in spec(pod).host_aliases.iter().flatten() {
        let names = alias.hostnames.as_deref().unwrap_or_default().join(" ");
        hosts.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    hosts
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.servers.extend(words.next().map(ToOwned::to_owned)),
                Some("search") => out.searches = words.map(ToOwned::to_owned).collect(),
                Some("options") => out.options = words.map(ToOwned::to_owned).collect(),
                _ => {}
            }
        }
        out
    }

    fn add(&mut self, config: &PodDNSConfig) {
        for (list, more) in [(&mut self.servers, &config.nameservers), (&mut self.searches, &config.searches)]
        {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        }
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            self.options.retain(|o| o.split(':').next() != Some(&name));
            self.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
}

/// The pod's `/etc/resolv.conf`.
pub(crate) fn resolv_conf(pod: &Pod, dns: &Dns) -> String {
    let spec = spec(pod);
    let node = Resolver::parse(&dns.node);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => spec.host_network != Some(true),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut resolver = if policy == "None" {
        Resolver::default()
    } else if cluster && !dns.servers.is_empty() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let domain = &dns.domain;
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        searches.extend(node.searches);
        Resolver {
            servers: dns.servers.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    } else {
        node
    };
    if let Some(config) = &spec.dns_config {
        resolver.add(config);
    }
    let mut out = String::new();
    for server in &resolver.servers {
        out.push_str(&format!("nameserver {server}\n"));
    }
    for (word, list) in [("search", &resolver.searches), ("options", &resolver.options)] {
        if !list.is_empty() {
            out.push_str(&format!("{word} {}\n", list.join(" ")));
        }
    }
    out
}
