//! Who reaches whom.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use minik8s_tests::Scene;

use super::probe;

/// A pod that does nothing, on that node.
pub(super) fn idle(name: &str, node: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: {name} }} }}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: main, image: "localhost/busybox:1", command: [sleep, "3600"] }}]
---
"#
    )
}

/// Where a pod is in the network.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) uid: String,
    pub(super) ip: String,
}

impl Place {
    pub(super) fn of(pod: &Pod) -> anyhow::Result<Self> {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).context("a node")?;
        let ip = pod.status.as_ref().and_then(|s| s.pod_ip.clone()).context("an address")?;
        let (name, uid) = (pod.metadata.name.clone(), pod.metadata.uid.clone());
        Ok(Self { name: name.context("a name")?, node, uid: uid.context("a uid")?, ip })
    }
}

/// Two pods on each of three nodes: TCP, 100 connections at once, UDP in datagrams of all sizes, and ping, from each to each.
pub(super) async fn everywhere(scene: Scene) -> anyhow::Result<()> {
    let names: Vec<(String, String)> =
        (1..=3).flat_map(|n| ["a", "b"].map(|which| (format!("{which}{n}"), format!("n{n}")))).collect();
    scene.apply(&names.iter().map(|(name, node)| idle(name, node)).collect::<String>()).await?;
    let mut places = Vec::new();
    for (name, _) in &names {
        places.push(Place::of(&scene.until_ready(name).await?)?);
    }
    let mut addresses: Vec<&str> = places.iter().map(|p| p.ip.as_str()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    ensure!(addresses.len() == names.len(), "two pods have one address: {addresses:?}");
    let mut servers = Vec::new();
    for place in &places {
        servers.push(probe::server(scene.cluster(), &place.node, &place.uid).await?);
    }
    for from in places.iter().filter(|p| p.name.starts_with('a')) {
        let words: Vec<&str> = std::iter::once("ask").chain(addresses.iter().copied()).collect();
        let asking = probe::in_pod(scene.cluster(), &from.node, &from.uid, &words)?;
        asking.ok().await.with_context(|| format!("from {} on {}", from.name, from.node))?;
        // The largest that fits into one packet of the link, and must not be split.
        for to in &places {
            scene.sh(&from.name, "main", &format!("ping -c 2 -i 0.2 -w 10 -s 1000 {}", to.ip)).await?;
        }
    }
    // And from the nodes themselves.
    for node in ["n1", "n2", "n3"] {
        for to in &places {
            scene.cluster().on(node, &["busybox", "ping", "-c", "1", "-w", "10", &to.ip]).ok().await?;
        }
    }
    Ok(())
}
