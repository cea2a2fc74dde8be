//! Limits.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use minik8s_tests::{Scene, exit_code};

pub(super) async fn memory(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: hog }
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: localhost/busybox:1
    # It looks for the last line of what has no end.
    command: [tail, /dev/zero]
    resources: { limits: { memory: 128Mi } }
  - name: modest
    image: localhost/busybox:1
    command: [sleep, "3600"]
    resources: { limits: { memory: 128Mi } }
"#;
    scene.apply(manifest).await?;
    let pod = scene.until("hog", "to have been ended", |p| exit_code(p, "main").is_some()).await?;
    let end = exit_code(&pod, "main");
    ensure!(end == Some((137, "OOMKilled")), "{end:?}");
    // The neighbour in the pod has a limit of its own.
    scene.running("hog", "modest").await?;
    Ok(())
}

/// How long to measure.
const WINDOW: Duration = Duration::from_secs(4);
/// Other programs of the machine may leave less than the limit; never more.
const WINDOWS: usize = 6;

pub(super) async fn cpu(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: busy }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "while :; do :; done"]
    resources: { limits: { cpu: 500m } }
"#;
    scene.apply(manifest).await?;
    scene.until_ready("busy").await?;
    let pid = scene.running("busy", "main").await?.pid;
    let mut shares = Vec::new();
    for _ in 0..WINDOWS {
        let (began, before) = (Instant::now(), ticks(&scene, pid).await?);
        tokio::time::sleep(WINDOW).await;
        let (elapsed, used) = (began.elapsed(), ticks(&scene, pid).await? - before);
        // A tick is a hundredth of a second, as everywhere on Linux.
        let share = used / 100.0 / elapsed.as_secs_f64();
        ensure!(share <= 0.55, "it had {share:.2} CPUs, more than the limit of 0.5");
        if share >= 0.45 {
            return Ok(());
        }
        shares.push(share);
    }
    bail!("it never had its 0.5 CPUs, only {shares:.2?}")
}

/// The processor time that a process of the node has had.
async fn ticks(scene: &Scene, pid: u32) -> anyhow::Result<f64> {
    let stat = scene.cluster().node_sh(&format!("cat /proc/{pid}/stat")).await?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no process")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<f64>()? + fields[12].parse::<f64>()?)
}
