//! What survives when programs of the node die.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams};
use minik8s_tests::{Container, PATIENCE, Scene, Suite, is_ready, restarts};
use tokio::time::Instant;

fn main() -> ExitCode {
    Suite::new()
        .alone("the agent is killed", |scene| survives(scene, &["minik8s node"]))
        .alone("the server is killed", |scene| survives(scene, &["minik8s server"]))
        .alone("server and agent are killed", |scene| survives(scene, &["minik8s server", "minik8s node"]))
        .alone("containerd is killed", |scene| survives(scene, &["containerd"]))
        .alone("all of them are killed", |scene| {
            survives(scene, &["containerd", "minik8s server", "minik8s node"])
        })
        .alone("what happens while the agent is dead is noticed", unwatched)
        .alone("what was acknowledged is there after the server was killed", acknowledged)
        .alone("programs that are told to end do", told_to_end)
        .run()
}

const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: two }
spec:
  containers:
  - name: web
    image: localhost/busybox:1
    command: [httpd, -f, -p, "8080", -h, /www]
    readinessProbe: { httpGet: { path: /index.html, port: 8080 }, periodSeconds: 1 }
    volumeMounts: [{ name: www, mountPath: /www }]
  - name: counter
    image: localhost/busybox:1
    command: [sh, -c, "echo page > /www/index.html; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"]
    volumeMounts: [{ name: www, mountPath: /www }]
  volumes: [{ name: www, emptyDir: {} }]
"#;

/// A pod that does nothing.
fn idle(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{ name: main, image: "localhost/busybox:1", command: [sleep, "3600"] }}]
"#
    )
}

async fn running(scene: &Scene) -> anyhow::Result<Vec<Container>> {
    Ok(vec![scene.running("two", "web").await?, scene.running("two", "counter").await?])
}

/// Kills programs of the node and waits until the node's init has them running again.
async fn kill(scene: &Scene, names: &[&str]) -> anyhow::Result<()> {
    let mut before = BTreeMap::new();
    for name in names {
        before.insert(*name, scene.cluster().process(name)?);
        scene.cluster().kill(name)?;
    }
    back(scene, &before).await
}

/// Waits for other processes of these names.
async fn back(scene: &Scene, before: &BTreeMap<&str, Option<u32>>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for (name, old) in before {
        loop {
            let now = scene.cluster().process(name)?;
            if now.is_some() && now != *old {
                break;
            }
            ensure!(Instant::now() < deadline, "{name} does not come back");
            // Processes of another parent tell nobody that they begin.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

/// Two lives of the programs in `names`, and what ran before runs on.
async fn survives(scene: Scene, names: &'static [&'static str]) -> anyhow::Result<()> {
    scene.apply(TWO).await?;
    scene.until_ready("two").await?;
    let before = running(&scene).await?;
    for round in 1..=2 {
        kill(&scene, names).await?;
        let name = format!("after-{round}");
        // The server may need a moment before it listens to the command line.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = scene.apply(&idle(&name)).await {
            ensure!(Instant::now() < deadline, "nothing can be applied any more: {error:#}");
        }
        scene.until_ready(&name).await.context("a new pod")?;
        ensure!(running(&scene).await? == before, "containers were touched: {:?}", running(&scene).await?);
        ensure!(is_ready(&scene.pods().get("two").await?), "the pod is not ready any more");
    }
    // The log went on without a gap, and so does everything else of the pod.
    let log = scene.logs("two", "counter").await?;
    let numbers: Vec<u64> = log.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers.iter().copied().eq(1..=numbers.len() as u64), "lines are missing in {numbers:?}");
    let page = scene.sh("two", "counter", "wget -qO- http://localhost:8080/").await?;
    ensure!(page == "page\n", "{page:?}");
    // What the new agent did not start it can restart and end.
    scene.kill(&before[1]).await?;
    scene
        .until("two", "to have restarted the counter", |p| restarts(p, "counter") == 1 && is_ready(p))
        .await?;
    scene.minik8s(&["delete", "pod", "two", "--now"]).ok().await?;
    Ok(())
}

async fn unwatched(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&format!("{}\n---\n{}\n---\n{}", idle("crashes"), idle("deleted"), idle("stays"))).await?;
    for name in ["crashes", "deleted", "stays"] {
        scene.until_ready(name).await?;
    }
    let (crashes, stays) = (scene.running("crashes", "main").await?, scene.running("stays", "main").await?);
    // Stopped, it can neither see nor do anything until it is killed.
    let agent = scene.cluster().process("minik8s node")?.context("the agent does not run")?;
    ensure!(
        tokio::process::Command::new("kill").args(["-STOP", &agent.to_string()]).status().await?.success()
    );
    scene.kill(&crashes).await?;
    scene.minik8s(&["delete", "pod", "deleted", "--no-wait"]).ok().await?;
    scene.minik8s(&["delete", "pod", "stays", "--no-wait", "--force"]).ok().await?;
    scene.apply(&idle("stays")).await?;
    scene.apply(&idle("new")).await?;
    kill(&scene, &["minik8s node"]).await?;
    let again = |p: &Pod| restarts(p, "main") == 1 && is_ready(p);
    let pod = scene.until("crashes", "to have been restarted", again).await?;
    let last =
        minik8s_tests::container(&pod, "main").and_then(|c| c.last_state.clone()).and_then(|s| s.terminated);
    ensure!(last.as_ref().is_some_and(|l| l.exit_code == 137), "its end was {last:?}");
    scene.until_gone("deleted").await?;
    scene.until_ready("new").await?;
    // A pod of the same name is another pod: the old one's container is gone, the new one has its own.
    scene.until_ready("stays").await?;
    ensure!(
        scene.running("stays", "main").await?.id != stays.id,
        "the old pod's container was taken for the new one's"
    );
    let deadline = Instant::now() + PATIENCE;
    while scene.cluster().node_sh("ctr -n k8s.io tasks ls -q").await?.contains(&stays.id) {
        ensure!(Instant::now() < deadline, "the container of a pod that was removed by force runs on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn acknowledged(scene: Scene) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(scene.kube(), scene.namespace());
    let mut noted: Vec<String> = Vec::new();
    for round in 0..4 {
        let dead = AtomicBool::new(false);
        let writers = (0..4).map(|writer| {
            let (maps, dead) = (maps.clone(), &dead);
            async move {
                let mut noted = Vec::new();
                for number in 0.. {
                    let name = format!("m-{round}-{writer}-{number}");
                    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                    let data = BTreeMap::from([("written".to_owned(), "x".repeat(1000))]);
                    let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                    // Without an answer the server may have it or not.
                    if maps.create(&PostParams::default(), &map).await.is_ok() {
                        noted.push(name);
                    }
                    if dead.load(Ordering::Relaxed) {
                        break;
                    }
                }
                noted
            }
        });
        let killer = async {
            // Somewhere in the middle of it.
            tokio::time::sleep(Duration::from_millis(100 + 37 * round)).await;
            let killed = kill(&scene, &["minik8s server"]).await;
            dead.store(true, Ordering::Relaxed);
            killed
        };
        let (written, killed) = tokio::join!(futures::future::join_all(writers), killer);
        killed?;
        noted.extend(written.into_iter().flatten());
        let deadline = Instant::now() + PATIENCE;
        let there = loop {
            match maps.list(&ListParams::default()).await {
                Ok(list) => break list,
                Err(error) => ensure!(Instant::now() < deadline, "the server does not come back: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let there: BTreeMap<_, _> = there
            .items
            .into_iter()
            .map(|m| (m.metadata.name.unwrap_or_default(), m.data.unwrap_or_default()))
            // Every namespace has this one.
            .filter(|(name, _)| name != "kube-root-ca.crt")
            .collect();
        let lost: Vec<_> = noted.iter().filter(|name| !there.contains_key(*name)).collect();
        ensure!(lost.is_empty(), "lost though acknowledged: {lost:?}");
        let torn = there.values().filter(|data| data.get("written").is_none_or(|text| text.len() != 1000));
        ensure!(torn.count() == 0, "there are objects that nobody wrote so");
    }
    ensure!(noted.len() > 20, "only {} were written", noted.len());
    Ok(())
}

async fn told_to_end(scene: Scene) -> anyhow::Result<()> {
    scene.apply(&idle("runs")).await?;
    scene.until_ready("runs").await?;
    let container = scene.running("runs", "main").await?;
    for name in ["minik8s node", "minik8s server"] {
        let old = scene.cluster().process(name)?;
        let pid = old.with_context(|| format!("{name} does not run"))?;
        ensure!(tokio::process::Command::new("kill").arg(pid.to_string()).status().await?.success());
        back(&scene, &BTreeMap::from([(name, old)])).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = scene.apply(&idle("another")).await {
        ensure!(Instant::now() < deadline, "nothing can be applied any more: {error:#}");
    }
    scene.until_ready("another").await?;
    ensure!(scene.running("runs", "main").await? == container, "the container was touched");
    Ok(())
}
