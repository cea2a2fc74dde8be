//! kubectl on our server.

use anyhow::{Context, ensure};
use minik8s_tests::Scene;

use crate::idle;

pub(super) async fn agrees(scene: Scene) -> anyhow::Result<()> {
    let printed = scene.kubectl(&["apply", "-f", "-"]).input(idle("web", "app: web")).ok().await?;
    ensure!(printed == "pod/web created\n", "{printed}");
    let pod = scene.until_ready("web").await?;
    let ip = pod.status.and_then(|s| s.pod_ip).context("a ready pod has an address")?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();

    let theirs = scene.kubectl(&["get", "pods", "-o", "wide"]).ok().await?;
    let lines: Vec<_> = theirs.lines().map(words).collect();
    ensure!(lines[0][..7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"], "{theirs}");
    ensure!(
        lines[1][..4] == ["web", "1/1", "Running", "0"] && lines[1][5..7] == [ip.as_str(), "n1"],
        "{theirs}"
    );
    let ours = scene.minik8s(&["get", "pods", "--no-headers"]).ok().await?;
    ensure!(words(&ours)[..4] == lines[1][..4], "{ours}");

    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text);
    let theirs = json(scene.kubectl(&["get", "pod", "web", "-o", "json"]).ok().await?)?;
    let ours = json(scene.minik8s(&["get", "pod", "web", "-o", "json"]).ok().await?)?;
    for part in ["metadata", "spec", "status"] {
        ensure!(theirs[part] == ours[part], "{part}: {} and {}", theirs[part], ours[part]);
    }
    let described = scene.kubectl(&["describe", "pod", "web"]).ok().await?;
    for part in
        ["Name:", "Status:", "Running", "Container ID:", "containerd://", "Ready:", "QoS Class:", "Scheduled"]
    {
        ensure!(described.contains(part), "no {part} in {described}");
    }
    let described = scene.kubectl(&["describe", "node", "n1"]).ok().await?;
    for part in ["Allocatable:", "KubeletReady", "Non-terminated Pods:", "web"] {
        ensure!(described.contains(part), "no {part} in {described}");
    }
    scene.apply(&idle("web", "app: web")).await?;
    let deleted = scene.kubectl(&["delete", "pod", "web"]).ok().await?;
    ensure!(deleted.contains("pod \"web\" deleted"), "{deleted}");
    scene.kubectl(&["get", "pod", "web"]).run().await?.failed_with(1, &["NotFound"])?;
    Ok(())
}

pub(super) async fn more(scene: Scene) -> anyhow::Result<()> {
    let kubectl = |args: &[&str]| scene.kubectl(args).ok();
    let explained = kubectl(&["explain", "pod.spec.containers.livenessProbe.httpGet"]).await?;
    ensure!(explained.contains("path") && explained.contains("scheme"), "{explained}");
    let resources = kubectl(&["api-resources"]).await?;
    ensure!(resources.lines().any(|l| l.starts_with("pods ") && l.contains("Pod")), "{resources}");
    let versions = kubectl(&["api-versions"]).await?;
    ensure!(versions.lines().any(|l| l == "v1"), "{versions}");

    kubectl(&["run", "made", "--image=localhost/busybox:1", "--command", "--", "sleep", "3600"]).await?;
    kubectl(&["wait", "--for=condition=Ready", "pod/made", "--timeout=90s"]).await?;
    kubectl(&["label", "pod", "made", "colour=green"]).await?;
    kubectl(&["annotate", "pod", "made", "note=x"]).await?;
    ensure!(kubectl(&["get", "pods", "-l", "colour=green", "-o", "name"]).await? == "pod/made\n");
    kubectl(&["label", "pod", "made", "colour-"]).await?;
    let shown = kubectl(&["get", "pod", "made", "-L", "run", "--show-labels"]).await?;
    ensure!(shown.contains("run=made") && !shown.contains("green"), "{shown}");
    let custom =
        kubectl(&["get", "pod", "made", "-o", "custom-columns=N:.metadata.name,P:.status.phase"]).await?;
    ensure!(custom.split_whitespace().eq(["N", "P", "made", "Running"]), "{custom}");
    kubectl(&["create", "configmap", "settings", "--from-literal=a=b"]).await?;
    kubectl(&[
        "patch",
        "configmap",
        "settings",
        "--type=json",
        "-p",
        r#"[{"op":"add","path":"/data/c","value":"d"}]"#,
    ])
    .await?;
    let data = kubectl(&["get", "configmap", "settings", "-o", "jsonpath={.data.a}{.data.c}"]).await?;
    ensure!(data == "bd", "{data}");
    ensure!(kubectl(&["auth", "can-i", "create", "pods"]).await? == "yes\n");
    kubectl(&["create", "deployment", "web", "--image=localhost/busybox:1", "--replicas=0"]).await?;
    kubectl(&["scale", "deployment", "web", "--replicas=2"]).await?;
    let replicas = kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]).await?;
    ensure!(replicas == "2", "{replicas}");
    kubectl(&["delete", "deployment", "web"]).await?;
    let events = kubectl(&["get", "events", "--field-selector", "involvedObject.name=made"]).await?;
    ensure!(events.contains("Scheduled") && events.contains("Started"), "{events}");
    kubectl(&["delete", "pod", "made", "--now"]).await?;
    Ok(())
}
