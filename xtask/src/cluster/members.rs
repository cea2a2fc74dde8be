//! Nodes that come and go.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, bail};

use super::node::Node;
use super::state::{Cluster, Settings};
use super::{cli, images, join, load, names, network, require_root, start_plane, until};
use crate::progress::{say, step};
use crate::workspace::quiet;

/// Has one more node join.
pub fn add_node(name: &str) -> anyhow::Result<()> {
    require_root()?;
    let cluster = Cluster::open(name)?;
    let settings = cluster.settings()?;
    let _lock = cluster.lock()?;
    let image = images::busybox()?;
    let number = cluster.nodes().last().map_or(0, Node::number) + 1;
    if number > super::MOST {
        bail!("cluster {name}: its network has addresses for {} nodes", super::MOST);
    }
    let node = [Node::new(&cluster, number)];
    join(&cluster, &settings, &node)?;
    until_ready(&cluster, &settings, &node, "worker")?;
    load(&image, &node)
}

/// Kills all processes of a node.
pub fn stop_node(name: &str, node: &str) -> anyhow::Result<()> {
    require_root()?;
    let cluster = Cluster::open(name)?;
    let node = cluster.node(node)?;
    let _lock = cluster.lock()?;
    if !node.is_running() {
        say(&format!("  ✓ {} does not run", node.name()));
        return Ok(());
    }
    step(&format!("{} is dead", node.name()), || {
        node.kill()?;
        network::node_down(&node)
    })
}

/// Starts a node again.
pub fn start_node(name: &str, node: &str) -> anyhow::Result<()> {
    require_root()?;
    let cluster = Cluster::open(name)?;
    let (node, settings) = (cluster.node(node)?, cluster.settings()?);
    let _lock = cluster.lock()?;
    let nodes = [node.clone()];
    if node.is_running() {
        say(&format!("  ✓ {} runs already", node.name()));
    } else if node.is_control_plane() {
        step(&format!("{} with an API server", node.name()), || start_plane(&cluster, &settings, &node))?;
    } else {
        join(&cluster, &settings, &nodes)?;
    }
    until_ready(&cluster, &settings, &nodes, if node.is_control_plane() { "control-plane" } else { "worker" })
}

/// What those of `nodes` say to join that have not joined yet; nothing if there are none.
pub(super) fn join_words(
    cluster: &Cluster,
    settings: &Settings,
    nodes: &[Node],
) -> anyhow::Result<Option<String>> {
    if nodes.iter().all(Node::has_joined) {
        return Ok(None);
    }
    let planes: Vec<_> =
        cluster.nodes().into_iter().filter(|n| n.is_control_plane() && n.is_running()).collect();
    let Some(plane) = planes.first() else {
        bail!("no node of the control plane runs; try: cargo xtask cluster-start-node n1");
    };
    let mut words = None;
    until(plane, "minik8s-server", || {
        let create = ["token", "create", "--print-join", "--ttl", "1h", "--description", "cluster-up"];
        let printed = quiet(&mut cli(cluster, settings, &create))?;
        let printed = String::from_utf8(printed.stdout)?;
        let options = printed.trim().strip_prefix("minik8s node join ");
        words = Some(options.with_context(|| format!("expected how to join, found {printed:?}"))?.to_owned());
        Ok(true)
    })?;
    Ok(words)
}

/// Waits until the nodes are Ready, and says what they are for: a node may not say that of itself.
pub(super) fn until_ready(
    cluster: &Cluster,
    settings: &Settings,
    nodes: &[Node],
    role: &str,
) -> anyhow::Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let be = if nodes.len() == 1 { "is" } else { "are" };
    step(&format!("{} {be} Ready", names(nodes)), || {
        for node in nodes {
            let log =
                if settings.all_in_one && node.is_control_plane() { "minik8s-up" } else { "minik8s-node" };
            until(node, log, || {
                let out = quiet(&mut cli(cluster, settings, &["get", "node", &node.name(), "--no-headers"]))?;
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                Ok(text.split_whitespace().nth(1) == Some("Ready"))
            })?;
        }
        label(cluster, settings, nodes, role)
    })
}

fn label(cluster: &Cluster, settings: &Settings, nodes: &[Node], role: &str) -> anyhow::Result<()> {
    let manifests = nodes.iter().map(|node| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\n  labels: {{ node-role.kubernetes.io/{role}: \"\" }}\n---\n",
            node.name()
        )
    });
    let mut command = cli(cluster, settings, &["apply", "-f", "-"]);
    let mut apply = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    apply.stdin.take().context("a pipe")?.write_all(manifests.collect::<String>().as_bytes())?;
    let output = apply.wait_with_output()?;
    if !output.status.success() {
        bail!("cannot label nodes: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
