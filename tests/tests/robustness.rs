//! `kill -9` of an API server under load, again and again, and a full disk: what was acknowledged is there, nothing is
//! half there, and a watch goes on without a gap. `cargo xtask robustness --kills 1000` is the long version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use minik8s_tests::{Etcd, PATIENCE, build};
use serde_json::json;

/// Kills when nobody says how many.
const KILLS: usize = 20;
const WRITERS: usize = 4;
/// Objects of each writer.
const OBJECTS: u64 = 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1));
    if args.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let kills = value("--kills").and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let storages = match value("--storage").map(String::as_str) {
        None | Some("all") => vec!["embedded", "etcd"],
        Some(one) => vec![one],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let run = async {
        build("minik8s-bins")?;
        for storage in storages {
            killed(storage, kills).await.with_context(|| format!("kills, with {storage}"))?;
        }
        full().await.context("a full disk")
    };
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A server that can be killed and started again with the same data, at the same address.
struct Server {
    dir: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl Server {
    fn new(options: Vec<String>) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { dir: tempfile::tempdir()?, port, options, process: None })
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn start(&mut self, wrap: Option<Command>) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let program = minik8s_tests::program("minik8s")?;
        let mut command = match wrap {
            Some(mut command) => {
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["server", "--listen", &format!("127.0.0.1:{}", self.port), "--data-dir"]);
        command.arg(self.data()).args(&self.options).stdin(Stdio::null()).stderr(log);
        self.process = Some(command.spawn()?);
        Ok(())
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    async fn client(&self) -> anyhow::Result<kube::Client> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = self.data().join("admin.kubeconfig");
            let made = async {
                let file = Kubeconfig::read_from(&path)?;
                let config =
                    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
                let client = kube::Client::try_from(config)?;
                client.apiserver_version().await?;
                anyhow::Ok(client)
            };
            match made.await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => {
                    bail!("the server does not start: {error:#}\n{}", self.log());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What writers know of their writes: by object and number, the version that was acknowledged, if it was.
type Notes = BTreeMap<(String, u64), Option<u64>>;

fn map(name: &str, number: u64) -> ConfigMap {
    let value = json!({
        "metadata": { "name": name },
        "data": { "number": number.to_string(), "text": number.to_string().repeat(100) },
    });
    serde_json::from_value(value).expect("a config map")
}

fn number(map: &ConfigMap) -> anyhow::Result<u64> {
    let field = |name: &str| map.data.as_ref().and_then(|d| d.get(name)).cloned().unwrap_or_default();
    let number = field("number");
    ensure!(field("text") == number.repeat(100), "half of a write is there: {map:?}");
    Ok(number.parse()?)
}

fn version(map: &ConfigMap) -> u64 {
    map.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

async fn killed(storage: &str, kills: usize) -> anyhow::Result<()> {
    let etcd = if storage == "etcd" { Some(Etcd::start(1).await?) } else { None };
    let options = etcd.iter().flat_map(|etcd| {
        ["--storage".into(), "etcd".into(), "--etcd-endpoints".into(), etcd.endpoints().join(",")]
    });
    let mut server = Server::new(options.collect())?;
    server.start(None)?;
    let client = server.client().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let start = maps.list(&ListParams::default()).await?.metadata.resource_version.context("a version")?;
    let (notes, over) = (Mutex::new(Notes::new()), AtomicBool::new(false));
    let writers = futures::future::join_all((0..WRITERS).map(|writer| write(&maps, writer, &notes, &over)));
    let (last, told) = (Mutex::new(None), Mutex::new(Vec::new()));
    let watcher = watch(&maps, start, &last, &told);
    let killer = async {
        let random = fastrand(storage);
        for kill in 1..=kills {
            // Somewhere in the middle of it.
            tokio::time::sleep(Duration::from_millis(30 + random(kill) % 150)).await;
            server.kill()?;
            server.start(None)?;
            server.client().await?;
            if kill % 100 == 0 {
                say(&format!("{storage}: {kill} kills"));
            }
        }
        over.store(true, Ordering::SeqCst);
        anyhow::Ok(())
    };
    let work = async {
        let (killed, _) = tokio::join!(killer, writers);
        killed?;
        // The watcher is done when it has told what was written last.
        let list = maps.list(&ListParams::default()).await?;
        *last.lock().expect("nobody panics") = list.metadata.resource_version.and_then(|v| v.parse().ok());
        // One more, in case nothing has happened since.
        maps.create(&PostParams::default(), &map("last", 0)).await?;
        anyhow::Ok(list.items)
    };
    let (found, watched) = tokio::join!(work, watcher);
    let found = found?;
    watched?;
    let notes = notes.into_inner().expect("nobody panics");
    let told = told.into_inner().expect("nobody panics");
    judge(&notes, &told, &found)?;
    let acknowledged = notes.values().flatten().count();
    say(&format!(
        "{storage}: {kills} kills, {acknowledged} writes acknowledged and there, {} without an answer, \
         {} of those there; {} events in order, none missing",
        notes.len() - acknowledged,
        told.len() - acknowledged,
        told.len()
    ));
    Ok(())
}

/// Numbers that differ from kill to kill and not from run to run.
fn fastrand(seed: &str) -> impl Fn(usize) -> u64 {
    let seed = seed.bytes().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    move |n| (n as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}

async fn write(maps: &Api<ConfigMap>, writer: usize, notes: &Mutex<Notes>, over: &AtomicBool) {
    for number in 0_u64.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("w{writer}-{}", number % OBJECTS);
        let written = map(&name, number);
        notes.lock().expect("nobody panics").insert((name.clone(), number), None);
        let answer = match maps.create(&PostParams::default(), &written).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = Patch::Merge(json!({ "data": written.data }));
                maps.patch(&name, &PatchParams::default(), &patch).await
            }
            other => other,
        };
        match answer {
            Ok(now) => {
                notes.lock().expect("nobody panics").insert((name, number), Some(version(&now)));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Notes what a watch tells that goes on from where it was whenever it is cut off.
async fn watch(
    maps: &Api<ConfigMap>,
    start: String,
    last: &Mutex<Option<u64>>,
    told: &Mutex<Vec<(String, u64, u64)>>,
) -> anyhow::Result<()> {
    let mut at = start;
    loop {
        let Ok(events) = maps.watch(&WatchParams::default(), &at).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut events = events.boxed();
        while let Ok(Some(event)) = events.try_next().await {
            match event {
                WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                    at = map.metadata.resource_version.clone().unwrap_or_default();
                    let name = map.metadata.name.clone().unwrap_or_default();
                    if name.starts_with('w') {
                        told.lock().expect("nobody panics").push((name, number(&map)?, version(&map)));
                    }
                    if last.lock().expect("nobody panics").is_some_and(|last| version(&map) > last) {
                        return Ok(());
                    }
                }
                WatchEvent::Error(error) => bail!("the watch cannot go on from {at}: {error:?}"),
                other => bail!("nobody has asked for {other:?}"),
            }
        }
    }
}

fn judge(notes: &Notes, told: &[(String, u64, u64)], found: &[ConfigMap]) -> anyhow::Result<()> {
    if let Some(pair) = told.windows(2).find(|pair| pair[0].2 >= pair[1].2) {
        bail!("the watch tells {:?} before {:?}", pair[0], pair[1]);
    }
    let mut seen = BTreeSet::new();
    let mut newest = BTreeMap::new();
    for (name, number, version) in told {
        let key = (name.clone(), *number);
        match notes.get(&key) {
            None => bail!("nobody has written {key:?}"),
            Some(Some(acknowledged)) if acknowledged != version => {
                bail!("{key:?} was acknowledged at {acknowledged} and happened at {version}");
            }
            Some(_) => {}
        }
        ensure!(seen.insert(key), "{name} was written with {number} twice");
        newest.insert(name.as_str(), (*number, *version));
    }
    let lost: Vec<_> = notes.iter().filter(|(key, at)| at.is_some() && !seen.contains(*key)).collect();
    ensure!(lost.is_empty(), "acknowledged, and the watch did not tell: {lost:?}");
    let mut there = BTreeMap::new();
    for map in found {
        let name = map.metadata.name.as_deref().unwrap_or_default();
        if name.starts_with('w') {
            there.insert(name, (number(map)?, version(map)));
        }
    }
    ensure!(there == newest, "a list shows {there:?}, and the watch {newest:?}");
    Ok(())
}

/// A server whose objects are on a disk of eight megabytes.
async fn full() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("mounts need root");
    }
    let mut server = Server::new(Vec::new())?;
    let objects = server.data().join("objects");
    fs::create_dir_all(&objects)?;
    let mut wrap = Command::new("unshare");
    wrap.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=8m none \"$0\" && exec \"$@\""]).arg(&objects);
    server.start(Some(wrap))?;
    let client = server.client().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let large = |name: &str| {
        let mut map = map(name, 1);
        map.data.get_or_insert_default().insert("ballast".into(), "x".repeat(500_000));
        map
    };
    let mut written = Vec::new();
    let refused = loop {
        let name = format!("big-{}", written.len());
        match maps.create(&PostParams::default(), &large(&name)).await {
            Ok(_) => written.push(name),
            Err(error) => break error,
        }
        ensure!(written.len() < 100, "the disk does not fill up");
    };
    let kube::Error::Api(status) = &refused else { bail!("{refused}") };
    ensure!(status.code == 507 && status.reason == "InsufficientStorage", "{status:?}");
    for name in &written {
        number(&maps.get(name).await.context("reads go on")?)?;
    }
    ensure!(maps.get(&format!("big-{}", written.len())).await.is_err(), "what was refused is not there");
    let pid = server.process.as_ref().context("it runs")?.id();
    let mount = format!("mount -o remount,size=64m {}", objects.display());
    let grown = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--mount", "sh", "-c", &mount])
        .status()?;
    ensure!(grown.success(), "the disk cannot be made larger");
    for number in 0..10 {
        maps.create(&PostParams::default(), &large(&format!("more-{number}")))
            .await
            .context("there is room")?;
    }
    say(&format!("a full disk: {} objects, the next one refused, then ten more", written.len()));
    Ok(())
}
