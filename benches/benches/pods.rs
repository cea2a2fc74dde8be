//! Pods on a node, from the POST to Running and from the DELETE to gone, beside what containerd needs for the same
//! container. Needs a cluster: `cargo xtask cluster-up --release --name bench`, then `KUBECONFIG=… cargo bench …`. With
//! several nodes, pods go wherever the scheduler puts them; with `NODE=n1`, all to that one. `-- 100` is for 100 pods at once
//! instead of 30.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use minik8s_benches::http_client::Connection;
use minik8s_benches::numbers::{ms, percentile};
use minik8s_benches::target::Target;
use serde_json::{Value, json};

/// Pods one after the other.
const PODS: usize = 30;
const BASE: &str = "/api/v1/namespaces/default/pods";
/// Nothing takes that long.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let asked = std::env::args().skip(1).find_map(|arg| arg.parse::<usize>().ok());
    let many = asked.unwrap_or(PODS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let target = server()?;
        println!("{:<58} {:>22}   Kubernetes 1.20, 2 cores", "", "here");
        one_by_one(&target).await?;
        together(&target, many).await?;
        graceless(&target).await?;
        floor()?;
        floor_together(many)
    })
}

/// The kubeconfig's server.
fn server() -> anyhow::Result<Target> {
    let path =
        std::env::var("KUBECONFIG").context("set KUBECONFIG to a cluster's; see cargo xtask cluster-up")?;
    Target::from_kubeconfig(Path::new(&path))
}

/// A line: what was measured, our figure, and another to hold it against.
fn line(what: &str, ours: &str, other: &str) {
    println!("{what:<58} {ours:>22}   {other}");
}

/// A pod whose container ends on SIGTERM, or does not.
fn pod(name: &str, obeys: bool) -> Bytes {
    let trap = if obeys { "exit 0" } else { "" };
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{
            "name": "main", "image": "localhost/busybox:1",
            "command": ["sh", "-c", format!("trap '{trap}' TERM; while true; do sleep 1000 & wait; done")],
        }] },
    });
    if let Ok(node) = std::env::var("NODE") {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod.to_string().into()
}

/// Events of all pods, from now on.
struct Watch {
    _connection: Connection,
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Watch {
    async fn start(target: &Target) -> anyhow::Result<Self> {
        let mut connection = Connection::open(target).await?;
        let (_, list) = connection.send(Method::GET, &format!("{BASE}?limit=1"), Bytes::new()).await?;
        let list: Value = serde_json::from_slice(&list)?;
        let version = list["metadata"]["resourceVersion"].as_str().context("a version")?;
        let path = format!("{BASE}?watch=1&resourceVersion={version}");
        let body = connection.start(Method::GET, &path, Bytes::new()).await?.into_body();
        Ok(Self { _connection: connection, body, rest: Vec::new() })
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.context("nothing happens")?;
            let Some(frame) = frame else { bail!("the watch ended") };
            self.rest.extend(frame?.into_data().unwrap_or_default());
        }
    }

    /// Waits until `seen` says so of an event, and gives the pod's name.
    async fn until(&mut self, seen: impl Fn(&str, &Value) -> bool) -> anyhow::Result<String> {
        loop {
            let event = self.next().await?;
            let type_ = event["type"].as_str().unwrap_or_default().to_owned();
            if seen(&type_, &event["object"]) {
                return Ok(event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned());
            }
        }
    }
}

fn runs(_: &str, pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

async fn post(connection: &mut Connection, name: &str, obeys: bool) -> anyhow::Result<()> {
    let (status, body) = connection.send(Method::POST, BASE, pod(name, obeys)).await?;
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

async fn delete(connection: &mut Connection, name: &str, grace: u32) -> anyhow::Result<()> {
    let path = format!("{BASE}/{name}?gracePeriodSeconds={grace}");
    let (status, _) = connection.send(Method::DELETE, &path, Bytes::new()).await?;
    anyhow::ensure!(status.is_success(), "{status}");
    Ok(())
}

fn report(what: &str, samples: &mut [Duration], kubernetes: &str) {
    let text = format!("{} / {}", ms(percentile(samples, 50.0)), ms(percentile(samples, 99.0)));
    line(&format!("{what}, p50 / p99 of {}", samples.len()), &text, kubernetes);
}

async fn one_by_one(target: &Target) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    let mut watch = Watch::start(target).await?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for index in 0..PODS {
        let name = format!("bench-{index}");
        let began = Instant::now();
        post(&mut connection, &name, true).await?;
        watch.until(|t, p| p["metadata"]["name"] == *name && runs(t, p)).await?;
        up.push(began.elapsed());
        let began = Instant::now();
        delete(&mut connection, &name, 30).await?;
        watch.until(|t, p| t == "DELETED" && p["metadata"]["name"] == *name).await?;
        down.push(began.elapsed());
    }
    report("POST to Running, one at a time", &mut up, "370-1 080 ms");
    report("DELETE to gone, exits on TERM", &mut down, "4 300-6 700 ms");
    Ok(())
}

async fn together(target: &Target, many: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    let mut watch = Watch::start(target).await?;
    let began = Instant::now();
    let mut posted = std::collections::BTreeMap::new();
    for index in 0..many {
        let name = format!("many-{index}");
        posted.insert(name.clone(), Instant::now());
        post(&mut connection, &name, true).await?;
    }
    let mut samples = Vec::new();
    while !posted.is_empty() {
        if let Some(at) = posted.remove(&watch.until(runs).await?) {
            samples.push(at.elapsed());
        }
    }
    let rate = format!("{:.0}/s", many as f64 / began.elapsed().as_secs_f64());
    line(&format!("{many} pods at once, all Running"), &ms(began.elapsed()), "30: 3 100-4 500 ms (best)");
    line("  which is", &rate, "");
    report("  POST to Running, each of them", &mut samples, "");
    let began = Instant::now();
    for index in 0..many {
        delete(&mut connection, &format!("many-{index}"), 30).await?;
    }
    let mut gone = 0;
    while gone < many {
        watch.until(|t, _| t == "DELETED").await?;
        gone += 1;
    }
    line(&format!("{many} pods deleted at once, all gone"), &ms(began.elapsed()), "");
    Ok(())
}

async fn graceless(target: &Target) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    let mut watch = Watch::start(target).await?;
    let mut samples = Vec::new();
    for index in 0..5 {
        let name = format!("deaf-{index}");
        post(&mut connection, &name, false).await?;
        watch.until(|t, p| p["metadata"]["name"] == *name && runs(t, p)).await?;
        let began = Instant::now();
        delete(&mut connection, &name, 1).await?;
        watch.until(|t, p| t == "DELETED" && p["metadata"]["name"] == *name).await?;
        samples.push(began.elapsed());
    }
    report("DELETE to gone, grace 1 s, TERM ignored", &mut samples, "6 200-8 500 ms");
    Ok(())
}

/// A command in the cluster's first node.
fn in_node(words: &[&str]) -> anyhow::Result<bool> {
    let cluster = std::env::var("CLUSTER").unwrap_or_else(|_| "bench".to_owned());
    let xtask = std::env::var("XTASK").unwrap_or_else(|_| "target/debug/xtask".to_owned());
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
    let mut command = Command::new(&xtask);
    command.current_dir(root).args(["node", "n1", "--name", &cluster, "--"]).args(words);
    Ok(command.output().with_context(|| xtask.clone())?.status.success())
}

/// containerd alone: its own client runs the same image in the same node.
fn floor() -> anyhow::Result<()> {
    let ctr = |args: &[&str]| in_node(&[&["ctr", "-n", "k8s.io"], args].concat());
    let mut bare = Vec::new();
    let mut samples = Vec::new();
    for index in 0..10 {
        let name = format!("floor-{index}");
        let began = Instant::now();
        anyhow::ensure!(ctr(&["version"])?, "ctr does not run in node n1");
        bare.push(began.elapsed());
        let began = Instant::now();
        anyhow::ensure!(
            ctr(&["run", "-d", "localhost/busybox:1", &name, "sleep", "1000"])?,
            "ctr run failed"
        );
        samples.push(began.elapsed());
        ctr(&["task", "kill", "-s", "KILL", &name])?;
        while !ctr(&["container", "rm", &name])? {}
    }
    let idle = percentile(&mut bare, 50.0);
    let run = percentile(&mut samples, 50.0).saturating_sub(idle);
    line("containerd alone: ctr run, less ctr itself, p50 of 10", &ms(run), "");
    Ok(())
}

/// The same for many at once. Each has a client of its own, as many of which are started to do nothing are no part of it.
fn floor_together(many: usize) -> anyhow::Result<()> {
    let all = |words: &str| format!("for i in $(seq {many}); do ctr -n k8s.io {words} & done; wait");
    let timed = |words: &str| -> anyhow::Result<Duration> {
        let began = Instant::now();
        anyhow::ensure!(in_node(&["sh", "-c", &all(words)])?, "ctr {words} failed");
        Ok(began.elapsed())
    };
    let idle = timed("version >/dev/null")?;
    let run = timed("run -d localhost/busybox:1 floor-$i sleep 1000")?.saturating_sub(idle);
    let rate = format!("{:.0}/s", many as f64 / run.as_secs_f64());
    line(&format!("containerd alone: {many} at once, less ctr itself"), &ms(run), "");
    line("  which is", &rate, "");
    timed("task kill -s KILL floor-$i")?;
    let rm = format!(
        "for i in $(seq {many}); do until ctr -n k8s.io container rm floor-$i; do sleep 0.1; done; done"
    );
    anyhow::ensure!(in_node(&["sh", "-c", &rm])?, "containers are left behind");
    Ok(())
}
