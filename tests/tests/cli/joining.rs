//! Machines that join.

use anyhow::{Context, ensure};
use minik8s_tests::{Ran, Scene};

/// A command that joins, as `minik8s token create --print-join` prints it, run on the node with more arguments.
async fn join(scene: &Scene, command: &str, more: &[&str]) -> anyhow::Result<Ran> {
    let program = scene.cluster().program();
    let program = program.to_str().context("a path in UTF-8")?;
    let words = command.split_whitespace().skip(1).chain(["--no-run"]).chain(more.iter().copied());
    scene.cluster().node(&[&[program][..], &words.collect::<Vec<_>>()].concat()).run().await
}

pub(super) async fn joins(scene: Scene) -> anyhow::Result<()> {
    let name = format!("{}-w", scene.namespace());
    let dir = format!("/run/{name}");
    let manifest = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{disk: ssd}}}}\n\
         spec: {{taints: [{{key: new, effect: NoSchedule}}]}}\n"
    );
    scene
        .cluster()
        .node(&["sh", "-c", &format!("mkdir {dir} && cat > {dir}/given.yaml")])
        .input(manifest)
        .ok()
        .await?;
    let command =
        scene.cluster().minik8s().args(["token", "create", "--print-join", "--ttl", "10m"]).ok().await?;
    ensure!(command.starts_with("minik8s node join --server https://10.100.0.11:6443 --token "), "{command}");
    let file = format!("{dir}/given.yaml");
    let here = ["-f", file.as_str(), "--node-dir", dir.as_str()];

    // It is the right cluster, or none.
    let wrong = command.replace("sha256:", "sha256:00").trim().to_owned();
    let ran = join(&scene, &wrong[..wrong.len() - 2], &here).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("this is not the cluster that --ca-hash is of"), "{ran:?}");
    let (head, tail) = command.split_once("--token ").context("a token")?;
    let unknown = format!("{head}--token abcdef.0123456789abcdef {}", &tail[24..]);
    let ran = join(&scene, &unknown, &here).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("the server knows no token abcdef"), "{ran:?}");
    let ran = join(&scene, &command.replace("6443", "6444"), &here).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("no answer from https://10.100.0.11:6444"), "{ran:?}");
    let taken = format!("{dir}/taken");
    let ran = join(&scene, &command, &["--name", "n1", "--node-dir", &taken]).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("a node called n1 is at work"), "{ran:?}");
    let left = scene.cluster().node(&["sh", "-c", &format!("ls {dir} {taken} || true")]).ok().await?;
    ensure!(!left.contains("kubeconfig"), "half a join: {left}");

    // It joins once, and again it has joined already.
    let ran = join(&scene, &command, &here).await?;
    ensure!(ran.code == 0 && ran.stderr.contains(&format!("this machine is node {name} now")), "{ran:?}");
    let ran = join(&scene, &command, &here).await?;
    ensure!(ran.code == 0 && ran.stderr.contains(&format!("this machine is node {name} already")), "{ran:?}");
    let ran = join(&scene, &command, &["--name", "other", "--node-dir", &dir]).await?;
    ensure!(
        ran.code == 1 && ran.stderr.contains(&format!("this machine is node {name} already, not other")),
        "{ran:?}"
    );

    // What it has is a node's rights: its own things, and nothing of others.
    let kubeconfig = format!("{dir}/kubeconfig");
    let as_node = async |words: &[&str]| {
        let program = scene.cluster().program();
        let program = program.to_str().context("a path in UTF-8")?;
        scene.cluster().node(&[&[program, "--kubeconfig", &kubeconfig][..], words].concat()).run().await
    };
    let ran = as_node(&["get", "node", "n1"]).await?;
    ensure!(ran.code == 0, "the way to another node's pods is no secret: {ran:?}");
    let ran = as_node(&["delete", "node", "n1"]).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("Forbidden"), "{ran:?}");
    let ran = as_node(&["get", "pods", "-A", "--field-selector", "spec.nodeName=n1"]).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("Forbidden"), "{ran:?}");
    let ran = as_node(&["get", "pods", "-A", "--field-selector", &format!("spec.nodeName={name}")]).await?;
    ensure!(ran.code == 0, "{ran:?}");
    let ran = as_node(&["get", "secrets", "-A"]).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("Forbidden"), "{ran:?}");

    // A token that is gone is good for nothing.
    let id = &tail[..6];
    let list = scene.cluster().minik8s().args(["token", "list"]).ok().await?;
    ensure!(list.contains(id), "{list}");
    scene.cluster().minik8s().args(["token", "delete", id]).ok().await?;
    let late = format!("{dir}/late");
    let ran = join(&scene, &command, &["--name", "late", "--node-dir", &late]).await?;
    ensure!(ran.code == 1, "{ran:?}");
    for (arguments, words) in [
        (&["token", "create", "--ttl", "soon"][..], "--ttl soon: expected a duration"),
        (&["token", "create", "--group", "system:masters"], "does not begin with system:bootstrappers:"),
        (&["token", "delete", "nope"], "a token's id has 6 lower-case letters and digits"),
        (&["token", "delete", "zzzzzz"], "there is no token zzzzzz"),
    ] {
        let ran = scene.cluster().minik8s().args(arguments).run().await?;
        ensure!(ran.code == 1 && ran.stderr.contains(words), "{ran:?}");
    }
    Ok(())
}
