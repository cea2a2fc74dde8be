//! What goes on in containers.

use anyhow::{Context, ensure};
use minik8s_tests::{PATIENCE, Scene, restarts};
use tokio::io::AsyncReadExt;

use crate::idle;

pub(super) async fn logs(scene: Scene) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: { name: talk }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: one
    image: localhost/busybox:1
    command:
    - sh
    - -c
    - |
      for i in 1 2 3; do echo line $i; done
      printf 'no end of line'
      until [ -e /go ]; do sleep 0.1; done
      echo; echo last
      until [ -e /end ]; do sleep 0.1; done
      exit 1
  - name: other
    image: localhost/busybox:1
    command: [sh, -c, "echo hello >&2; exec sleep 3600"]
---
apiVersion: v1
kind: Pod
metadata: { name: long }
spec:
  restartPolicy: Never
  containers:
  - { name: main, image: "localhost/busybox:1", command: [sh, -c, "yes 0123456789012345678901234567890123456789 | head -n 100000"] }
"#;
    scene.apply(manifest).await?;
    scene.until_ready("talk").await?;
    let mut follower = scene.follow("talk", "one")?;
    let mut output = follower.stdout.take().context("no output")?;
    let mut seen = String::new();
    let before = "line 1\nline 2\nline 3\n";
    let beginning = async {
        while !seen.starts_with(before) {
            let mut buffer = [0; 4096];
            let length = output.read(&mut buffer).await?;
            ensure!(length > 0, "the log ended after {seen:?}");
            seen.push_str(std::str::from_utf8(&buffer[..length])?);
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, beginning).await.context("no such beginning")??;
    let logs = |args: &[&str]| scene.minik8s(&[&["logs", "talk"], args].concat());
    let tail = logs(&["-c", "one", "--tail", "1"]).ok().await?;
    // A line without an end counts as soon as it is known.
    ensure!(tail == "line 3\n" || tail == "no end of line", "{tail:?}");
    let stamped = logs(&["-c", "other", "--timestamps"]).ok().await?;
    ensure!(stamped.starts_with("20") && stamped.ends_with("Z hello\n"), "{stamped}");
    logs(&[]).run().await?.failed_with(1, &["one", "other"])?;
    logs(&["-c", "third"]).run().await?.failed_with(1, &["third"])?;
    logs(&["-c", "one", "-p"]).run().await?.failed_with(1, &["previous terminated container"])?;
    scene.sh("talk", "one", "touch /go /end").await?;
    let rest = async {
        output.read_to_string(&mut seen).await?;
        anyhow::Ok(follower.wait().await?)
    };
    let status = tokio::time::timeout(PATIENCE, rest).await.context("following goes on after the end")??;
    ensure!(status.success() && seen == format!("{before}no end of line\nlast\n"), "{seen:?}");
    scene.until("talk", "to have restarted", |p| restarts(p, "one") == 1).await?;
    let previous = logs(&["-c", "one", "-p"]).ok().await?;
    ensure!(previous == seen, "{previous:?}");
    let by_kubectl = scene.kubectl(&["logs", "talk", "-c", "one", "--previous", "--tail", "1"]).ok().await?;
    ensure!(by_kubectl == "last\n", "{by_kubectl:?}");

    scene.until_ended("long").await?;
    let long = scene.logs("long", "main").await?;
    ensure!(long.lines().count() == 100_000 && long.len() == 4_100_000, "{} bytes", long.len());
    let tail = scene.minik8s(&["logs", "long", "--tail", "3"]).ok().await?;
    ensure!(tail.lines().count() == 3, "{tail}");
    Ok(())
}

/// The same through kubectl, whose older versions speak SPDY and whose newer ones WebSocket.
pub(super) async fn kubectl_exec(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&idle("web", "")).await?;
    scene.until_ready("web").await?;
    let exec = |args: &[&str]| scene.kubectl(&[&["exec"], args].concat());
    let ran = exec(&["web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).run().await?;
    ensure!((ran.code, ran.stdout.as_str()) == (7, "out\n") && ran.stderr.contains("err\n"), "{ran:?}");
    let text = "some\ntext\n".repeat(20_000);
    let ran = exec(&["-i", "web", "--", "cat"]).input(text.clone()).run().await?;
    ensure!(ran.code == 0 && ran.stdout == text, "{} of {} bytes", ran.stdout.len(), text.len());
    exec(&["nobody", "--", "true"]).run().await?.failed_with(1, &["nobody", "not found"])?;
    Ok(())
}

pub(super) async fn exec(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&idle("web", "")).await?;
    scene.until_ready("web").await?;
    let exec = |args: &[&str]| scene.minik8s(&[&["exec"], args].concat());
    let ran = exec(&["web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).run().await?;
    ensure!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()) == (7, "out\n", "err\n"), "{ran:?}");
    let text = "some\ntext\n".repeat(20_000);
    let ran = exec(&["-i", "web", "--", "cat"]).input(text.clone()).run().await?;
    ensure!(
        ran.code == 0 && ran.stdout == text,
        "{} of {} bytes, {:?}",
        ran.stdout.len(),
        text.len(),
        ran.stderr
    );
    let ran = exec(&["-i", "pod/web", "-c", "main", "--", "sh"]).input("hostname; exit 3\n").run().await?;
    ensure!((ran.code, ran.stdout.as_str()) == (3, "web\n"), "{ran:?}");
    // What does not read its input is not kept by it.
    let ran = exec(&["-i", "web", "--", "true"]).input(text).run().await?;
    ensure!(ran.code == 0, "{ran:?}");
    exec(&["web", "--", "/no/such"]).run().await?.failed_with(1, &["/no/such"])?;
    exec(&["web", "-c", "none", "--", "true"]).run().await?.failed_with(1, &["none"])?;
    exec(&["nobody", "--", "true"]).run().await?.failed_with(1, &["nobody", "not found"])?;
    Ok(())
}
