//! What the Nodes say, as the network of one of them sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use minik8s_net::Subnet;
use minik8s_net::overlay::{Backend, NodeRoute};
use minik8s_reconcile::controllers::node_ipam::CLUSTER_CIDR;

/// The annotation of a node that says how its pods are reached.
pub const BACKEND: &str = "minik8s.io/network-backend";
/// The annotation of a node with the hardware address of its tunnel.
pub const TUNNEL_MAC: &str = "minik8s.io/tunnel-mac";

/// What matters of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The addresses of this node's pods, once it has been given some.
    pub subnet: Option<Subnet>,
    /// The addresses of all pods.
    pub cluster: Vec<Subnet>,
    /// The annotations of this node that are ours to write; `None` while there is no such node.
    pub announced: Option<BTreeMap<String, String>>,
    /// The other nodes, ordered.
    pub others: Vec<NodeRoute>,
    /// Nodes that are not reached, and why.
    pub skipped: Vec<String>,
}

impl View {
    /// Of the node called `name`, which reaches others by `backend`.
    pub fn of(nodes: &[Arc<Node>], name: &str, backend: Backend) -> Self {
        let mut view = Self::default();
        for node in nodes {
            let called = node.metadata.name.as_deref().unwrap_or_default();
            if called != name {
                match route(node, backend) {
                    Ok(route) => view.others.extend(route),
                    Err(why) => view.skipped.push(format!("{called}: {why}")),
                }
                continue;
            }
            view.subnet = subnet(node);
            let annotations = node.metadata.annotations.clone().unwrap_or_default();
            view.cluster = annotations.get(CLUSTER_CIDR).and_then(|c| c.parse().ok()).into_iter().collect();
            let ours = |key: &String| key == BACKEND || key == TUNNEL_MAC;
            view.announced = Some(annotations.into_iter().filter(|(key, _)| ours(key)).collect());
        }
        view.others.sort();
        // Where nobody said what the whole is, it is the sum of its parts.
        if view.cluster.is_empty() {
            view.cluster = view.subnet.into_iter().chain(view.others.iter().map(|o| o.subnet)).collect();
        }
        view
    }
}

/// The addresses of a node's pods.
fn subnet(node: &Node) -> Option<Subnet> {
    let spec = node.spec.as_ref()?;
    let first = spec.pod_cidrs.as_ref().and_then(|all| all.first()).or(spec.pod_cidr.as_ref())?;
    first.parse().ok()
}

/// The way to another node, if it has pods and an address yet.
fn route(node: &Node, backend: Backend) -> Result<Option<NodeRoute>, String> {
    let annotation = |key: &str| node.metadata.annotations.as_ref().and_then(|all| all.get(key));
    if let Some(theirs) = annotation(BACKEND).filter(|theirs| **theirs != backend.to_string()) {
        return Err(format!("its pods are reached by {theirs}, this node's by {backend}"));
    }
    let Some(subnet) = subnet(node) else { return Ok(None) };
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    let mut parsed = internal.filter_map(|address| address.address.parse::<IpAddr>().ok());
    let fits = |address: &IpAddr| {
        address.is_ipv4() == subnet.network().is_ipv4() && !address.is_loopback() && !address.is_unspecified()
    };
    let Some(address) = parsed.find(fits) else { return Ok(None) };
    let mac = match annotation(TUNNEL_MAC) {
        Some(text) => Some(text.parse().map_err(|error| format!("annotation {TUNNEL_MAC}: {error}"))?),
        None => None,
    };
    Ok(Some(NodeRoute { subnet, address, mac }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, cidr: &str, address: &str, annotations: Value) -> Arc<Node> {
        let node = json!({
            "metadata": { "name": name, "annotations": annotations },
            "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
            "status": { "addresses": [{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": address }] },
        });
        Arc::new(serde_json::from_value(node).expect("a node"))
    }

    #[test]
    fn a_node_sees_itself_and_the_others() {
        let all = json!({ CLUSTER_CIDR: "10.244.0.0/16", "x": "y", BACKEND: "vxlan" });
        let nodes = [
            node("a", "10.244.1.0/24", "10.0.0.1", all),
            node("b", "10.244.2.0/24", "10.0.0.2", json!({ TUNNEL_MAC: "0a:58:0a:f4:02:09" })),
            node("c", "10.244.3.0/24", "10.0.0.3", json!({ BACKEND: "host-gw" })),
            node("d", "10.244.4.0/24", "127.0.0.1", json!({})),
            node("e", "10.244.5.0/24", "10.0.0.5", json!({ TUNNEL_MAC: "here" })),
            Arc::new(Node::default()),
        ];
        let view = View::of(&nodes, "a", Backend::Vxlan);
        assert_eq!(view.subnet.map(|s| s.to_string()).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(view.cluster.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.0.0/16"]);
        assert_eq!(view.announced.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(view.others.len(), 1);
        assert_eq!(view.others[0].mac.map(|m| m.to_string()).as_deref(), Some("0a:58:0a:f4:02:09"));
        assert_eq!(view.skipped.len(), 2, "{:?}", view.skipped);
        let view = View::of(&nodes[1..2], "a", Backend::Vxlan);
        assert_eq!((view.subnet, view.announced), (None, None));
        assert_eq!(view.cluster[0].to_string(), "10.244.2.0/24");
    }
}
