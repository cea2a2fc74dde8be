//! Nodes that join, die, are cut off and come back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::FutureExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use minik8s_tests::{PATIENCE, Program, Scene, Suite, container, is_ready, restarts};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

fn main() -> ExitCode {
    Suite::new()
        .cluster(&["--nodes", "3"])
        .alone("a quiet cluster writes little", quiet)
        .alone("a node that is killed is given up, and used again when it is back", dies)
        .alone("a node that is cut off goes on, and hears later what it missed", cut_off)
        .alone("the control plane is held up and killed, and nothing is given up", control_plane)
        .alone("the agent of a worker is killed", agent)
        .alone("another node joins and leaves", joins)
        .run()
}

/// A pod that runs on a node, and stays there for so many seconds when it is down.
fn pod(name: &str, node: Option<&str>, seconds: i64) -> String {
    let selector =
        node.map(|n| format!("nodeSelector: {{ kubernetes.io/hostname: {n} }}")).unwrap_or_default();
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  {selector}
  terminationGracePeriodSeconds: 1
  tolerations: [{{ operator: Exists, effect: NoExecute, tolerationSeconds: {seconds} }}]
  containers: [{{ name: main, image: "localhost/busybox:1", command: [sleep, "3600"] }}]
---
"#
    )
}

fn say(figure: &str, began: Instant) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "figure {figure}: {:.2} s", began.elapsed().as_secs_f32());
}

/// Waits until the node is as it should be. A server that is away is waited for.
async fn until_node(
    scene: &Scene,
    name: &str,
    what: &str,
    wanted: impl Fn(&Node) -> bool,
) -> anyhow::Result<Node> {
    let nodes: Api<Node> = Api::all(scene.kube());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wait = kube::runtime::wait::await_condition(nodes.clone(), name, |n: Option<&Node>| {
            n.is_some_and(&wanted)
        });
        let late = || format!("node {name} should {what}");
        match tokio::time::timeout_at(deadline, wait).await.with_context(late)? {
            Ok(node) => return node.with_context(late),
            Err(error) => ensure!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ready(node: &Node) -> &str {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().find(|c| c.type_ == "Ready").map_or("", |c| &c.status)
}

fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.map(|t| format!("{}:{}", t.key, t.effect)).collect()
}

fn id(pod: &Pod) -> Option<String> {
    container(pod, "main").and_then(|c| c.container_id.clone())
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// Whether the containerd of `node` runs the pod's container.
async fn runs(scene: &Scene, node: &str, pod: &Pod) -> anyhow::Result<bool> {
    let id = id(pod).context("a container")?;
    let id = id.trim_start_matches("containerd://").to_owned();
    let tasks = scene.cluster().on(node, &["ctr", "-n", "k8s.io", "tasks", "ls"]).ok().await?;
    Ok(tasks.lines().any(|line| line.starts_with(&id) && line.contains("RUNNING")))
}

async fn xtask(scene: &Scene, words: &'static [&'static str]) -> anyhow::Result<()> {
    let scene = scene.clone();
    spawn_blocking(move || {
        let cluster = scene.cluster();
        cluster.xtask(&[words, &["--name", cluster.name()]].concat())
    })
    .await?
}

async fn quiet(scene: Scene) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(scene.kube(), "kube-node-lease");
    let revision = async || -> anyhow::Result<u64> {
        let list = leases.list(&ListParams::default()).await?;
        Ok(list.metadata.resource_version.unwrap_or_default().parse()?)
    };
    let (before, began) = (revision().await?, Instant::now());
    // Nothing happens meanwhile, which is what is looked at.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let writes = (revision().await? - before) as f32;
    let minutes = began.elapsed().as_secs_f32() / 60.0;
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "figure writes per node and minute: {:.0}", writes / minutes / 3.0);
    let table = scene.minik8s(&["get", "node"]).ok().await?;
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    ensure!(
        lines[0] == ["NAME", "STATUS", "ROLES", "ADDRESS", "VERSION", "AGE", "PODS", "CPU", "MEMORY"],
        "{table}"
    );
    for (line, (name, role, address)) in lines[1..].iter().zip([
        ("n1", "control-plane", "10.100.0.11"),
        ("n2", "worker", "10.100.0.12"),
        ("n3", "worker", "10.100.0.13"),
    ]) {
        ensure!(line[..4] == [name, "Ready", role, address], "{table}");
    }
    let wide = scene.kubectl(&["get", "nodes", "-o", "wide"]).ok().await?;
    ensure!(wide.contains("INTERNAL-IP") && wide.contains("10.100.0.13"), "{wide}");
    Ok(())
}

async fn dies(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&format!("{}{}", pod("there", Some("n2"), 2), pod("here", Some("n1"), 0))).await?;
    let there = scene.until_ready("there").await?;
    let here = scene.until_ready("here").await?;
    xtask(&scene, &["cluster-stop-node", "n2"]).await?;
    let began = Instant::now();
    let down = until_node(&scene, "n2", "be silent", |n| ready(n) == "Unknown").await?;
    say("silence to NotReady", began);
    ensure!(ready(&down) == "Unknown");
    let unreachable =
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
    until_node(&scene, "n2", "be given up", |n| taints(n) == unreachable).await?;
    scene.until("there", "to be unready", |p| !is_ready(p)).await?;
    let going = scene.until("there", "to be given up", |p| p.metadata.deletion_timestamp.is_some()).await?;
    say("silence to eviction, with a toleration of 2 s", began);
    let conditions = going.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let target = conditions.into_iter().find(|c| c.type_ == "DisruptionTarget").context("a reason")?;
    ensure!(target.reason.as_deref() == Some("DeletionByTaintManager"), "{target:?}");
    // New ones go elsewhere, and the old one is not forgotten.
    let new: Vec<String> = (1..=4).map(|n| format!("new-{n}")).collect();
    scene.apply(&new.iter().map(|n| pod(n, None, 0)).collect::<String>()).await?;
    for name in &new {
        let pod = scene.until_ready(name).await?;
        ensure!(node_of(&pod) != "n2", "{name} is on a node that is dead");
    }
    ensure!(scene.pods().get("there").await?.metadata.uid == there.metadata.uid);
    let began = Instant::now();
    xtask(&scene, &["cluster-start-node", "n2"]).await?;
    until_node(&scene, "n2", "be back", |n| ready(n) == "True" && taints(n).is_empty()).await?;
    say("start of a node to Ready", began);
    scene.until_gone("there").await?;
    let left = scene.cluster().on("n2", &["ctr", "-n", "k8s.io", "containers", "ls", "-q"]).ok().await?;
    ensure!(left.trim().is_empty(), "left on the node: {left}");
    scene.apply(&pod("again", Some("n2"), 0)).await?;
    scene.until_ready("again").await?;
    let same = scene.pods().get("here").await?;
    ensure!(id(&same) == id(&here) && restarts(&same, "main") == 0, "a pod of another node was touched");
    Ok(())
}

/// Puts the wire of n3 in or out of the cluster's switch.
async fn wire(scene: &Scene, state: &str) -> anyhow::Result<()> {
    let switch = format!("mk8s-{}-switch", scene.cluster().name());
    Program::new("ip").args(["-n", &switch, "link", "set", "p3", state]).ok().await.map(drop)
}

async fn cut_off(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&format!("{}{}", pod("stays", Some("n3"), 600), pod("goes", Some("n3"), 600))).await?;
    let stays = scene.until_ready("stays").await?;
    let goes = scene.until_ready("goes").await?;
    wire(&scene, "down").await?;
    // Whatever comes of it, the wire is put back.
    let story = async {
        until_node(&scene, "n3", "be silent", |n| ready(n) == "Unknown").await?;
        scene.until("stays", "to be unready", |p| !is_ready(p)).await?;
        scene.minik8s(&["delete", "pod", "goes", "--no-wait"]).ok().await?;
        ensure!(runs(&scene, "n3", &stays).await? && runs(&scene, "n3", &goes).await?, "pods were ended");
        ensure!(scene.pods().get("goes").await?.metadata.deletion_timestamp.is_some());
        anyhow::Ok(())
    };
    let told = std::panic::AssertUnwindSafe(story).catch_unwind().await;
    wire(&scene, "up").await?;
    let began = Instant::now();
    match told {
        Ok(told) => told?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    until_node(&scene, "n3", "be back", |n| ready(n) == "True" && taints(n).is_empty()).await?;
    say("end of a partition to Ready", began);
    scene.until_gone("goes").await?;
    ensure!(!runs(&scene, "n3", &goes).await?, "the container of a pod that was deleted runs on");
    let back = scene.until_ready("stays").await?;
    ensure!(id(&back) == id(&stays) && restarts(&back, "main") == 0, "a pod was touched");
    Ok(())
}

async fn signal(pid: u32, signal: &str) -> anyhow::Result<()> {
    Program::new("kill").args([signal, &pid.to_string()]).ok().await.map(drop)
}

async fn control_plane(scene: Scene) -> anyhow::Result<()> {
    let nodes = ["n1", "n2", "n3"];
    let names = nodes.map(|n| format!("on-{n}"));
    scene
        .apply(&nodes.iter().zip(&names).map(|(node, name)| pod(name, Some(node), 0)).collect::<String>())
        .await?;
    let mut before = Vec::new();
    for name in &names {
        before.push(scene.until_ready(name).await?);
    }
    let server = scene.cluster().process("minik8s server")?.context("a server")?;
    signal(server, "-STOP").await?;
    // Longer than nodes are believed in. Nobody could say that it has passed.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for (node, pod) in nodes.iter().zip(&before) {
        ensure!(runs(&scene, node, pod).await?, "a pod was ended on {node}");
    }
    // Once it goes on where it was, and once it begins anew.
    signal(server, "-CONT").await?;
    for node in nodes {
        until_node(&scene, node, "be there", |n| ready(n) == "True" && taints(n).is_empty()).await?;
    }
    signal(server, "-STOP").await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    signal(server, "-KILL").await?;
    for node in nodes {
        until_node(&scene, node, "be there", |n| ready(n) == "True" && taints(n).is_empty()).await?;
    }
    for (name, before) in names.iter().zip(&before) {
        let after = scene.until_ready(name).await?;
        ensure!(
            after.metadata.uid == before.metadata.uid && after.metadata.deletion_timestamp.is_none(),
            "{after:?}"
        );
        ensure!(id(&after) == id(before) && restarts(&after, "main") == 0, "{name} was touched");
    }
    Ok(())
}

async fn agent(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&pod("runs", Some("n2"), 0)).await?;
    let before = scene.until_ready("runs").await?;
    let old = scene.cluster().process_on("n2", "minik8s node")?.context("an agent")?;
    signal(old, "-KILL").await?;
    let deadline = Instant::now() + PATIENCE;
    while scene.cluster().process_on("n2", "minik8s node")?.is_none_or(|new| new == old) {
        ensure!(Instant::now() < deadline, "the agent does not come back");
        // Processes of another parent tell nobody that they begin.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.apply(&pod("new", Some("n2"), 0)).await?;
    scene.until_ready("new").await?;
    let after = scene.pods().get("runs").await?;
    ensure!(id(&after) == id(&before) && restarts(&after, "main") == 0 && is_ready(&after), "{after:?}");
    Ok(())
}

async fn joins(scene: Scene) -> anyhow::Result<()> {
    let began = Instant::now();
    xtask(&scene, &["cluster-add-node"]).await?;
    say("cluster-add-node", began);
    until_node(&scene, "n4", "be ready", |n| ready(n) == "True" && taints(n).is_empty()).await?;
    scene.apply(&pod("first", Some("n4"), 0)).await?;
    scene.until_ready("first").await?;
    let list = scene.kubectl(&["get", "nodes", "--no-headers"]).ok().await?;
    ensure!(list.lines().count() == 4, "{list}");
    leaves(&scene).await
}

/// Has n4 leave, on which a pod runs.
async fn leaves(scene: &Scene) -> anyhow::Result<()> {
    let cluster = scene.cluster();
    let program = cluster.program();
    let program = program.to_str().context("a path in UTF-8")?;
    // The node's init would start the agent again: it finds another program in its place.
    let sh = |script: String| async move { cluster.on("n4", &["sh", "-c", &script]).ok().await };
    // A mount that is no peer of the one below it, or it would find that program, too.
    let real =
        format!("touch /run/leave && mount --bind {program} /run/leave && mount --make-private /run/leave");
    sh(format!("{real} && mount --bind /bin/false {program}")).await?;
    let leave = || cluster.on("n4", &["/run/leave", "node", "leave", "--address", "10.100.0.14"]).run();
    leave().await?.failed_with(1, &["the agent of this node runs", "stop it first"])?;
    let agent = cluster.process_on("n4", "minik8s node")?.context("an agent")?;
    signal(agent, "-TERM").await?;
    let deadline = Instant::now() + PATIENCE;
    while cluster.process_on("n4", "minik8s node")? == Some(agent) {
        ensure!(Instant::now() < deadline, "the agent does not end");
        // Processes of another parent tell nobody that they end.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = leave().await?;
    ensure!(left.code == 0 && left.stderr.contains("minik8s delete node n4"), "{left:?}");
    let rest =
        sh("ctr -n k8s.io containers ls -q; ls /run/netns /var/lib/minik8s/node/pods".to_owned()).await?;
    ensure!(!rest.lines().any(|l| !l.is_empty() && !l.ends_with(':')), "left behind: {rest}");
    let again = leave().await?;
    again.failed_with(1, &["has not joined a cluster"])?;
    cluster.minik8s().args(["delete", "node", "n4"]).ok().await?;
    scene.minik8s(&["delete", "pod", "first", "--force"]).ok().await?;
    let list = scene.kubectl(&["get", "nodes", "--no-headers"]).ok().await?;
    ensure!(list.lines().count() == 3, "{list}");
    Ok(())
}
