//! NetworkPolicies, on nodes that hold their pods to them.

use anyhow::{Context, ensure};
use minik8s_tests::{PATIENCE, Scene};
use tokio::time::Instant;

use super::reach::{Place, idle};

const POLICY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-friends }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress]
  ingress: [{ from: [{ podSelector: { matchLabels: { app: friend } } }], ports: [{ port: 8080 }] }]
"#;

const GRANT: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: network-policy }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:minik8s:network-policy" }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes" }]
"#;

async fn reaches(scene: &Scene, from: &str, to: &str) -> anyhow::Result<bool> {
    let ask = format!("nc -w 2 {to} 8080 < /dev/null");
    Ok(scene.exec(from, "main", &["sh", "-c", &ask]).run().await?.code == 0)
}

/// Waits until who reaches the server is as it should be.
async fn until(scene: &Scene, server: &str, wanted: [(&str, bool); 3]) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = Vec::new();
        for (from, _) in wanted {
            found.push((from, reaches(scene, from, server).await?));
        }
        if found == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it should be {wanted:?}, and is {found:?}");
    }
}

pub(super) async fn hold(scene: Scene) -> anyhow::Result<()> {
    scene.apply(GRANT).await?;
    let server = r#"
apiVersion: v1
kind: Pod
metadata: { name: server, labels: { app: server } }
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{ name: main, image: "localhost/busybox:1", command: [httpd, -f, -p, "8080"] }]
---
"#;
    // One beside it, and two on other nodes.
    let others = [("friend", "n2"), ("near", "n1"), ("far", "n3")];
    let others: String = others.iter().map(|(name, node)| idle(name, node)).collect();
    scene.apply(&format!("{server}{others}")).await?;
    let ip = Place::of(&scene.until_ready("server").await?).context("the server")?.ip;
    for name in ["friend", "near", "far"] {
        scene.until_ready(name).await?;
    }
    until(&scene, &ip, [("friend", true), ("near", true), ("far", true)]).await?;
    scene.apply(POLICY).await?;
    until(&scene, &ip, [("friend", true), ("near", false), ("far", false)]).await?;
    // Who is a friend is a matter of labels.
    scene.kubectl(&["label", "pod", "far", "app=friend", "--overwrite"]).ok().await?;
    scene.kubectl(&["label", "pod", "friend", "app=none", "--overwrite"]).ok().await?;
    until(&scene, &ip, [("friend", false), ("near", false), ("far", true)]).await?;
    scene.minik8s(&["delete", "networkpolicy", "only-friends"]).ok().await?;
    until(&scene, &ip, [("friend", true), ("near", true), ("far", true)]).await?;
    scene.minik8s(&["delete", "clusterrolebinding", "network-policy"]).ok().await?;
    Ok(())
}
