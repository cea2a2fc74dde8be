//! What is on a node: everything of which a pod has some while it lives and nothing afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use crate::Cluster;

/// Lists one thing a line: what kind it is, then which. Of a tunnel, what it knows of other nodes counts too.
const SCRIPT: &str = r#"
each() { what=$1; shift; "$@" 2>/dev/null | while read -r line; do echo "$what $line"; done; }
each container ctr -n k8s.io containers ls -q
each task ctr -n k8s.io tasks ls -q
each snapshot sh -c "ctr -n k8s.io snapshots ls | awk '\$NF == \"Active\" { print \$1 }'"
each lease ctr -n k8s.io leases ls -q
each network-namespace ls /run/netns
each link sh -c "ip -o link | cut -d: -f2 | cut -d@ -f1"
each cgroup sh -c "find /sys/fs/cgroup -type d -path '*/kubepods/*/pod*'; find /sys/fs/cgroup -type d -path '*/kubepods/pod*'"
each pod-folder ls /var/lib/minik8s/node/pods
each container-folder ls /var/lib/minik8s/node/containerd/containers
each address sh -c "ls /var/lib/minik8s/node/network | grep '[.]'"
each log-folder ls /var/log/pods
each mount sh -c "awk '{ print \$2 }' /proc/mounts | grep -E '/(pods|netns|io.containerd.runtime.v2.task)/'"
each shim sh -c "ps -e -o comm= | grep containerd-shim"
each nft sh -c "nft list ruleset"
# Whether a link is up says who uses it, not that it is there.
each route sh -c "ip route | sed 's/ linkdown//'"
each forwarding sh -c "bridge fdb show dev mk8s-vxlan"
"#;

/// How long a node may take to clean up behind a pod.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState(BTreeMap<String, BTreeSet<String>>);

impl NodeState {
    /// Looks at the first node.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::of_node(cluster, "n1").await
    }

    /// Looks at the node of that name.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn of_node(cluster: &Cluster, node: &str) -> anyhow::Result<Self> {
        let mut state: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in cluster.on(node, &["sh", "-c", SCRIPT]).ok().await?.lines() {
            let (what, which) = line.split_once(' ').unwrap_or((line, ""));
            state.entry(what.to_owned()).or_default().insert(which.to_owned());
        }
        Ok(Self(state))
    }

    /// How many there are of a kind of thing, such as `container`.
    pub fn count(&self, what: &str) -> usize {
        self.0.get(what).map_or(0, BTreeSet::len)
    }

    /// What is in `self` and was not in `before`, a line each.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let nothing = BTreeSet::new();
        let of = |(what, now): (&String, &BTreeSet<String>)| {
            let then = before.0.get(what).unwrap_or(&nothing);
            now.difference(then).map(|which| format!("{what} {which}")).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Waits until a node has nothing that it did not have before, but for what begins with one of `stays`.
    ///
    /// # Errors
    /// It still has after half a minute; all of it is in the error.
    pub async fn back_to(before: &Self, cluster: &Cluster, node: &str, stays: &[&str]) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut left = Self::of_node(cluster, node).await?.beyond(before);
            left.retain(|line| !stays.iter().any(|beginning| line.starts_with(beginning)));
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("left behind on the node:\n  {}", left.join("\n  "));
            }
            // The kernel tells nobody that a folder or a link is gone.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
