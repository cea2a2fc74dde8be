//! How fast pods are given to nodes: a server in this process whose writes are durable, and nodes that only exist on
//! paper.
//!
//! The pods of a batch are there before the scheduler starts, so what is measured is deciding and binding. Then one pod
//! after the other is created, and the time until it has a node is what its owner would wait.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use minik8s_benches::numbers::percentile;
use minik8s_benches::process::{cpu_time, rss_kib};
use minik8s_benches::report::{self, Figures, Unit};
use minik8s_reconcile::client::{Client, Event};
use minik8s_reconcile::request::{Patch, WatchParams};
use minik8s_reconcile::scheduler::Scheduler;
use minik8s_reconcile::storage::embedded::EmbeddedStorage;
use minik8s_reconcile::{ApiServer, Manager};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Nodes, and pods on them before anything is measured.
const SIZES: [(usize, usize); 5] = [(1000, 0), (1000, 50_000), (5000, 0), (5000, 50_000), (5000, 150_000)];
/// Pods of a batch, and how many come one by one afterwards.
const BATCH: usize = 5000;
const SINGLE: usize = 200;
/// Requests under way at once while a cluster is prepared.
const AT_ONCE: usize = 64;

/// What the pods ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Pods of a group of 500 keep off one another's nodes.
    AntiAffinity,
    /// Evenly over ten zones, and rather evenly over nodes.
    Spread,
    /// All nodes are full of less important pods.
    Preemption,
}

const KINDS: [(&str, Kind); 4] = [
    ("plain", Kind::Plain),
    ("anti-affinity", Kind::AntiAffinity),
    ("spread", Kind::Spread),
    ("preemption", Kind::Preemption),
];

fn main() -> anyhow::Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let most = asked.iter().filter_map(|arg| arg.parse::<usize>().ok()).max().unwrap_or(usize::MAX);
    let named: Vec<&String> = asked.iter().filter(|arg| arg.parse::<usize>().is_err()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut figures = Figures::default();
        for (nodes, placed) in SIZES.into_iter().filter(|(nodes, placed)| nodes + placed <= most) {
            for (name, kind) in KINDS {
                let wanted = named.is_empty() || named.iter().any(|n| *n == name);
                // With 5 000 nodes it would be the same once more; to fill them takes longer than all the rest.
                if wanted && (kind != Kind::Preemption || (nodes, placed) == (1000, 0)) {
                    eprintln!("… {name}: {nodes} nodes, {placed} pods");
                    measure(&mut figures, name, kind, nodes, placed).await?;
                }
            }
        }
        report::print(&figures, None);
        Ok(())
    })
}

async fn measure(
    figures: &mut Figures,
    name: &str,
    kind: Kind,
    nodes: usize,
    placed: usize,
) -> anyhow::Result<()> {
    // Not in /tmp, which may be memory.
    let beside = std::env::current_exe()?.parent().context("a program is in a folder")?.to_owned();
    let dir = tempfile::tempdir_in(beside)?;
    let server = ApiServer::new(EmbeddedStorage::open(dir.path().join("objects"))?);
    server.bootstrap().await?;
    let client = server.client();
    each(nodes, |n| create_node(&client, n)).await?;
    let classes = client.all::<PriorityClass>();
    classes.create(&from(json!({ "metadata": { "name": "high" }, "value": 1000 }))?).await?;
    each(placed, |n| create(&client, pod(&format!("placed-{n}"), Kind::Plain, n, Some(n % nodes)))).await?;
    if kind == Kind::Preemption {
        each(nodes, |n| create(&client, low(n))).await?;
    }
    let batch = if kind == Kind::Preemption { 500 } else { BATCH };
    each(batch, |n| create(&client, pod(&format!("batch-{n}"), kind, n, None))).await?;
    let mut bound = Bound::watch(&client).await?;
    let stop = CancellationToken::new();
    let running =
        tokio::spawn(Manager::new(client.clone()).scheduler(Scheduler::default()).run(stop.clone()));
    let what = format!("{name}, {nodes} nodes, {placed} pods");
    let first = bound.next().await?;
    let cpu = cpu_time(std::process::id());
    for _ in 1..batch {
        bound.next().await?;
    }
    let took = first.elapsed();
    let cpu = cpu_time(std::process::id()).saturating_sub(cpu);
    figures.add(what.clone(), batch as f64 / took.as_secs_f64(), Unit::PerSecond);
    figures.time(format!("{what}, CPU for each"), cpu / u32::try_from(batch)?);
    let mut samples = Vec::new();
    for n in 0..SINGLE {
        let began = Instant::now();
        create(&client, pod(&format!("single-{n}"), kind, n, None)).await?;
        bound.next().await?;
        samples.push(began.elapsed());
    }
    figures.time(format!("{what}, one by one, p50"), percentile(&mut samples, 50.0));
    figures.time(format!("{what}, one by one, p99"), percentile(&mut samples, 99.0));
    figures.add(format!("{what}, memory"), rss_kib(std::process::id()) as f64 / 1024.0, Unit::Mib);
    stop.cancel();
    running.await?;
    Ok(())
}

/// Does something for each number below `count`, many at a time.
async fn each<F: Future<Output = anyhow::Result<()>>>(
    count: usize,
    work: impl Fn(usize) -> F,
) -> anyhow::Result<()> {
    futures::stream::iter((0..count).map(|n| Ok(work(n)))).try_buffer_unordered(AT_ONCE).try_collect().await
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(value)?)
}

async fn create_node(client: &Client, n: usize) -> anyhow::Result<()> {
    let name = format!("node-{n}");
    let labels =
        json!({ "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", n % 10) });
    let node: Node = from(json!({ "metadata": { "name": name, "labels": labels } }))?;
    client.all::<Node>().create(&node).await?;
    // New ones are tainted until something says that they are ready.
    let ready = json!({ "spec": { "taints": null } });
    client.all::<Node>().patch(&name, Patch::merge(&ready)).await?;
    let allocatable = json!({ "cpu": "32", "memory": "128Gi", "pods": "500" });
    let status = json!({ "status": { "capacity": allocatable, "allocatable": allocatable } });
    client.all::<Node>().patch_status(&name, Patch::merge(&status)).await?;
    Ok(())
}

async fn create(client: &Client, pod: Value) -> anyhow::Result<()> {
    client.namespaced::<Pod>("default").create(&from(pod)?).await?;
    Ok(())
}

fn pod(name: &str, kind: Kind, n: usize, node: Option<usize>) -> Value {
    // Pods that are there before are of groups of their own, and in nobody's way.
    let group = format!("{}{}", if node.is_some() { "p" } else { "g" }, n / 500);
    let same = json!({ "matchLabels": { "group": group } });
    let mut spec = json!({
        "containers": [{ "name": "main", "image": "app:1",
                         "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } } }],
        "automountServiceAccountToken": false,
    });
    match kind {
        Kind::Plain => {}
        Kind::AntiAffinity => {
            let term = json!({ "labelSelector": same, "topologyKey": "kubernetes.io/hostname" });
            spec["affinity"] =
                json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
        }
        Kind::Spread => {
            let over = |key: &str, when: &str| json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": same });
            spec["topologySpreadConstraints"] = json!([
                over("topology.kubernetes.io/zone", "DoNotSchedule"),
                over("kubernetes.io/hostname", "ScheduleAnyway"),
            ]);
        }
        Kind::Preemption => {
            spec["priorityClassName"] = json!("high");
            spec["priority"] = json!(1000);
            spec["containers"][0]["resources"]["requests"]["cpu"] = json!("16");
        }
    }
    if let Some(node) = node {
        spec["nodeName"] = json!(format!("node-{node}"));
    }
    json!({ "metadata": { "name": name, "labels": { "group": group } }, "spec": spec })
}

/// A pod that fills a node and goes at once when it has to.
fn low(node: usize) -> Value {
    let mut pod = pod(&format!("low-{node}"), Kind::Plain, node, Some(node));
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("30");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    pod
}

/// Tells when pods get a node.
struct Bound {
    events: std::pin::Pin<Box<dyn futures::Stream<Item = anyhow::Result<Event<Pod>>> + Send>>,
    seen: std::collections::BTreeSet<String>,
}

impl Bound {
    async fn watch(client: &Client) -> anyhow::Result<Self> {
        let list = client.namespaced::<Pod>("default").list(&Default::default()).await?;
        let params = WatchParams { resource_version: Some(list.revision), ..WatchParams::default() };
        let events = client.namespaced::<Pod>("default").watch(&params).await?;
        Ok(Self { events: Box::pin(events.map_err(anyhow::Error::from)), seen: Default::default() })
    }

    /// Waits for the next pod that has a node and had none before.
    async fn next(&mut self) -> anyhow::Result<Instant> {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(120), self.events.next()).await;
            let Event::Applied(pod) = event.context("nothing is bound any more")?.context("no end")?? else {
                continue;
            };
            let pod: Arc<Pod> = pod;
            let there = pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_some();
            let name = pod.metadata.name.clone().unwrap_or_default();
            if there && !name.starts_with("placed") && !name.starts_with("low") && self.seen.insert(name) {
                ensure!(pod.metadata.deletion_timestamp.is_none(), "it is being deleted");
                return Ok(Instant::now());
            }
        }
    }
}
