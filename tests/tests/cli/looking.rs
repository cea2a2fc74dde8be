//! Looking at objects.

use anyhow::{Context, ensure};
use minik8s_tests::{PATIENCE, Scene, restarts};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::idle;

pub(super) async fn table(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&idle("web", "app: web, tier: front")).await?;
    let pod = scene.until_ready("web").await?;
    let ip = pod.status.and_then(|s| s.pod_ip).context("a ready pod has an address")?;
    scene.kill(&scene.running("web", "main").await?).await?;
    scene
        .until("web", "to be ready again", |p| restarts(p, "main") == 1 && minik8s_tests::is_ready(p))
        .await?;
    let text = scene.minik8s(&["get", "pod", "web"]).ok().await?;
    let lines: Vec<Vec<&str>> =
        text.lines().map(|l| l.split("   ").map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
    let [head, line] = lines.as_slice() else { anyhow::bail!("{text}") };
    let headings = ["NAME", "READY", "STATUS", "RESTARTS", "UPTIME", "IP", "NODE", "NAMESPACE", "LABELS"];
    ensure!(*head == headings, "{head:?}");
    ensure!(line.len() == headings.len(), "{line:?}");
    ensure!(line[..3] == ["web", "1/1", "Running"], "{line:?}");
    ensure!(line[3].starts_with('1'), "{line:?}");
    ensure!(line[4].ends_with('s'), "{line:?}");
    ensure!(line[5..] == [&ip, "n1", scene.namespace(), "app=web,tier=front"], "{line:?}");
    Ok(())
}

pub(super) async fn formats(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&format!("{}---{}", idle("a", "app: x, tier: one"), idle("b", "app: x, tier: two"))).await?;
    scene.until_ready("a").await?;
    scene.until_ready("b").await?;
    let get = |args: &[&str]| scene.minik8s(&[&["get"], args].concat()).ok();
    let names = |text: &str| {
        text.lines().map(|l| l.split_whitespace().next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };

    ensure!(get(&["pods", "-o", "name"]).await? == "pod/a\npod/b\n");
    ensure!(get(&["po/b", "pods/a", "-o", "name"]).await? == "pod/b\npod/a\n");
    ensure!(get(&["pods", "-l", "tier=two", "-o", "name"]).await? == "pod/b\n");
    ensure!(get(&["pods", "-l", "app=x,tier notin (two)", "-o", "name"]).await? == "pod/a\n");
    ensure!(get(&["pods", "-l", "app=y", "-o", "name"]).await?.is_empty());
    ensure!(get(&["pods", "--field-selector", "metadata.name=a", "-o", "name"]).await? == "pod/a\n");

    let json: Value = serde_json::from_str(&get(&["pod", "a", "-o", "json"]).await?)?;
    ensure!(
        json["kind"] == "Pod" && json["metadata"]["name"] == "a" && json["status"]["phase"] == "Running",
        "{json}"
    );
    let list: Value = serde_json::from_str(&get(&["pods", "-o", "json"]).await?)?;
    ensure!(list["kind"] == "List" && list["items"].as_array().is_some_and(|i| i.len() == 2), "{list}");
    let yaml = get(&["pod", "a", "-o", "yaml"]).await?;
    ensure!(yaml.starts_with("apiVersion: v1\n") && yaml.contains("\nkind: Pod\n"), "{yaml}");
    // What was printed is a manifest.
    let again = scene.minik8s(&["apply", "-f", "-"]).input(idle("a", "app: x, tier: one")).ok().await?;
    ensure!(again == "pod/a unchanged\n", "{again}");

    let wide = get(&["pods", "-o", "wide"]).await?;
    let heading = wide.lines().next().unwrap_or_default();
    ensure!(heading.contains("NOMINATED NODE") && heading.contains("READINESS GATES"), "{wide}");
    let bare = get(&["pods", "--no-headers"]).await?;
    ensure!(names(&bare) == ["a", "b"], "{bare}");
    let all = get(&["pods", "-A", "-l", "app=x"]).await?;
    ensure!(all.contains(scene.namespace()), "{all}");
    let nodes = get(&["nodes"]).await?;
    ensure!(names(&nodes) == ["NAME", "n1"] && nodes.contains("Ready"), "{nodes}");
    let both = get(&["pods,nodes"]).await?;
    ensure!(both.contains("pod/a ") && both.contains("node/n1 "), "{both}");
    Ok(())
}

pub(super) async fn watching(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&idle("first", "")).await?;
    let mut watch = scene.minik8s(&["get", "pods", "-w"]).start()?;
    let mut lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
    let heading = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("no list")??;
    ensure!(heading.is_some_and(|h| h.starts_with("NAME ")), "the list has no heading");
    // Whatever happens after the list is in the watch.
    scene.apply(&idle("seen", "")).await?;
    let all = async {
        let mut statuses = Vec::new();
        while let Some(line) = lines.next_line().await? {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first() == Some(&"seen") {
                statuses.push(words[2].to_owned());
            }
            if statuses.last().is_some_and(|s| s == "Running") {
                scene.minik8s(&["delete", "pod", "seen", "--no-wait"]).ok().await?;
            }
            if statuses.last().is_some_and(|s| s == "Terminating") {
                return Ok(statuses);
            }
        }
        anyhow::bail!("the watch ended after {statuses:?}")
    };
    let statuses = tokio::time::timeout(PATIENCE, all).await.context("no line says Terminating")??;
    ensure!(
        statuses.first().is_some_and(|s| s == "Pending") && statuses.iter().any(|s| s == "Running"),
        "{statuses:?}"
    );
    Ok(())
}

pub(super) async fn describe(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&idle("web", "app: web")).await?;
    scene.until_ready("web").await?;
    let started = |text: &str| text.contains("Started container main");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // Events come after what they tell of.
    let text = loop {
        let text = scene.minik8s(&["describe", "pod", "web"]).ok().await?;
        if started(&text) || tokio::time::Instant::now() > deadline {
            break text;
        }
    };
    for part in [
        "Name:           web\n",
        "app=web",
        "n1/10.100.0.11",
        "localhost/busybox:1",
        "sleep 3600",
        "State:      Running",
        "Restart Count: 0",
        "PodScheduled",
        "Successfully assigned",
        "Started container main",
    ] {
        ensure!(text.contains(part), "no {part:?} in\n{text}");
    }
    let node = scene.minik8s(&["describe", "node", "n1"]).ok().await?;
    ensure!(node.contains("KubeletReady") && node.contains("cpu"), "{node}");
    let version = scene.minik8s(&["version"]).ok().await?;
    ensure!(version.starts_with("minik8s ") && version.contains("\nserver  v1."), "{version}");
    Ok(())
}
