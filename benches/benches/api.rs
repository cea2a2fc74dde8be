//! An API server alone: start, memory, creates, gets, lists and watches.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use minik8s_benches::http_client::Connection;
use minik8s_benches::numbers::{line, ms, percentile};
use minik8s_benches::process::{cpu_time, rss_kib};
use serde_json::json;
use tokio::task::JoinSet;

const NAMESPACE: &str = "bench";
const READS: usize = 4000;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        println!("{:<58} {:>22}   Kubernetes 1.20, 2 cores, fsync, TLS", "", "here");
        match std::env::var("API_URL") {
            Ok(url) => measure(url.trim_start_matches("http://"), None).await,
            Err(_) => {
                let dir = tempfile::tempdir()?;
                let (server, host) = starts(dir.path()).await?;
                measure(&host, Some(server.0.id())).await
            }
        }
    })
}

/// A server that is stopped when this goes.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> anyhow::Result<PathBuf> {
    // Benchmarks lie in target/release/deps.
    let deps = std::env::current_exe()?;
    let program = deps.parent().and_then(Path::parent).map(|dir| dir.join("minik8s"));
    program.filter(|p| p.exists()).context("build the program first: cargo build --release -p minik8s-bins")
}

async fn start(dir: &Path) -> anyhow::Result<(Server, String, Duration)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let host = format!("127.0.0.1:{port}");
    let began = Instant::now();
    let child = Command::new(program()?)
        .args(["server", "--listen", &host, "--data-dir"])
        .arg(dir)
        .stderr(Stdio::null())
        .spawn()?;
    let server = Server(child);
    loop {
        if let Ok(mut connection) = Connection::open(&host).await
            && connection.send(Method::GET, "/readyz", Bytes::new()).await.is_ok()
        {
            return Ok((server, host, began.elapsed()));
        }
        if began.elapsed() > Duration::from_secs(10) {
            bail!("the server does not start");
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

async fn starts(dir: &Path) -> anyhow::Result<(Server, String)> {
    let mut empty = Vec::new();
    for index in 0..10 {
        let (server, _, took) = start(&dir.join(index.to_string())).await?;
        empty.push(took);
        drop(server);
    }
    line("start to ready, empty, p50 of 10", &ms(percentile(&mut empty, 50.0)), "3 900-4 900 ms");
    let (server, host, _) = start(&dir.join("kept")).await?;
    let mut connection = Connection::open(&host).await?;
    create_namespace(&mut connection).await?;
    for index in 0..1000 {
        create(&mut connection, &format!("kept-{index}")).await?;
    }
    drop(server);
    let (server, host, took) = start(&dir.join("kept")).await?;
    line("start to ready, 1 000 pods", &ms(took), "3 700 ms");
    drop((server, host));
    let (server, host, _) = start(&dir.join("0")).await?;
    let pid = server.0.id();
    let (cpu, since) = (cpu_time(pid), Instant::now());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = (cpu_time(pid) - cpu).as_secs_f64() * 1000.0 / since.elapsed().as_secs_f64();
    line("idle memory (server, controllers, scheduler)", &mib(pid), "508 MiB");
    line("idle CPU", &format!("{idle:.1} ms/s"), "49 ms/s");
    Ok((server, host))
}

fn mib(pid: u32) -> String {
    format!("{:.1} MiB", rss_kib(pid) as f64 / 1024.0)
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

async fn create(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let (status, body) = connection.send(Method::POST, &path, pod(name)).await?;
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

/// Runs `requests` requests on `clients` connections.
async fn load(
    host: &str,
    clients: usize,
    requests: usize,
    request: impl AsyncFn(&mut Connection, usize) -> anyhow::Result<()> + Copy + Send + 'static,
) -> anyhow::Result<(Duration, Vec<Duration>)>
where
{
    let began = Instant::now();
    let mut samples = Vec::new();
    let local = tokio::task::LocalSet::new();
    let host = host.to_owned();
    local
        .run_until(async {
            let mut tasks = JoinSet::new();
            for client in 0..clients {
                let host = host.clone();
                tasks.spawn_local(async move {
                    let mut connection = Connection::open(&host).await?;
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
        })
        .await?;
    Ok((began.elapsed(), samples))
}

async fn measure(host: &str, pid: Option<u32>) -> anyhow::Result<()> {
    let mut connection = Connection::open(host).await?;
    create_namespace(&mut connection).await?;
    for (clients, requests, kubernetes) in
        [(1, 2000, "1.45 ms, 623/s"), (16, 8000, "1 373/s"), (64, 10_000, "1 920/s")]
    {
        let cpu = pid.map(cpu_time);
        let (took, mut samples) = load(host, clients, requests, async move |connection, index| {
            create(connection, &format!("c{clients}-{index}")).await
        })
        .await?;
        report(&format!("create pod, {clients} clients"), requests, took, &mut samples, kubernetes);
        if let (Some(pid), Some(before)) = (pid, cpu) {
            let each = (cpu_time(pid) - before).as_secs_f64() * 1000.0 / requests as f64;
            line("  server CPU for each", &format!("{each:.3} ms"), "1.30 ms");
        }
    }
    for (clients, kubernetes) in [(1, "0.41-0.84 ms"), (16, ""), (64, "4 480-6 535/s")] {
        let (took, mut samples) = load(host, clients, READS, async |connection, index| {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/c1-{}", index % 2000);
            let (status, _) = connection.send(Method::GET, &path, Bytes::new()).await?;
            anyhow::ensure!(status.is_success(), "{status}");
            Ok(())
        })
        .await?;
        report(&format!("get pod, {clients} clients"), READS, took, &mut samples, kubernetes);
    }
    let cpu = pid.map(cpu_time);
    let mut lists = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1000");
        let (status, body) = connection.send(Method::GET, &path, Bytes::new()).await?;
        anyhow::ensure!(status.is_success() && body.len() > 500_000, "{status}, {} bytes", body.len());
        lists.push(began.elapsed());
    }
    line("list 1 000 pods, p50", &ms(percentile(&mut lists, 50.0)), "35 ms");
    if let (Some(pid), Some(before)) = (pid, cpu) {
        let each = (cpu_time(pid) - before).as_secs_f64() * 1000.0 / 50.0;
        line("  server CPU for each", &format!("{each:.3} ms"), "35-57 ms");
    }
    for (watchers, kubernetes) in [(1, ""), (100, "6.1/9.9 ms"), (1000, "20/42 ms")] {
        watches(host, watchers, kubernetes).await?;
    }
    if let Some(pid) = pid {
        line("memory after 20 000 objects", &mib(pid), "1 960 MiB (and 30 000 requests)");
    }
    Ok(())
}

fn report(what: &str, requests: usize, took: Duration, samples: &mut [Duration], kubernetes: &str) {
    let rate = requests as f64 / took.as_secs_f64();
    line(&format!("{what}, rate"), &format!("{rate:.0}/s"), kubernetes);
    let (p50, p99) = (percentile(samples, 50.0), percentile(samples, 99.0));
    line(&format!("{what}, p50 / p99"), &format!("{} / {}", ms(p50), ms(p99)), "");
}

/// From the moment a write is sent to the moment each watcher has its event.
async fn watches(host: &str, watchers: usize, kubernetes: &str) -> anyhow::Result<()> {
    const CHANGES: usize = 50;
    let mut connection = Connection::open(host).await?;
    let (_, list) = connection
        .send(Method::GET, &format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1"), Bytes::new())
        .await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut connection = Connection::open(host).await?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?watch=1&resourceVersion={version}");
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
    let mut sent = Vec::new();
    for index in 0..CHANGES {
        let patch =
            json!({ "metadata": { "labels": { "turn": format!("{watchers}-{index}") } } }).to_string();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/c1-{index}");
        sent.push(Instant::now());
        let (status, _) = patch_merge(&mut connection, &path, patch).await?;
        anyhow::ensure!(status.is_success(), "{status}");
        // One change at a time: what is measured is the way, not the queue.
        tokio::time::sleep(Duration::from_millis(if watchers >= 1000 { 40 } else { 10 })).await;
    }
    let mut samples = Vec::new();
    while let Some(times) = tasks.join_next().await {
        samples.extend(times??.iter().zip(&sent).map(|(seen, sent)| seen.duration_since(*sent)));
    }
    let (p50, p99) = (percentile(&mut samples, 50.0), percentile(&mut samples, 99.0));
    line(
        &format!("watch delivery, {watchers} watchers, p50 / p99"),
        &format!("{} / {}", ms(p50), ms(p99)),
        kubernetes,
    );
    Ok(())
}

async fn patch_merge(
    connection: &mut Connection,
    path: &str,
    patch: String,
) -> anyhow::Result<(http::StatusCode, Bytes)> {
    connection.send_as(Method::PATCH, path, "application/merge-patch+json", patch.into()).await
}
