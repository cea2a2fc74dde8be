//! What an ordinary client notices of others who mean harm: its latency beside each of them, and the server's memory.
//!
//! Whoever attacks is a process of its own and as nice as can be, since it shares the machine's cores with the server and
//! the ordinary client: what is measured is what the server does about it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use minik8s_benches::http_client::Connection;
use minik8s_benches::numbers::percentile;
use minik8s_benches::process::rss_kib;
use minik8s_benches::server;
use minik8s_benches::target::Target;
use minik8s_reconcile::pki::{Authority, Subject};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
/// The word on the command line that makes this program an attacker.
const ATTACK: &str = "--attack";
const ATTACKS: &[(&str, &str)] = &[
    ("idle", "10 000 idle connections"),
    ("loris", "1 000 slow-loris connections"),
    ("noisy", "a client with 100 connections, as fast as it can"),
    ("body", "bodies of 100 MB, one after the other"),
    ("watch", "a watch that never reads, 100 KB written at a time"),
];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|a| a == ATTACK) {
        let [name, host, dir] = &args[at + 1..] else { bail!("{ATTACK} NAME HOST DIR") };
        minik8s_benches::process::raise_file_limit()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(attack(name, &target("noisy", host, Path::new(dir))?));
    }
    let wanted: Vec<_> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let seconds = std::env::var("SECONDS_EACH").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("{:<52} {:>10} {:>10} {:>7} {:>7} {:>11}", "", "p50", "p99", "p50 ×", "p99 ×", "memory");
        for (name, what) in ATTACKS {
            if wanted.is_empty() || wanted.iter().any(|w| w == name) {
                beside(name, what, Duration::from_secs(seconds)).await?;
            }
        }
        Ok(())
    })
}

/// The server at `host`, whose data is in `dir`, as seen by a user of that name, who may do everything.
fn target(user: &str, host: &str, dir: &Path) -> anyhow::Result<Target> {
    let now = jiff::Timestamp::now();
    let authority = Authority::open(&dir.join("pki"), now)?;
    let credentials = authority.issue(&Subject::client(user).group("system:masters"), now)?;
    let mut tls = Target::tls(authority.certificate(), &credentials)?;
    Arc::make_mut(&mut tls).alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Target { host: host.to_owned(), tls: Some(tls), authorization: None, processes: Vec::new() })
}

/// The ordinary client's figures, alone and beside an attacker, on a fresh server.
async fn beside(name: &str, what: &str, time: Duration) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path().join("data");
    std::fs::create_dir_all(&dir)?;
    // Otherwise most of the idle connections would be closed as too many from one address.
    let many = ["--max-connections", "20000", "--max-connections-per-address", "20000"];
    let server = server::minik8s_with(&dir, &many).await?;
    let pid = server.target.processes[0];
    let ordinary = target("ordinary", &server.target.host, &dir)?;
    let mut connection = Connection::open(&ordinary).await?;
    let object =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "v" } });
    let (status, _) = connection.send(Method::POST, CONFIGS, object.to_string().into()).await?;
    anyhow::ensure!(status.is_success(), "cannot make an object: {status}");
    gets(&mut connection, pid, Duration::from_secs(1)).await?;
    let quiet = gets(&mut connection, pid, time).await?;
    quiet.print("quiet", None);
    let mut attacker = Attacker::start(name, &server.target.host, &dir)?;
    let under_attack = gets(&mut connection, pid, time).await?;
    let said = attacker.stop()?;
    under_attack.print(what, Some(&quiet));
    if !said.is_empty() {
        println!("    {said}");
    }
    Ok(())
}

struct Latency {
    p50: Duration,
    p99: Duration,
    /// The most that was seen.
    memory_kib: u64,
}

impl Latency {
    fn print(&self, what: &str, quiet: Option<&Self>) {
        let ms = |d: Duration| format!("{:.3} ms", d.as_secs_f64() * 1000.0);
        let times = |ours: Duration, of: fn(&Self) -> Duration| {
            quiet
                .map(|quiet| format!("{:.1}", ours.as_secs_f64() / of(quiet).as_secs_f64()))
                .unwrap_or_default()
        };
        println!(
            "{what:<52} {:>10} {:>10} {:>7} {:>7} {:>7.0} MiB",
            ms(self.p50),
            ms(self.p99),
            times(self.p50, |q| q.p50),
            times(self.p99, |q| q.p99),
            self.memory_kib as f64 / 1024.0,
        );
        let _ = std::io::stdout().flush();
    }
}

/// Gets one object again and again for some time.
async fn gets(connection: &mut Connection, pid: u32, time: Duration) -> anyhow::Result<Latency> {
    let began = Instant::now();
    let (mut samples, mut memory_kib) = (Vec::new(), 0);
    while began.elapsed() < time {
        let sent = Instant::now();
        let (status, _) = connection.send(Method::GET, &format!("{CONFIGS}/a"), Bytes::new()).await?;
        anyhow::ensure!(status.is_success(), "an ordinary client is refused: {status}");
        samples.push(sent.elapsed());
        if samples.len() % 100 == 1 {
            memory_kib = memory_kib.max(rss_kib(pid));
        }
    }
    Ok(Latency { p50: percentile(&mut samples, 50.0), p99: percentile(&mut samples, 99.0), memory_kib })
}

/// A process that means harm.
struct Attacker(Child);

impl Attacker {
    /// Starts it and waits until it is at it.
    fn start(name: &str, host: &str, dir: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .args([ATTACK, name, host])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run nice")?;
        let mut line = String::new();
        let out = child.stdout.as_mut().context("it has an output")?;
        // One byte at a time would do; nothing else comes before the end.
        BufReader::with_capacity(1, out).read_line(&mut line)?;
        anyhow::ensure!(line.trim() == "ready", "the attack {name} did not begin");
        Ok(Self(child))
    }

    /// Ends it. Returns what it has to say.
    fn stop(&mut self) -> anyhow::Result<String> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        if let Some(out) = self.0.stdout.take() {
            BufReader::new(out).read_line(&mut said)?;
        }
        self.0.wait()?;
        Ok(said.trim().to_owned())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says that the attack is under way, and waits until it is over.
async fn under_way() {
    println!("ready");
    let _ = std::io::stdout().flush();
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        let _ = end.send(());
    });
    let _ = ended.await;
}

async fn attack(name: &str, target: &Target) -> anyhow::Result<()> {
    let said = match name {
        "idle" => idle(target).await?,
        "loris" => loris(target).await?,
        "noisy" => noisy(target).await?,
        "body" => body(target).await?,
        "watch" => watch(target).await?,
        other => bail!("no attack {other}"),
    };
    println!("{said}");
    Ok(())
}

async fn connect(target: &Target) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(&target.host).await?;
    secure(target, stream).await
}

async fn secure(target: &Target, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
    let tls = target.tls.clone().context("the server speaks TLS")?;
    let name = target.host.rsplit_once(':').map_or("localhost", |(name, _)| name).to_owned();
    Ok(TlsConnector::from(tls).connect(name.try_into()?, stream).await?)
}

/// `count` connections, some of them made at once.
async fn connections(target: &Target, count: usize) -> anyhow::Result<Vec<TlsStream<TcpStream>>> {
    let (mut making, mut made, mut begun) = (JoinSet::new(), Vec::new(), 0);
    while made.len() < count {
        while making.len() < 32 && begun < count {
            let target = target.clone();
            making.spawn(async move { connect(&target).await });
            begun += 1;
        }
        made.push(making.join_next().await.context("they are being made")???);
    }
    Ok(made)
}

async fn idle(target: &Target) -> anyhow::Result<String> {
    let mut all = connections(target, 10_000).await?;
    under_way().await;
    let mut open = 0;
    for stream in &mut all {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_micros(10), stream.read(&mut byte)).await;
        open += usize::from(read.is_err());
    }
    Ok(format!("{open} were open at the end"))
}

async fn loris(target: &Target) -> anyhow::Result<String> {
    for mut stream in connections(target, 1000).await? {
        tokio::spawn(async move {
            let _ = stream.write_all(b"GET /api/v1/namespaces HTTP/1.1\r\nhost: x\r\nx: ").await;
            while stream.write_all(b"y").await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    under_way().await;
    Ok(String::new())
}

async fn noisy(target: &Target) -> anyhow::Result<String> {
    let (answered, refused) =
        (Arc::new(std::sync::atomic::AtomicU64::new(0)), Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let began = Instant::now();
    for _ in 0..100 {
        let mut connection = Connection::open(target).await?;
        let (answered, refused) = (answered.clone(), refused.clone());
        tokio::spawn(async move {
            while let Ok((status, _)) =
                connection.send(Method::GET, &format!("{CONFIGS}/a"), Bytes::new()).await
            {
                let count = if status.is_success() { &answered } else { &refused };
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    under_way().await;
    let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed) as f64;
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!(
        "it got {:.0} answers a second, and {:.0} refusals",
        load(&answered) / seconds,
        load(&refused) / seconds
    ))
}

async fn body(target: &Target) -> anyhow::Result<String> {
    let target = target.clone();
    tokio::spawn(async move {
        loop {
            let Ok(mut stream) = connect(&target).await else { return };
            let head = format!("POST {CONFIGS} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut sent = stream.write_all(head.as_bytes()).await;
            let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
            for _ in 0..100 {
                if sent.is_ok() {
                    sent = stream.write_all(&chunk).await;
                }
            }
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    under_way().await;
    Ok(String::new())
}

async fn watch(target: &Target) -> anyhow::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = secure(target, socket.connect(target.host.parse()?).await?).await?;
    stream.write_all(format!("GET {CONFIGS}?watch=1 HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
    let mut writer = Connection::open(target).await?;
    let put = move |n: usize| {
        let data = format!("{n}{}", "x".repeat(100_000));
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "large" }, "data": { "k": data } })
    };
    writer.send(Method::POST, CONFIGS, put(0).to_string().into()).await?;
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = written.clone();
    tokio::spawn(async move {
        for n in 1.. {
            if writer.send(Method::PUT, &format!("{CONFIGS}/large"), put(n).to_string().into()).await.is_err()
            {
                return;
            }
            count.store(n, std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    under_way().await;
    let written = written.load(std::sync::atomic::Ordering::Relaxed);
    drop(stream);
    Ok(format!("{} MB of events were not read", written / 10))
}
