//! The embedded storage against etcd, without an API server in front of either: writes, reads, lists and watches from
//! as many clients; and what opening costs, in time and memory, against the number of objects.
//!
//! Both flush every write to the same disk before they acknowledge it. etcd is asked over its own protocol on
//! loopback, as any of its users asks it; the embedded storage is called, as its user calls it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use etcd_client::{Client, GetOptions, WatchOptions};
use minik8s_benches::etcd::Etcd;
use minik8s_benches::numbers::percentile;
use minik8s_benches::process::rss_kib;
use minik8s_benches::report::{self, Figures, Unit};
use minik8s_reconcile::storage::embedded::EmbeddedStorage;
use minik8s_reconcile::storage::{Draft, Op, Query, Storage, Txn};
use tokio::task::JoinSet;

const CLIENTS: [usize; 4] = [1, 16, 64, 256];
const WATCHERS: [usize; 3] = [1, 100, 1000];
/// How many objects there are when a storage is opened.
const OBJECTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Bytes of a value: a small pod.
const SIZE: usize = 1024;
/// Keys that are written, read and listed.
const KEYS: usize = 1000;
/// Changes that watchers see.
const CHANGES: usize = 200;

fn main() -> anyhow::Result<()> {
    // A process of its own, whose memory is that of the storage.
    if let Some(dir) = std::env::var_os("STORAGE_BENCH_OPEN") {
        return open(Path::new(&dir));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Not in /tmp, which may be memory.
        let beside = std::env::current_exe()?.parent().context("a program is in a folder")?.to_owned();
        let dir = tempfile::tempdir_in(beside)?;
        let (mut ours, mut theirs) = (Figures::default(), Figures::default());
        if wanted("load") {
            let etcd = Etcd::start(&dir.path().join("etcd")).await?;
            let storage = Arc::new(EmbeddedStorage::open(dir.path().join("embedded"))?);
            // By turns, so that whatever else the machine does falls on both.
            for clients in CLIENTS {
                let count = (200 * clients).clamp(2000, 20_000);
                load(&Peer::ours(&storage), &mut ours, Work::Put, clients, count).await?;
                load(&Peer::theirs(&etcd, clients).await?, &mut theirs, Work::Put, clients, count).await?;
            }
            for (work, clients, count) in CLIENTS
                .map(|clients| (Work::Get, clients, 20_000))
                .into_iter()
                .chain([(Work::List, 1, 300), (Work::List, 16, 300)])
            {
                load(&Peer::ours(&storage), &mut ours, work, clients, count).await?;
                load(&Peer::theirs(&etcd, clients).await?, &mut theirs, work, clients, count).await?;
            }
            for watchers in WATCHERS {
                watch(&Peer::ours(&storage), &mut ours, watchers).await?;
                watch(&Peer::theirs(&etcd, 1).await?, &mut theirs, watchers).await?;
            }
        }
        for objects in OBJECTS.into_iter().filter(|_| wanted("open")) {
            note(&format!("opening {objects} objects"));
            let place = dir.path().join(format!("open-{objects}"));
            fill(&place, objects).await?;
            opened(&mut ours, &place, objects)?;
            std::fs::remove_dir_all(&place)?;
        }
        report::print(&ours, Some(("etcd", &theirs)));
        Ok(())
    })
}

fn note(what: &str) {
    eprintln!("… {what}");
}

/// Whether the command line asks for that part, or for none in particular.
fn wanted(part: &str) -> bool {
    let mut asked = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    asked.peek().is_none() || asked.any(|arg| arg == part)
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Put,
    Get,
    List,
}

/// What is measured, and how to talk to it.
#[derive(Clone)]
enum Peer {
    Ours(Arc<EmbeddedStorage>),
    /// Connections, which clients share where there are many, as etcd's own benchmark does.
    Theirs(Vec<Client>),
}

impl Peer {
    fn ours(storage: &Arc<EmbeddedStorage>) -> Self {
        Self::Ours(storage.clone())
    }

    async fn theirs(etcd: &Etcd, clients: usize) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..clients.min(16) {
            connections.push(etcd.client().await?);
        }
        Ok(Self::Theirs(connections))
    }

    fn client(&self, number: usize) -> Self {
        match self {
            Self::Ours(storage) => Self::Ours(storage.clone()),
            Self::Theirs(connections) => Self::Theirs(vec![connections[number % connections.len()].clone()]),
        }
    }

    async fn work(&mut self, work: Work, index: usize) -> anyhow::Result<()> {
        let key = format!("pods/default/p{:04}", index % KEYS);
        match (self, work) {
            (Self::Ours(storage), Work::Put) => {
                let ops = vec![Op::Put(key, draft())];
                storage.txn(Txn { compare: Vec::new(), ops }).await?;
            }
            (Self::Ours(storage), Work::Get) => {
                storage.get(&key).await?.context("a value")?;
            }
            (Self::Ours(storage), Work::List) => {
                let page = storage.list(&Query::prefix("pods/")).await?;
                anyhow::ensure!(page.items.len() == KEYS, "{} keys", page.items.len());
            }
            (Self::Theirs(client), Work::Put) => {
                client[0].put(key, draft().stamp(0).json().to_vec(), None).await?;
            }
            (Self::Theirs(client), Work::Get) => {
                let found = client[0].get(key, None).await?;
                anyhow::ensure!(found.kvs().len() == 1, "{} values", found.kvs().len());
            }
            (Self::Theirs(client), Work::List) => {
                let found = client[0].get("pods/", Some(GetOptions::new().with_prefix())).await?;
                anyhow::ensure!(found.kvs().len() == KEYS, "{} keys", found.kvs().len());
            }
        }
        Ok(())
    }
}

fn draft() -> Draft {
    let head = r#"{"kind":"Pod","metadata":{"resourceVersion":""#;
    let json = format!("{head}\"}},\"spec\":\"{}\"}}", "x".repeat(SIZE));
    Draft::new(json.into_bytes(), head.len())
}

async fn load(
    peer: &Peer,
    figures: &mut Figures,
    work: Work,
    clients: usize,
    count: usize,
) -> anyhow::Result<()> {
    let what = match work {
        Work::Put => "put",
        Work::Get => "get",
        Work::List => "list of 1 000",
    };
    let what = format!("{what}, {clients} client{}", if clients == 1 { "" } else { "s" });
    note(&what);
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let mut client = peer.client(number);
        tasks.spawn(async move {
            let mut samples = Vec::new();
            for index in (number..count).step_by(clients) {
                let began = Instant::now();
                client.work(work, index).await?;
                samples.push(began.elapsed());
            }
            anyhow::Ok(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(done) = tasks.join_next().await {
        samples.extend(done??);
    }
    figures.add(what.clone(), count as f64 / began.elapsed().as_secs_f64(), Unit::PerSecond);
    figures.time(format!("{what}, p50"), percentile(&mut samples, 50.0));
    figures.time(format!("{what}, p99"), percentile(&mut samples, 99.0));
    Ok(())
}

/// From the moment a write is acknowledged to the moment each watcher has it.
async fn watch(peer: &Peer, figures: &mut Figures, watchers: usize) -> anyhow::Result<()> {
    let what = format!("{watchers} watcher{}, write sent to event", if watchers == 1 { "" } else { "s" });
    note(&what);
    let mut tasks: JoinSet<anyhow::Result<Vec<Instant>>> = JoinSet::new();
    for _ in 0..watchers {
        match peer {
            Peer::Ours(storage) => {
                let mut watch = storage.watch("pods/", storage.revision().await?).await?;
                tasks.spawn(async move {
                    let mut seen = Vec::new();
                    while seen.len() < CHANGES {
                        let events = watch.next().await?.len();
                        seen.extend(std::iter::repeat_n(Instant::now(), events));
                    }
                    Ok(seen)
                });
            }
            Peer::Theirs(clients) => {
                let mut client = clients[0].clone();
                let options = WatchOptions::new().with_prefix();
                let mut stream = client.watch("pods/", Some(options)).await?;
                tasks.spawn(async move {
                    let mut seen = Vec::new();
                    while seen.len() < CHANGES {
                        let message = stream.message().await?.context("the watch has ended")?;
                        seen.extend(std::iter::repeat_n(Instant::now(), message.events().len()));
                    }
                    Ok(seen)
                });
            }
        }
    }
    let (mut writer, mut sent) = (peer.client(0), Vec::new());
    for index in 0..CHANGES {
        sent.push(Instant::now());
        writer.work(Work::Put, index).await?;
        // One change at a time: what is measured is the way, not the queue.
        tokio::time::sleep(Duration::from_millis(if watchers >= 1000 { 25 } else { 5 })).await;
    }
    let mut samples = Vec::new();
    while let Some(seen) = tasks.join_next().await {
        samples.extend(sent.iter().zip(seen??).map(|(sent, seen)| seen.duration_since(*sent)));
    }
    figures.time(format!("{what}, p50"), percentile(&mut samples, 50.0));
    figures.time(format!("{what}, p99"), percentile(&mut samples, 99.0));
    Ok(())
}

/// Makes a storage of that many objects.
async fn fill(place: &Path, objects: usize) -> anyhow::Result<()> {
    let storage = EmbeddedStorage::open(place)?;
    let storage = &storage;
    let write = |first: usize| async move {
        let put = |n: usize| Op::Put(format!("pods/default/p{n:07}"), draft());
        let ops = (first..objects.min(first + 100)).map(put).collect();
        storage.txn(Txn { compare: Vec::new(), ops }).await.map(drop)
    };
    for group in (0..objects).step_by(1600) {
        let writes = (group..objects.min(group + 1600)).step_by(100).map(write);
        for written in futures::future::join_all(writes).await {
            written?;
        }
    }
    Ok(())
}

/// Opens a storage, says how long it took, and stays until it is told to go.
fn open(place: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    let storage = EmbeddedStorage::open(place)?;
    let took = began.elapsed();
    println!("{} {}", took.as_micros(), rss_kib(std::process::id()));
    drop(storage);
    Ok(())
}

fn opened(figures: &mut Figures, place: &Path, objects: usize) -> anyhow::Result<()> {
    let run = Command::new(std::env::current_exe()?).env("STORAGE_BENCH_OPEN", place).output()?;
    let text = String::from_utf8(run.stdout)?;
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(micros)), Some(Ok(kib))) = (words.next(), words.next()) else {
        anyhow::bail!("cannot open {}: {}", place.display(), String::from_utf8_lossy(&run.stderr));
    };
    figures.time(format!("open {objects} objects"), Duration::from_micros(micros));
    figures.add(format!("memory with {objects} objects"), kib as f64 / 1024.0, Unit::Mib);
    Ok(())
}
