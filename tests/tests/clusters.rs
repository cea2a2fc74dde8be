//! Clusters and nodes as a whole: that they come, stay and go without leaving anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use minik8s_tests::{Cluster, NodeState, PATIENCE, Scene, Suite, is_ready, restarts, waiting_reason};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

fn main() -> ExitCode {
    Suite::new()
        .alone("pods leave nothing on the node", nothing_left)
        .alone("addresses and names are used again", used_again)
        .alone("cluster-up of what is up changes nothing", twice)
        .alone("a node that lost its power comes back", power_loss)
        .alone("cluster-down leaves nothing on the machine", down)
        .alone("server and agent in one process", all_in_one)
        .run()
}

/// A pod of which something of every kind is on the node.
fn full(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{ name: beside, image: "localhost/busybox:1", restartPolicy: Always, command: [sleep, "3600"] }}
  - {{ name: before, image: "localhost/busybox:1", command: ["true"] }}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "echo started; exec sleep 3600"]
    resources: {{ limits: {{ cpu: 100m, memory: 32Mi }} }}
    volumeMounts:
    - {{ name: disk, mountPath: /disk, subPath: part }}
    - {{ name: memory, mountPath: /memory }}
    - {{ name: settings, mountPath: /settings }}
    - {{ name: self, mountPath: /self }}
  volumes:
  - {{ name: disk, emptyDir: {{}} }}
  - {{ name: memory, emptyDir: {{ medium: Memory }} }}
  - {{ name: settings, configMap: {{ name: settings, optional: true }} }}
  - {{ name: self, downwardAPI: {{ items: [{{ path: name, fieldRef: {{ fieldPath: metadata.name }} }}] }} }}
"#
    )
}

async fn nothing_left(scene: Scene) -> anyhow::Result<()> {
    let before = scene.node_state().await?;
    let names: Vec<String> = (1..=6).map(|number| format!("full-{number}")).collect();
    let broken = [
        ("crashes", full("crashes").replace("exec sleep 3600", "exit 1")),
        (
            "pulls",
            full("pulls").replace("    image: localhost/busybox:1\n", "    image: 127.0.0.1:1/absent:1\n"),
        ),
        ("fails", full("fails").replace("command: [\"true\"]", "command: [\"false\"]")),
        ("nothing", full("nothing").replace("command: [sh,", "command: [/no/such,")),
    ];
    let all: Vec<String> =
        names.iter().map(|n| full(n)).chain(broken.iter().map(|(_, text)| text.clone())).collect();
    scene.apply(&all.join("---\n")).await?;
    for name in &names {
        scene.until_ready(name).await?;
    }
    for (name, container) in
        [("crashes", "main"), ("pulls", "main"), ("fails", "before"), ("nothing", "main")]
    {
        let held = |p: &Pod| waiting_reason(p, container).is_some_and(|r| r.ends_with("BackOff"));
        scene.until(name, "to be held back", held).await?;
    }
    // That what is counted is there at all.
    let during = scene.node_state().await?;
    for (what, least) in [
        ("container", 12),
        ("task", 12),
        ("snapshot", 12),
        ("shim", 1),
        ("network-namespace", 6),
        ("link", 6),
        ("cgroup", 6),
        ("pod-folder", 6),
        ("container-folder", 12),
        ("address", 6),
        ("log-folder", 6),
        ("mount", 6),
    ] {
        let more = during.count(what) - before.count(what);
        ensure!(more >= least, "only {more} of {what}");
    }
    // Some go in time, some at once, one while it starts.
    scene.apply(&full("starting")).await?;
    scene.minik8s(&["delete", "pod", "starting", "--no-wait"]).ok().await?;
    scene.minik8s(&["delete", "pod", "full-1", "full-2", "--force"]).ok().await?;
    scene.minik8s(&["delete", "pods", "--all"]).ok().await?;
    NodeState::back_to(&before, scene.cluster(), "n1", &[]).await
}

async fn used_again(scene: Scene) -> anyhow::Result<()> {
    let before = scene.node_state().await?;
    let mut uids = BTreeSet::new();
    for _ in 0..5 {
        scene.apply(&full("again")).await?;
        let pod = scene.until_ready("again").await?;
        uids.insert(pod.metadata.uid.context("a pod has a uid")?);
        let own = scene.sh("again", "main", "ls -A /disk; touch /disk/mine").await?;
        ensure!(own.is_empty(), "a new pod has the old one's files: {own}");
        scene.minik8s(&["delete", "pod", "again"]).ok().await?;
    }
    ensure!(uids.len() == 5, "{uids:?}");
    NodeState::back_to(&before, scene.cluster(), "n1", &[]).await
}

async fn twice(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&full("runs")).await?;
    scene.until_ready("runs").await?;
    let programs = |cluster: &Cluster| -> anyhow::Result<Vec<Option<u32>>> {
        let names = ["containerd", "minik8s server", "minik8s node"];
        names.into_iter().map(|name| cluster.process(name)).chain([cluster.init().map(Some)]).collect()
    };
    let (before, container) = (programs(scene.cluster())?, scene.running("runs", "main").await?);
    let again = scene.clone();
    spawn_blocking(move || again.cluster().again(&[])).await??;
    ensure!(programs(scene.cluster())? == before, "programs were started again");
    ensure!(scene.running("runs", "main").await? == container, "a container was touched");
    Ok(())
}

/// All that the machine has of a cluster.
fn traces(name: &str) -> anyhow::Result<Vec<String>> {
    let mut traces = Vec::new();
    let listed = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect::<Vec<_>>()
    };
    let of_it = format!("mk8s-{name}-");
    for path in listed("/run/netns") {
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&of_it)) {
            traces.push(format!("network namespace {}", path.display()));
        }
    }
    for hierarchy in listed("/sys/fs/cgroup").into_iter().chain(["/sys/fs/cgroup".into()]) {
        let group = hierarchy.join("minik8s").join(name);
        if group.exists() {
            traces.push(format!("control group {}", group.display()));
        }
    }
    let (folder, group) = (format!("/clusters/{name}"), format!("/minik8s/{name}/"));
    for line in
        fs::read_to_string("/proc/mounts")?.lines().filter(|l| l.contains(&folder) || l.contains(&of_it))
    {
        traces.push(format!("mount {line}"));
    }
    for process in listed("/proc") {
        let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        // The remains of one that has ended are for its parent to bury, which may be the machine's first process.
        if groups.contains(&group) && !status.contains("State:\tZ") {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            traces.push(format!(
                "process {}: {}",
                process.display(),
                String::from_utf8_lossy(&line).replace('\0', " ")
            ));
        }
    }
    Ok(traces)
}

/// Brings another cluster up beside the suite's own.
async fn another(number: usize, options: &'static [&'static str]) -> anyhow::Result<Cluster> {
    spawn_blocking(move || Cluster::up(number, options)).await?
}

async fn until(cluster: &Cluster, wanted: impl Fn(&Pod) -> bool) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client().await?, "default");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wait = kube::runtime::wait::await_condition(pods.clone(), "full", |p: Option<&Pod>| {
            p.is_some_and(&wanted)
        });
        match tokio::time::timeout_at(deadline, wait).await.context("the pod is not as it should be")? {
            Ok(pod) => return pod.context("a pod that is as it should be is there"),
            // The server may be on its way.
            Err(error) => ensure!(Instant::now() < deadline, "{error}"),
        }
    }
}

async fn power_loss(_: Scene) -> anyhow::Result<()> {
    let cluster = another(2, &[]).await?;
    cluster.minik8s().args(["apply", "-f", "-"]).input(full("full")).ok().await?;
    let before = until(&cluster, is_ready).await?;
    let status =
        tokio::process::Command::new("kill").args(["-9", &cluster.init()?.to_string()]).status().await?;
    ensure!(status.success(), "cannot kill the node");
    let cluster = spawn_blocking(move || cluster.again(&[]).map(|()| cluster)).await??;
    let after = until(&cluster, |p| is_ready(p) && restarts(p, "main") > restarts(&before, "main")).await?;
    ensure!(after.metadata.uid == before.metadata.uid, "it is another pod");
    let log = cluster.minik8s().args(["logs", "full", "-c", "main"]).ok().await?;
    ensure!(log == "started\n", "{log:?}");
    cluster.minik8s().args(["delete", "pod", "full"]).ok().await?;
    spawn_blocking(move || cluster.down()).await?
}

async fn down(_: Scene) -> anyhow::Result<()> {
    let cluster = another(3, &["--nodes", "2"]).await?;
    let (name, folder) = (cluster.name().to_owned(), cluster.dir());
    cluster.minik8s().args(["apply", "-f", "-"]).input(full("full")).ok().await?;
    until(&cluster, is_ready).await?;
    let during = traces(&name)?;
    for kind in ["network namespace", "control group", "process", "mount"] {
        ensure!(during.iter().any(|t| t.starts_with(kind)), "no {kind} of a cluster that is up: {during:?}");
    }
    spawn_blocking(move || cluster.down()).await??;
    let left = traces(&name)?;
    ensure!(left.is_empty(), "left behind on the machine:\n  {}", left.join("\n  "));
    ensure!(!Path::new(&folder).exists(), "{} is still there", folder.display());
    Ok(())
}

async fn all_in_one(_: Scene) -> anyhow::Result<()> {
    let cluster = another(4, &["--all-in-one"]).await?;
    let process = cluster.process("minik8s up")?.context("minik8s up does not run")?;
    ensure!(cluster.process("minik8s server")?.is_none() && cluster.process("minik8s node")?.is_none());
    cluster.minik8s().args(["apply", "-f", "-"]).input(full("full")).ok().await?;
    let before = until(&cluster, is_ready).await?;
    let exec = ["exec", "full", "-c", "main", "--", "cat", "/self/name"];
    ensure!(cluster.minik8s().args(exec).ok().await? == "full");
    cluster.kill("minik8s up")?;
    let deadline = Instant::now() + PATIENCE;
    while cluster.process("minik8s up")?.is_none_or(|p| p == process) {
        ensure!(Instant::now() < deadline, "minik8s up does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let after = until(&cluster, is_ready).await?;
    let id = |pod: &Pod| minik8s_tests::container(pod, "main").and_then(|c| c.container_id.clone());
    ensure!(id(&before) == id(&after) && restarts(&after, "main") == 0, "the container was touched");
    cluster.minik8s().args(["delete", "pod", "full"]).ok().await?;
    spawn_blocking(move || cluster.down()).await?
}
