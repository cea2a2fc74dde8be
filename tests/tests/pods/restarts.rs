//! Containers that end and are started again.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use minik8s_tests::{Scene, container, exit_code, is_ready, restarts, waiting_reason};

/// One serves what the other writes.
const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: two }
spec:
  containers:
  - name: server
    image: localhost/busybox:1
    command: [httpd, -f, -p, "8080", -h, /www]
    volumeMounts: [{ name: www, mountPath: /www }]
  - name: writer
    image: localhost/busybox:1
    command: [sh, -c, "echo from the writer > /data/index.html; exec sleep 3600"]
    volumeMounts: [{ name: www, mountPath: /data }]
  volumes: [{ name: www, emptyDir: {} }]
"#;

pub(super) async fn one_of_two(scene: Scene) -> anyhow::Result<()> {
    scene.apply(TWO).await?;
    scene.until_ready("two").await?;
    let page = scene.sh("two", "writer", "wget -qO- http://localhost:8080/").await?;
    ensure!(page == "from the writer\n", "the page is {page:?}");
    let server = scene.running("two", "server").await?;

    let first = scene.running("two", "writer").await?;
    scene.kill(&first).await?;
    let pod = scene.until("two", "to be ready again", |p| restarts(p, "writer") == 1 && is_ready(p)).await?;
    let end = last(&pod, "writer")?;
    ensure!(end.exit_code == 137, "a killed container's exit code is {}", end.exit_code);
    ensure!(scene.running("two", "writer").await?.id != first.id, "a restarted container is a new one");

    scene.kill(&scene.running("two", "writer").await?).await?;
    scene
        .until("two", "to hold the writer back", |p| waiting_reason(p, "writer") == Some("CrashLoopBackOff"))
        .await?;
    scene.until("two", "to be ready once more", |p| restarts(p, "writer") == 2 && is_ready(p)).await?;
    ensure!(scene.running("two", "server").await? == server, "the other container was touched");
    Ok(())
}

pub(super) async fn crash_loop(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: crash }
spec:
  containers:
  - { name: main, image: "localhost/busybox:1", command: [sh, -c, "sleep 2; exit 3"] }
"#;
    scene.apply(manifest).await?;
    let mut delays = Vec::new();
    for count in 1..=3 {
        let runs = |p: &Pod| restarts(p, "main") == count && state(p).is_some_and(|s| s.running.is_some());
        let pod = scene.until("crash", &format!("to run for the {count}. time again"), runs).await?;
        let end = last(&pod, "main")?;
        ensure!((end.exit_code, end.reason.as_deref()) == (3, Some("Error")), "the end was {end:?}");
        let finished = end.finished_at.as_ref().context("no end")?;
        let running = state(&pod).and_then(|s| s.running.as_ref()).context("it runs")?;
        let started = running.started_at.as_ref().context("no start")?;
        delays.push(started.0.as_second() - finished.0.as_second());
        if count > 1 {
            continue;
        }
        let held = |p: &Pod| waiting_reason(p, "main") == Some("CrashLoopBackOff");
        let pod = scene.until("crash", "to be held back", held).await?;
        let table = scene.minik8s(&["get", "pod", "crash"]).ok().await?;
        ensure!(table.contains("CrashLoopBackOff"), "{table}");
        ensure!(pod.status.and_then(|s| s.phase).as_deref() == Some("Running"), "the pod's phase is Running");
    }
    // Times are in whole seconds.
    ensure!(
        delays[0] <= 9 && delays[1] >= 9 && delays[2] >= 19,
        "delays between crash and restart: {delays:?} s"
    );
    Ok(())
}

fn state(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::ContainerState> {
    container(pod, "main")?.state.as_ref()
}

fn last(pod: &Pod, name: &str) -> anyhow::Result<k8s_openapi::api::core::v1::ContainerStateTerminated> {
    let state = container(pod, name).and_then(|c| c.last_state.clone());
    state.and_then(|s| s.terminated).context("no word about the container's last run")
}

pub(super) async fn policies(scene: Scene) -> anyhow::Result<()> {
    let pod = |name: &str, policy: &str, script: &str| {
        format!(
            r#"
---
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  restartPolicy: {policy}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "{script}"]
    volumeMounts: [{{ name: kept, mountPath: /kept }}]
  volumes: [{{ name: kept, emptyDir: {{}} }}]
"#
        )
    };
    let manifest = [
        pod("well", "Never", "exit 0"),
        pod("badly", "Never", "exit 2"),
        pod("again", "OnFailure", "[ -e /kept/once ] && exit 0; touch /kept/once; exit 4"),
    ];
    scene.apply(&manifest.concat()).await?;
    for (name, phase, end, count) in [
        ("well", "Succeeded", (0, "Completed"), 0),
        ("badly", "Failed", (2, "Error"), 0),
        ("again", "Succeeded", (0, "Completed"), 1),
    ] {
        let pod = scene.until_ended(name).await?;
        let seen = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        ensure!(seen == Some(phase), "{name}: {seen:?} instead of {phase}");
        ensure!(exit_code(&pod, "main") == Some(end), "{name}: {:?}", exit_code(&pod, "main"));
        ensure!(restarts(&pod, "main") == count, "{name}: {} restarts", restarts(&pod, "main"));
        ensure!(!is_ready(&pod), "{name} has ended and is ready");
    }
    let table = scene.minik8s(&["get", "pods"]).ok().await?;
    let shown = |name: &str, status: &str| {
        table.lines().any(|l| l.split_whitespace().take(3).eq([name, "0/1", status]))
    };
    ensure!(shown("well", "Completed") && shown("badly", "Error"), "{table}");
    Ok(())
}

pub(super) async fn init_containers(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: ordered }
spec:
  restartPolicy: Never
  initContainers:
  - name: first
    image: localhost/busybox:1
    command: [sh, -c, "sleep 1; echo first >> /log/order"]
    volumeMounts: [{ name: log, mountPath: /log }]
  - name: beside
    image: localhost/busybox:1
    restartPolicy: Always
    command: [sh, -c, "echo beside >> /log/order; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    startupProbe: { exec: { command: [grep, beside, /log/order] }, periodSeconds: 1 }
    volumeMounts: [{ name: log, mountPath: /log }]
  - name: second
    image: localhost/busybox:1
    command: [sh, -c, "echo second >> /log/order"]
    volumeMounts: [{ name: log, mountPath: /log }]
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "echo main >> /log/order; until [ -e /log/go ]; do sleep 0.1; done; cat /log/order"]
    volumeMounts: [{ name: log, mountPath: /log }]
  volumes: [{ name: log, emptyDir: {} }]
"#;
    scene.apply(manifest).await?;
    let initializing = |p: &Pod| waiting_reason(p, "main") == Some("PodInitializing");
    scene.until("ordered", "to be initializing", initializing).await?;
    scene.until_ready("ordered").await?;
    let order = scene.sh("ordered", "beside", "cat /log/order; touch /log/go").await?;
    ensure!(order == "first\nbeside\nsecond\nmain\n", "the order was {order:?}");
    // The sidecar does not keep the pod from ending, and ends with it.
    let pod = scene.until_ended("ordered").await?;
    ensure!(pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded"), "{:?}", pod.status);
    for name in ["first", "second", "main", "beside"] {
        let end = container(&pod, name).and_then(ended);
        ensure!(end == Some(0), "{name} ended with {end:?}");
    }
    let logs = scene.logs("ordered", "main").await?;
    ensure!(logs == order, "the output of a container that has ended: {logs:?}");
    Ok(())
}

fn ended(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}
