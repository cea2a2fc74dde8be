//! Pods that cannot run, and whether they say why.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use minik8s_tests::{Scene, container, exit_code, waiting_reason};

pub(super) async fn image(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: absent }
spec:
  containers:
  - { name: main, image: "127.0.0.1:1/absent:1" }
  - { name: local, image: "localhost/absent:1", imagePullPolicy: Never }
  - { name: bad, image: "NOT an image" }
"#;
    scene.apply(manifest).await?;
    let waits =
        |p: &Pod, name: &str, reasons: &[&str]| waiting_reason(p, name).is_some_and(|r| reasons.contains(&r));
    let pulled = |p: &Pod| waits(p, "main", &["ErrImagePull"]);
    let pod = scene.until("absent", "to fail to pull", pulled).await?;
    let waiting = container(&pod, "main").and_then(|c| c.state.clone()).and_then(|s| s.waiting);
    let message = waiting.and_then(|w| w.message).context("no reason why")?;
    ensure!(message.contains("127.0.0.1:1/absent:1"), "{message}");
    let pod = scene
        .until("absent", "to wait before it pulls again", |p| waits(p, "main", &["ImagePullBackOff"]))
        .await?;
    ensure!(pod.status.and_then(|s| s.phase).as_deref() == Some("Pending"), "the phase is Pending");
    scene.until("absent", "not to pull", |p| waits(p, "local", &["ErrImageNeverPull"])).await?;
    scene.until("absent", "to know a bad name", |p| waits(p, "bad", &["InvalidImageName"])).await?;
    let events = scene.minik8s(&["describe", "pod", "absent"]).ok().await?;
    ensure!(events.contains("Failed to pull image") && events.contains("BackOff"), "{events}");
    let table = scene.minik8s(&["get", "pod", "absent", "--no-headers"]).ok().await?;
    ensure!(table.split_whitespace().nth(1) == Some("0/3"), "{table}");
    scene.minik8s(&["delete", "pod", "absent"]).ok().await?;
    Ok(())
}

pub(super) async fn command(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: once }
spec:
  restartPolicy: Never
  containers: [{ name: main, image: "localhost/busybox:1", command: [/no/such/program] }]
---
apiVersion: v1
kind: Pod
metadata: { name: again }
spec:
  containers: [{ name: main, image: "localhost/busybox:1", command: [/no/such/program] }]
"#;
    scene.apply(manifest).await?;
    let pod = scene.until_ended("once").await?;
    let (code, reason) = exit_code(&pod, "main").context("it has ended")?;
    ensure!((code, reason) == (128, "StartError"), "{code} {reason}");
    let end = container(&pod, "main").and_then(|c| c.state.clone()).and_then(|s| s.terminated);
    let message = end.and_then(|e| e.message).unwrap_or_default();
    ensure!(message.contains("/no/such/program"), "{message}");
    let reasons = ["RunContainerError", "CrashLoopBackOff"];
    let told = |p: &Pod| waiting_reason(p, "main").is_some_and(|r| reasons.contains(&r));
    scene.until("again", "to say that it cannot run", told).await?;
    let described = scene.minik8s(&["describe", "pod", "again"]).ok().await?;
    ensure!(described.contains("/no/such/program: no such file or directory"), "{described}");
    Ok(())
}

pub(super) async fn no_node(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: picky }
spec:
  nodeSelector: { disk: gold }
  containers: [{ name: main, image: "localhost/busybox:1", command: [sleep, "3600"] }]
---
apiVersion: v1
kind: Pod
metadata: { name: greedy }
spec:
  containers:
  - { name: main, image: "localhost/busybox:1", command: [sleep, "3600"], resources: { requests: { cpu: "1000" } } }
"#;
    scene.apply(manifest).await?;
    for (name, words) in [("picky", "0/1 nodes are available"), ("greedy", "Insufficient cpu")] {
        let pod = scene.until(name, "to have no place", |p| unscheduled(p).is_some()).await?;
        let message = unscheduled(&pod).unwrap_or_default();
        ensure!(message.contains(words), "{name}: {message}");
    }
    let label = |value: &str| scene.kubectl(&["label", "node", "n1", value]).ok();
    label("disk=gold").await?;
    let ready = scene.until_ready("picky").await;
    label("disk-").await?;
    ready.map(drop)
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    (condition.reason.as_deref() == Some("Unschedulable"))
        .then(|| condition.message.clone().unwrap_or_default())
}
