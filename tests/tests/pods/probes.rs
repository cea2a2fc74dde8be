//! Probes.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use minik8s_tests::{Scene, condition, container, is_ready, restarts};

pub(super) async fn liveness(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: alive }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "touch /alive; exec sleep 3600"]
    livenessProbe:
      exec: { command: [cat, /alive] }
      periodSeconds: 1
      failureThreshold: 2
"#;
    scene.apply(manifest).await?;
    scene.until_ready("alive").await?;
    let before = scene.running("alive", "main").await?;
    scene.sh("alive", "main", "rm /alive").await?;
    // The new container has a file system of its own, with the file, and is well.
    scene.until("alive", "to have been restarted", |p| restarts(p, "main") == 1 && is_ready(p)).await?;
    ensure!(scene.running("alive", "main").await?.id != before.id, "the container is the same");
    let events = scene.minik8s(&["describe", "pod", "alive"]).ok().await?;
    ensure!(events.contains("Unhealthy") && events.contains("Killing"), "{events}");
    Ok(())
}

pub(super) async fn readiness(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  containers:
  - name: main
    image: localhost/busybox:1
    command: [httpd, -f, -p, "8080", -h, /www]
    readinessProbe:
      httpGet: { path: /ready, port: http }
      periodSeconds: 1
      failureThreshold: 1
    ports: [{ name: http, containerPort: 8080 }]
    volumeMounts: [{ name: www, mountPath: /www }]
  - name: tcp
    image: localhost/busybox:1
    command: [httpd, -f, -p, "9090", -h, /www]
    readinessProbe: { tcpSocket: { port: 9090 }, periodSeconds: 1 }
    volumeMounts: [{ name: www, mountPath: /www }]
  volumes: [{ name: www, emptyDir: {} }]
"#;
    scene.apply(manifest).await?;
    let other_ready = |p: &Pod| container(p, "tcp").is_some_and(|c| c.ready) && !is_ready(p);
    scene.until("web", "to have one container ready", other_ready).await?;
    let web = scene.minik8s(&["get", "pod", "web", "--no-headers"]).ok().await?;
    ensure!(web.split_whitespace().nth(1) == Some("1/2"), "{web}");
    scene.sh("web", "tcp", "touch /www/ready").await?;
    scene.until("web", "to be ready", |p| is_ready(p) && condition(p, "ContainersReady")).await?;
    scene.sh("web", "tcp", "rm /www/ready").await?;
    let pod = scene.until("web", "not to be ready any more", |p| !is_ready(p)).await?;
    ensure!(restarts(&pod, "main") == 0, "readiness restarts nothing");
    scene.sh("web", "tcp", "touch /www/ready").await?;
    scene.until_ready("web").await?;
    Ok(())
}

pub(super) async fn startup(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: slow }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "sleep 4; touch /started; sleep 3600"]
    startupProbe: { exec: { command: [cat, /started] }, periodSeconds: 1, failureThreshold: 60 }
    livenessProbe: { exec: { command: [cat, /started] }, periodSeconds: 1, failureThreshold: 1 }
  - name: never
    image: localhost/busybox:1
    command: [sleep, "3600"]
    startupProbe: { exec: { command: ["false"] }, periodSeconds: 1, failureThreshold: 2 }
"#;
    scene.apply(manifest).await?;
    let unstarted = |p: &Pod| container(p, "main").is_some_and(|c| c.started == Some(false) && !c.ready);
    scene.until("slow", "to be starting", |p| unstarted(p) && running(p, "main")).await?;
    // The liveness probe would have failed at once.
    let started = |p: &Pod| container(p, "main").is_some_and(|c| c.started == Some(true) && c.ready);
    let pod = scene.until("slow", "to have started", started).await?;
    ensure!(restarts(&pod, "main") == 0, "{} restarts", restarts(&pod, "main"));
    scene.until("slow", "to have given up on the other container", |p| restarts(p, "never") >= 1).await?;
    Ok(())
}

fn running(pod: &Pod, name: &str) -> bool {
    container(pod, name).and_then(|c| c.state.as_ref()).is_some_and(|s| s.running.is_some())
}
