//! A pod's network.

use anyhow::{Context, ensure};
use minik8s_tests::Scene;

pub(super) async fn pods_reach_one_another(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: server }
spec:
  hostname: box
  subdomain: boxes
  hostAliases: [{ ip: 10.9.8.7, hostnames: [alias] }]
  dnsPolicy: None
  dnsConfig: { nameservers: [192.0.2.53], searches: [example.test], options: [{ name: ndots, value: "3" }] }
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www"]
---
apiVersion: v1
kind: Pod
metadata: { name: client }
spec:
  containers: [{ name: main, image: "localhost/busybox:1", command: [sleep, "3600"] }]
"#;
    scene.apply(manifest).await?;
    let server = scene.until_ready("server").await?;
    let client = scene.until_ready("client").await?;
    let address = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.status.clone().and_then(|s| s.pod_ip).context("a ready pod has an address")
    };
    let (server_ip, client_ip) = (address(&server)?, address(&client)?);
    ensure!(server_ip != client_ip, "both have {server_ip}");
    let page = scene.sh("client", "main", &format!("wget -qO- http://{server_ip}/")).await?;
    ensure!(page == "served\n", "another pod gets {page:?}");
    let page = scene.cluster().node_sh(&format!("busybox wget -qO- http://{server_ip}/")).await?;
    ensure!(page == "served\n", "the node gets {page:?}");
    let own = scene.sh("client", "main", "ip -o -4 addr show eth0").await?;
    ensure!(own.contains(&client_ip), "{client_ip} is not in {own}");
    let hosts = scene.sh("server", "main", "hostname; cat /etc/hosts /etc/resolv.conf").await?;
    for part in
        ["box\n", "10.9.8.7\talias", "nameserver 192.0.2.53", "search example.test", "options ndots:3"]
    {
        ensure!(hosts.contains(part), "no {part:?} in {hosts}");
    }
    ensure!(hosts.lines().any(|l| l.starts_with(&server_ip) && l.contains("box")), "{hosts}");
    Ok(())
}

pub(super) async fn host_network(scene: Scene) -> anyhow::Result<()> {
    let manifest = |name: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  hostNetwork: true
  containers:
  - name: main
    image: localhost/busybox:1
    command: [httpd, -f, -p, "18080"]
    ports: [{{ containerPort: 18080 }}]
"#
        )
    };
    scene.apply(&manifest("first")).await?;
    let first = scene.until_ready("first").await?;
    let status = first.status.unwrap_or_default();
    ensure!(status.pod_ip.is_some() && status.pod_ip == status.host_ip, "{:?}", status.pod_ip);
    let name = scene.sh("first", "main", "hostname").await?;
    ensure!(name == "n1\n", "its host name is {name:?}");
    scene.cluster().node_sh("busybox nc -w 1 127.0.0.1 18080 < /dev/null").await?;
    // Two cannot have one port: the second has no place until the first is gone.
    scene.apply(&manifest("second")).await?;
    scene.until("second", "to have no place", unscheduled).await?;
    scene.minik8s(&["delete", "pod", "first", "--now"]).ok().await?;
    scene.until_ready("second").await?;
    Ok(())
}

fn unscheduled(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "PodScheduled" && c.status == "False")
}
