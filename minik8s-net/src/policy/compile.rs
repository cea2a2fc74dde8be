//! From policies to rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use minik8s_api::{Cidr, Selector};

use super::{Allow, Peers, Ports, Protocol, Table};

type Labels = BTreeMap<String, String>;

/// The pods that have addresses of their own, and the labels of namespaces.
struct World<'a> {
    pods: Vec<&'a Pod>,
    namespaces: BTreeMap<&'a str, Labels>,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Table {
    /// The rules of the node called `node`.
    pub fn compile(
        node: &str,
        pods: &[Arc<Pod>],
        namespaces: &[Arc<Namespace>],
        policies: &[Arc<NetworkPolicy>],
    ) -> Self {
        let world = World {
            pods: pods.iter().map(|pod| &**pod).filter(|pod| takes_part(pod)).collect(),
            namespaces: namespaces
                .iter()
                .map(|n| {
                    (
                        n.metadata.name.as_deref().unwrap_or_default(),
                        n.metadata.labels.clone().unwrap_or_default(),
                    )
                })
                .collect(),
        };
        let mut table = Self::default();
        for policy in policies {
            let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
            let spec = policy.spec.clone().unwrap_or_default();
            let about = |pod: &&&Pod| {
                namespace_of(pod) == namespace
                    && node_of(pod) == node
                    && spec.pod_selector.as_ref().is_none_or(|selector| selects(selector, &labels(pod)))
            };
            let types = spec.policy_types.clone().unwrap_or_else(|| {
                let out = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
                let out = out.then(|| "Egress".to_owned());
                [Some("Ingress".to_owned()), out].into_iter().flatten().collect()
            });
            for pod in world.pods.iter().filter(about) {
                for way in [(Way::In, "Ingress"), (Way::Out, "Egress")] {
                    if !types.iter().any(|type_| type_ == way.1) {
                        continue;
                    }
                    let rules: Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> = match way.0 {
                        Way::In => {
                            spec.ingress.iter().flatten().map(|r| (list(&r.from), list(&r.ports))).collect()
                        }
                        Way::Out => {
                            spec.egress.iter().flatten().map(|r| (list(&r.to), list(&r.ports))).collect()
                        }
                    };
                    let allowed: BTreeSet<Allow> = rules
                        .iter()
                        .flat_map(|(peers, ports)| world.allow(way.0, namespace, pod, peers, ports))
                        .collect();
                    let side = if way.0 == Way::In { &mut table.ingress } else { &mut table.egress };
                    for address in addresses(pod) {
                        side.entry(address).or_default().extend(allowed.iter().cloned());
                    }
                }
            }
        }
        table
    }
}

impl World<'_> {
    /// What one rule allows `pod`.
    fn allow(
        &self,
        way: Way,
        namespace: &str,
        pod: &Pod,
        peers: &[NetworkPolicyPeer],
        ports: &[NetworkPolicyPort],
    ) -> Vec<Allow> {
        // Those who are allowed, and the pods among them.
        let mut found = Vec::new();
        if peers.is_empty() {
            found.push((Peers::All, self.pods.clone()));
        }
        let mut selected = Vec::new();
        for peer in peers {
            if let Some(block) = &peer.ip_block {
                let Ok(whole) = block.cidr.parse::<Cidr>() else { continue };
                let but: BTreeSet<Cidr> =
                    block.except.iter().flatten().filter_map(|text| text.parse().ok()).collect();
                let inside = |address: &IpAddr| {
                    whole.contains(*address) && !but.iter().any(|part| part.contains(*address))
                };
                let pods =
                    self.pods.iter().copied().filter(|pod| addresses(pod).iter().any(inside)).collect();
                found.push((Peers::Block(whole, but.clone()), pods));
                continue;
            }
            selected.extend(self.pods.iter().copied().filter(|other| self.is_peer(other, namespace, peer)));
        }
        let of = |pods: &[&Pod]| Peers::Addresses(pods.iter().flat_map(|pod| addresses(pod)).collect());
        if !selected.is_empty() {
            found.push((of(&selected), selected));
        }
        let mut allowed = Vec::new();
        for (peers, pods) in found {
            if ports.is_empty() {
                allowed.push(Allow { peers, ports: None });
                continue;
            }
            // A name is a number for each pod that is spoken to.
            let mut numbers: BTreeSet<Ports> = ports.iter().filter_map(by_number).collect();
            if way == Way::In {
                numbers.extend(ports.iter().flat_map(|port| by_name(port, pod)));
            } else {
                for other in pods {
                    let named: BTreeSet<Ports> = ports.iter().flat_map(|port| by_name(port, other)).collect();
                    if !named.is_empty() {
                        allowed.push(Allow { peers: of(&[other]), ports: Some(named) });
                    }
                }
            }
            if !numbers.is_empty() {
                allowed.push(Allow { peers, ports: Some(numbers) });
            }
        }
        allowed
    }

    fn is_peer(&self, other: &Pod, namespace: &str, peer: &NetworkPolicyPeer) -> bool {
        let there = namespace_of(other);
        let in_namespace = match &peer.namespace_selector {
            None => there == namespace,
            Some(selector) => self.namespaces.get(there).is_some_and(|labels| selects(selector, labels)),
        };
        in_namespace && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, &labels(other)))
    }
}

fn list<T>(all: &Option<Vec<T>>) -> &[T] {
    all.as_deref().unwrap_or_default()
}

/// Whether a pod has addresses of its own and uses them.
fn takes_part(pod: &Pod) -> bool {
    let on_node = pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !on_node && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

fn namespace_of(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn labels(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let all: BTreeSet<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
    all.into_iter().collect()
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    Selector::from_label_selector(selector).is_ok_and(|selector| selector.matches(labels))
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn by_number(port: &NetworkPolicyPort) -> Option<Ports> {
    let protocol = protocol(port.protocol.as_deref())?;
    let range = match &port.port {
        None => None,
        Some(IntOrString::Int(first)) => {
            let first = u16::try_from(*first).ok()?;
            let last = port.end_port.and_then(|last| u16::try_from(last).ok()).unwrap_or(first);
            Some((first, last))
        }
        Some(IntOrString::String(_)) => return None,
    };
    Some(Ports { protocol, range })
}

/// The ports of that name that a pod has.
fn by_name(port: &NetworkPolicyPort, pod: &Pod) -> Vec<Ports> {
    let Some(IntOrString::String(name)) = &port.port else { return Vec::new() };
    let Some(wanted) = protocol(port.protocol.as_deref()) else { return Vec::new() };
    let Some(spec) = &pod.spec else { return Vec::new() };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter(|p| p.name.as_ref() == Some(name) && protocol(p.protocol.as_deref()) == Some(wanted))
        .filter_map(|p| u16::try_from(p.container_port).ok())
        .map(|number| Ports { protocol: wanted, range: Some((number, number)) })
        .collect()
}
