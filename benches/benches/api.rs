//! An API server alone, over TLS with durable writes: start, memory, creates, gets, lists, patches and watches; and
//! the same of a Kubernetes API server in the same run, where there is one.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use minik8s_benches::http_client::Connection;
use minik8s_benches::numbers::percentile;
use minik8s_benches::process::{cpu_time, rss_kib};
use minik8s_benches::report::{self, Figures, Unit};
use minik8s_benches::server::{self, Server};
use minik8s_benches::target::Target;
use serde_json::json;
use tokio::task::JoinSet;

const NAMESPACE: &str = "bench";
const CLIENTS: [usize; 3] = [1, 16, 64];
/// How many objects there are when memory is looked at.
const OBJECTS: [usize; 2] = [10_000, 100_000];

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if let Ok(kubeconfig) = std::env::var("API_KUBECONFIG") {
            let mut figures = Figures::default();
            measure(&Target::from_kubeconfig(Path::new(&kubeconfig))?, &mut figures).await?;
            report::print(&figures, None);
            return Ok(());
        }
        let dir = tempfile::tempdir()?;
        let ours = ours(&dir.path().join("minik8s")).await?;
        let peer = match std::env::var_os("KUBE_APISERVER") {
            Some(program) => Some(kubernetes(&PathBuf::from(program), &dir.path().join("kubernetes")).await?),
            None => None,
        };
        report::print(&ours, peer.as_ref().map(|figures| ("kube-apiserver", figures)));
        Ok(())
    })
}

fn note(what: &str) {
    eprintln!("… {what}");
}

async fn ours(dir: &Path) -> anyhow::Result<Figures> {
    note("minik8s");
    std::fs::create_dir_all(dir)?;
    let mut figures = Figures::default();
    let mut starts = Vec::new();
    for index in 0..10 {
        starts.push(server::minik8s(&dir.join(index.to_string())).await?.took);
    }
    figures.time("start to ready, empty", percentile(&mut starts, 50.0));
    let server = server::minik8s(&dir.join("kept")).await?;
    thousand(&server.target).await?;
    drop(server);
    figures.time("start to ready, 1 000 pods", server::minik8s(&dir.join("kept")).await?.took);
    let server = server::minik8s(&dir.join("0")).await?;
    all(&server, &mut figures).await?;
    Ok(figures)
}

async fn kubernetes(program: &Path, dir: &Path) -> anyhow::Result<Figures> {
    note("kube-apiserver and etcd");
    let mut figures = Figures::default();
    let server = server::kubernetes(program, dir).await?;
    figures.time("start to ready, empty", server.took);
    thousand(&server.target).await?;
    drop(server);
    let server = server::kubernetes(program, dir).await?;
    figures.time("start to ready, 1 000 pods", server.took);
    drop(server);
    let server = server::kubernetes(program, &dir.with_extension("fresh")).await?;
    all(&server, &mut figures).await?;
    Ok(figures)
}

async fn thousand(target: &Target) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    create_namespace(&mut connection).await?;
    for index in 0..1000 {
        create(&mut connection, &format!("kept-{index}")).await?;
    }
    Ok(())
}

/// All figures of a fresh server.
async fn all(server: &Server, figures: &mut Figures) -> anyhow::Result<()> {
    let target = &server.target;
    let (cpu, since) = (cpu(target), Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = (self::cpu(target) - cpu).as_secs_f64() * 1000.0 / since.elapsed().as_secs_f64();
    figures.add("idle memory", mib(target), Unit::Mib);
    figures.add("idle CPU", idle, Unit::MsPerSecond);
    measure(target, figures).await
}

fn cpu(target: &Target) -> Duration {
    target.processes.iter().map(|pid| cpu_time(*pid)).sum()
}

fn mib(target: &Target) -> f64 {
    target.processes.iter().map(|pid| rss_kib(*pid)).sum::<u64>() as f64 / 1024.0
}

fn pod(name: &str) -> Bytes {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": { "app": "bench", "tier": "backend" },
            "annotations": { "example.dev/note": "x".repeat(200) },
        },
        "spec": {
            // Nobody schedules it: what is measured is the API server.
            "schedulerName": "nobody",
            "containers": [{
                "name": "main", "image": "registry.example/app:1.2.3", "args": ["--port", "8080"],
                "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
                "ports": [{ "containerPort": 8080 }],
                "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
            }],
        },
    })
    .to_string()
    .into()
}

async fn create_namespace(connection: &mut Connection) -> anyhow::Result<()> {
    let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    let (status, _) = connection.send(Method::POST, "/api/v1/namespaces", body.to_string().into()).await?;
    if !status.is_success() && status != http::StatusCode::CONFLICT {
        bail!("cannot make the namespace: {status}");
    }
    Ok(())
}

fn pods() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

async fn create(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let (status, body) = connection.send(Method::POST, &pods(), pod(name)).await?;
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Runs `requests` requests on `clients` connections, which are open before the clock starts, and adds what they took.
async fn load(
    target: &Target,
    figures: &mut Figures,
    what: &str,
    clients: usize,
    requests: usize,
    request: impl AsyncFn(&mut Connection, usize) -> anyhow::Result<()> + Copy + Send + 'static,
) -> anyhow::Result<()> {
    note(&format!("{what}, {clients} clients"));
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(target).await?);
    }
    let (cpu, began) = (cpu(target), Instant::now());
    let local = tokio::task::LocalSet::new();
    let mut samples = Vec::new();
    let run = async {
        let mut tasks = JoinSet::new();
        for (client, mut connection) in connections.into_iter().enumerate() {
            tasks.spawn_local(async move {
                let mut samples = Vec::new();
                for index in (client..requests).step_by(clients) {
                    let began = Instant::now();
                    request(&mut connection, index).await?;
                    samples.push(began.elapsed());
                }
                anyhow::Ok(samples)
            });
        }
        while let Some(done) = tasks.join_next().await {
            samples.extend(done??);
        }
        anyhow::Ok(())
    };
    local.run_until(run).await?;
    let took = began.elapsed();
    let what = format!("{what}, {clients} client{}", if clients == 1 { "" } else { "s" });
    figures.add(what.clone(), requests as f64 / took.as_secs_f64(), Unit::PerSecond);
    figures.time(format!("{what}, p50"), percentile(&mut samples, 50.0));
    figures.time(format!("{what}, p99"), percentile(&mut samples, 99.0));
    if !target.processes.is_empty() {
        figures.time(format!("{what}, server CPU for each"), (self::cpu(target) - cpu) / requests as u32);
    }
    Ok(())
}

/// Whether the command line asks for that part, or for none in particular.
fn wanted(part: &str) -> bool {
    let mut asked = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    asked.peek().is_none() || asked.any(|arg| arg == part)
}

async fn measure(target: &Target, figures: &mut Figures) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    create_namespace(&mut connection).await?;
    // The pods of the first of these are read and changed afterwards.
    for clients in CLIENTS {
        let mut ignored = Figures::default();
        let figures = match (wanted("create"), clients) {
            (true, _) => &mut *figures,
            (false, 1) => &mut ignored,
            (false, _) => continue,
        };
        let requests = 2000.max(100 * clients);
        load(target, figures, "create pod", clients, requests, async move |connection, index| {
            create(connection, &format!("c{clients}-{index}")).await
        })
        .await?;
    }
    for clients in CLIENTS.into_iter().filter(|_| wanted("get")) {
        load(target, figures, "get pod", clients, 4000, async |connection, index| {
            let path = format!("{}/c1-{}", pods(), index % 2000);
            let (status, _) = connection.send(Method::GET, &path, Bytes::new()).await?;
            anyhow::ensure!(status.is_success(), "{status}");
            Ok(())
        })
        .await?;
    }
    for clients in CLIENTS.into_iter().filter(|_| wanted("patch")) {
        load(target, figures, "patch pod", clients, 2000, async move |connection, index| {
            let turn = format!("{clients}-{index}");
            patch(connection, &format!("c1-{index}"), &turn).await
        })
        .await?;
    }
    if wanted("list") {
        load(target, figures, "list 1 000 pods", 1, 50, async |connection, _| {
            let (status, body) =
                connection.send(Method::GET, &format!("{}?limit=1000", pods()), Bytes::new()).await?;
            anyhow::ensure!(status.is_success() && body.len() > 500_000, "{status}, {} bytes", body.len());
            Ok(())
        })
        .await?;
    }
    for watchers in [1, 100, 1000].into_iter().filter(|_| wanted("watch")) {
        watches(target, figures, watchers).await?;
    }
    if !target.processes.is_empty() && wanted("memory") {
        memory(target, figures).await?;
    }
    Ok(())
}

async fn memory(target: &Target, figures: &mut Figures) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    let (_, page) = connection.send(Method::GET, &format!("{}?limit=1", pods()), Bytes::new()).await?;
    let page: serde_json::Value = serde_json::from_slice(&page)?;
    let mut there = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize + 1;
    for objects in OBJECTS {
        let before = there;
        let mut ignored = Figures::default();
        let more = objects.saturating_sub(there);
        if more > 0 {
            load(target, &mut ignored, "more pods", 64, more, async move |connection, index| {
                create(connection, &format!("m{before}-{index}")).await
            })
            .await?;
        }
        there += more;
        figures.add(format!("memory with {there} pods"), mib(target), Unit::Mib);
    }
    Ok(())
}

async fn patch(connection: &mut Connection, name: &str, turn: &str) -> anyhow::Result<()> {
    let patch = json!({ "metadata": { "labels": { "turn": turn } } }).to_string();
    let path = format!("{}/{name}", pods());
    let (status, body) =
        connection.send_as(Method::PATCH, &path, "application/merge-patch+json", patch.into()).await?;
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// From the moment a write is sent, and from the moment it is acknowledged, to the moment each watcher has its event.
async fn watches(target: &Target, figures: &mut Figures, watchers: usize) -> anyhow::Result<()> {
    const CHANGES: usize = 50;
    note(&format!("{watchers} watchers"));
    let mut connection = Connection::open(target).await?;
    let (_, list) = connection.send(Method::GET, &format!("{}?limit=1", pods()), Bytes::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut connection = Connection::open(target).await?;
        let path = format!("{}?watch=1&resourceVersion={version}", pods());
        let mut body = connection.start(Method::GET, &path, Bytes::new()).await?.into_body();
        tasks.spawn(async move {
            let _connection = connection;
            let mut times = Vec::new();
            while times.len() < CHANGES {
                let Some(frame) = body.frame().await else { break };
                let now = Instant::now();
                let data = frame?.into_data().unwrap_or_default();
                times.extend(data.iter().filter(|b| **b == b'\n').map(|_| now));
            }
            anyhow::Ok(times)
        });
    }
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    for index in 0..CHANGES {
        sent.push(Instant::now());
        patch(&mut connection, &format!("c1-{index}"), &format!("{watchers}-{index}")).await?;
        answered.push(Instant::now());
        // One change at a time: what is measured is the way, not the queue.
        tokio::time::sleep(Duration::from_millis(if watchers >= 1000 { 60 } else { 15 })).await;
    }
    let (mut whole, mut way) = (Vec::new(), Vec::new());
    while let Some(times) = tasks.join_next().await {
        for (index, seen) in times??.into_iter().enumerate() {
            whole.push(seen.duration_since(sent[index]));
            way.push(seen.saturating_duration_since(answered[index]));
        }
    }
    anyhow::ensure!(whole.len() == watchers * CHANGES, "{} of {} events", whole.len(), watchers * CHANGES);
    let what = format!("{watchers} watcher{}", if watchers == 1 { "" } else { "s" });
    for (name, samples) in [("write sent to event", &mut whole), ("write answered to event", &mut way)] {
        figures.time(format!("{what}, {name}, p50"), percentile(samples, 50.0));
        figures.time(format!("{what}, {name}, p99"), percentile(samples, 99.0));
    }
    Ok(())
}
