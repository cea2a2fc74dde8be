//! How pods end.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use minik8s_tests::{PATIENCE, Scene, container, exit_code};
use tokio::process::Child;

/// A pod whose container runs `script`.
fn pod(name: &str, grace: u32, script: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: {grace}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "{script}"]
{more}"#
    )
}

/// Everything that a followed container prints until it ends.
async fn rest(follower: Child) -> anyhow::Result<String> {
    let output = tokio::time::timeout(PATIENCE, follower.wait_with_output()).await;
    let output = output.context("logs -f goes on after the container has ended")??;
    ensure!(output.status.success(), "logs -f failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

pub(super) async fn hooks(scene: Scene) -> anyhow::Result<()> {
    let script = "trap 'echo term; exit 0' TERM; while :; do sleep 0.1; done";
    let hooks = r#"    lifecycle:
      postStart: { exec: { command: [sh, -c, "echo post-start > /proc/1/fd/1; touch /post-start"] } }
      preStop: { exec: { command: [sh, -c, "echo pre-stop > /proc/1/fd/1; sleep 1; echo stopped > /proc/1/fd/1"] } }
"#;
    scene.apply(&pod("hooked", 30, script, hooks)).await?;
    scene.until_ready("hooked").await?;
    scene.sh("hooked", "main", "ls /post-start").await?;
    let follower = scene.follow("hooked", "main")?;
    scene.minik8s(&["delete", "pod", "hooked"]).ok().await?;
    let printed = rest(follower).await?;
    ensure!(printed == "post-start\npre-stop\nstopped\nterm\n", "it printed {printed:?}");
    Ok(())
}

pub(super) async fn term_heard(scene: Scene) -> anyhow::Result<()> {
    let script = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done";
    scene.apply(&pod("polite", 60, script, "")).await?;
    scene.until_ready("polite").await?;
    let follower = scene.follow("polite", "main")?;
    let began = Instant::now();
    let deleted = scene.minik8s(&["delete", "pod", "polite"]).ok().await?;
    ensure!(deleted == "pod \"polite\" deleted\n", "{deleted:?}");
    ensure!(began.elapsed() < Duration::from_secs(30), "the grace period was sat out");
    let gone = scene.minik8s(&["get", "pod", "polite"]).run().await?;
    gone.failed_with(1, &["NotFound"])?;
    let printed = rest(follower).await?;
    ensure!(printed == "bye\n", "it printed {printed:?}");
    Ok(())
}

pub(super) async fn term_ignored(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&pod("stubborn", 3, "trap '' TERM; while :; do sleep 0.1; done", "")).await?;
    scene.until_ready("stubborn").await?;
    let began = Instant::now();
    let killed = scene.until("stubborn", "to have been killed", |p| exit_code(p, "main").is_some());
    let delete = scene.minik8s(&["delete", "pod", "stubborn"]);
    let (killed, deleted) = tokio::join!(killed, delete.ok());
    deleted?;
    ensure!(began.elapsed() >= Duration::from_secs(3), "the grace period was cut short");
    let code = exit_code(&killed?, "main").map(|(code, _)| code);
    ensure!(code == Some(137), "a container that was killed ended with {code:?}");
    Ok(())
}

pub(super) async fn deadline(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: late }
spec:
  activeDeadlineSeconds: 2
  terminationGracePeriodSeconds: 1
  containers:
  - { name: main, image: "localhost/busybox:1", command: [sleep, "3600"] }
"#;
    scene.apply(manifest).await?;
    let pod = scene.until_ended("late").await?;
    let status = pod.status.unwrap_or_default();
    let seen = (status.phase.as_deref(), status.reason.as_deref());
    ensure!(seen == (Some("Failed"), Some("DeadlineExceeded")), "{seen:?}");
    Ok(())
}

pub(super) async fn last_words(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: words }
spec:
  restartPolicy: Never
  containers:
  - name: file
    image: localhost/busybox:1
    command: [sh, -c, "echo out of cheese > /dev/termination-log; exit 1"]
  - name: output
    image: localhost/busybox:1
    terminationMessagePolicy: FallbackToLogsOnError
    command: [sh, -c, "echo redo from start; exit 1"]
"#;
    scene.apply(manifest).await?;
    let pod = scene.until_ended("words").await?;
    for (name, words) in [("file", "out of cheese\n"), ("output", "redo from start\n")] {
        let state = container(&pod, name).and_then(|c| c.state.clone()).and_then(|s| s.terminated);
        let message = state.and_then(|s| s.message);
        ensure!(message.as_deref() == Some(words), "{name}: {message:?}");
    }
    Ok(())
}
