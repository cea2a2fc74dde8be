//! What a pod does on a node.

use std::process::ExitCode;

use minik8s_tests::{Scene, Suite, container, restarts, waiting_reason};

fn main() -> ExitCode {
    Suite::new().case("containers of a pod share localhost and volumes", two_containers).run()
}

/// Two containers: one serves what the other writes.
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

async fn two_containers(scene: Scene) -> anyhow::Result<()> {
    scene.apply(TWO).await?;
    scene.until_ready("two").await?;
    let page = scene.sh("two", "writer", "wget -qO- http://localhost:8080/").await?;
    anyhow::ensure!(page == "from the writer\n", "{page}");
    let (server, writer) = (scene.running("two", "server").await?, scene.running("two", "writer").await?);
    // The first restart is at once, those after the next crash wait.
    scene.kill(&writer).await?;
    scene
        .until("two", "to have restarted the writer", |p| {
            restarts(p, "writer") == 1 && container(p, "writer").is_some_and(|c| c.ready)
        })
        .await?;
    scene.kill(&scene.running("two", "writer").await?).await?;
    scene
        .until("two", "to hold the writer back", |p| waiting_reason(p, "writer") == Some("CrashLoopBackOff"))
        .await?;
    scene
        .until("two", "to have restarted the writer again", |p| {
            restarts(p, "writer") == 2 && container(p, "writer").is_some_and(|c| c.ready)
        })
        .await?;
    anyhow::ensure!(scene.running("two", "server").await? == server, "the other container was touched");
    Ok(())
}
