//! The wires between nodes.

use anyhow::Context;

use super::node::Node;
use super::state::Cluster;
use crate::workspace::{command, quiet};

const BRIDGE: &str = "br0";
/// The network that nodes are on, the same in every cluster: clusters do not see one another.
const PREFIX: &str = "10.100.0";

/// The address of a node.
pub(super) fn address(node: &Node) -> String {
    format!("{PREFIX}.{}", 10 + node.number())
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    quiet(&mut command("ip", args)).map(drop)
}

fn exists(namespace: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace).exists()
}

/// Makes the bridge, if there is none.
pub(super) fn switch_up(cluster: &Cluster) -> anyhow::Result<()> {
    let switch = cluster.switch();
    if exists(&switch) {
        return Ok(());
    }
    ip(&["netns", "add", &switch])?;
    ip(&["-n", &switch, "link", "set", "lo", "up"])?;
    ip(&["-n", &switch, "link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["-n", &switch, "link", "set", BRIDGE, "up"])
}

/// Makes the node's network namespace and its wire, afresh.
pub(super) fn node_up(cluster: &Cluster, node: &Node) -> anyhow::Result<()> {
    let (switch, namespace) = (cluster.switch(), node.network_namespace());
    node_down(node)?;
    let port = format!("p{}", node.number());
    let address = format!("{}/24", address(node));
    ip(&["netns", "add", &namespace])?;
    ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
    // A wire of an earlier life goes with its other end, but not at once.
    let _ = ip(&["-n", &switch, "link", "del", &port]);
    ip(&["-n", &namespace, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch])?;
    ip(&["-n", &switch, "link", "set", &port, "master", BRIDGE, "up"])?;
    ip(&["-n", &namespace, "addr", "add", &address, "dev", "eth0"])?;
    ip(&["-n", &namespace, "link", "set", "eth0", "up"])
}

/// Takes the node off the network, as a power cut would: what is left of its namespace answers nobody any more.
pub(super) fn node_down(node: &Node) -> anyhow::Result<()> {
    let namespace = node.network_namespace();
    if exists(&namespace) {
        ip(&["netns", "del", &namespace])?;
    }
    Ok(())
}

/// Removes all network namespaces of the cluster.
pub(super) fn down(cluster: &Cluster) -> anyhow::Result<()> {
    for namespace in cluster.nodes().iter().map(Node::network_namespace).chain([cluster.switch()]) {
        if exists(&namespace) {
            ip(&["netns", "del", &namespace]).context("cannot remove a network namespace")?;
        }
    }
    Ok(())
}
