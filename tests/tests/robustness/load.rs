//! Clients that write without a pause and one that watches them, and what must hold of what they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use minik8s_tests::PATIENCE;
use serde_json::json;
use tokio::sync::Notify;

const WRITERS: usize = 4;
/// Objects of each writer.
const OBJECTS: u64 = 20;

/// What writers know of their writes: by object and number, the version that was acknowledged, if it was.
type Notes = BTreeMap<(String, u64), Option<u64>>;

/// The object that a writer writes with that number. It shows when half of it is missing.
pub(crate) fn map(name: &str, number: u64) -> ConfigMap {
    let value = json!({
        "metadata": { "name": name },
        "data": { "number": number.to_string(), "text": number.to_string().repeat(100) },
    });
    serde_json::from_value(value).expect("a config map")
}

/// The number an object was written with.
pub(crate) fn number(map: &ConfigMap) -> anyhow::Result<u64> {
    let field = |name: &str| map.data.as_ref().and_then(|d| d.get(name)).cloned().unwrap_or_default();
    let number = field("number");
    ensure!(field("text") == number.repeat(100), "half of a write is there: {map:?}");
    Ok(number.parse()?)
}

fn version(map: &ConfigMap) -> u64 {
    map.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    notes: Notes,
    /// Object, number and version, in the order in which the watch told.
    told: Vec<(String, u64, u64)>,
    found: Vec<ConfigMap>,
}

/// The clients that write, while they do.
#[derive(Debug, Default)]
pub(crate) struct Load {
    notes: Mutex<Notes>,
    told: Mutex<Vec<(String, u64, u64)>>,
    /// The version after which the watch has told everything.
    last: Mutex<Option<u64>>,
    acknowledged: AtomicUsize,
    /// Wakes those who wait for an acknowledgement.
    moved: Notify,
    over: AtomicBool,
}

impl Load {
    /// Has clients of these servers, by turns, write and watch as long as `faults` goes on, which is told of them.
    pub(crate) async fn run<F: AsyncFnOnce(&Self) -> anyhow::Result<()>>(
        servers: &[Api<ConfigMap>],
        faults: F,
    ) -> anyhow::Result<Seen> {
        let load = Self::default();
        let first = servers.first().context("a server")?;
        let start = first.list(&ListParams::default()).await?.metadata.resource_version;
        let writers = (0..WRITERS).map(|writer| load.write(&servers[writer % servers.len()], writer));
        let writers = futures::future::join_all(writers);
        let watcher = load.watch(servers.last().unwrap_or(first), start.context("a version")?);
        let work = async {
            let faults = async {
                let ended = faults(&load).await;
                load.over.store(true, Ordering::SeqCst);
                ended
            };
            let (ended, _) = tokio::join!(faults, writers);
            ended?;
            let list = first.list(&ListParams::default()).await?;
            *load.last.lock().expect("nobody panics") =
                list.metadata.resource_version.and_then(|v| v.parse().ok());
            // One more, in case nothing has happened since.
            first.create(&PostParams::default(), &map("last", 0)).await?;
            anyhow::Ok(list.items)
        };
        // What went wrong is said at once: the watch would wait for an end that does not come.
        let (found, ()) = tokio::try_join!(work, watcher)?;
        Ok(Seen {
            notes: load.notes.into_inner().expect("nobody panics"),
            told: load.told.into_inner().expect("nobody panics"),
            found,
        })
    }

    /// Waits until that many more writes have been acknowledged, and tells how long it took.
    pub(crate) async fn acknowledged(&self, more: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let wanted = self.acknowledged.load(Ordering::SeqCst) + more;
        let enough = async {
            loop {
                let mut moved = std::pin::pin!(self.moved.notified());
                moved.as_mut().enable();
                if self.acknowledged.load(Ordering::SeqCst) >= wanted {
                    return;
                }
                moved.await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.context("writes do not resume")?;
        Ok(began.elapsed())
    }

    async fn write(&self, maps: &Api<ConfigMap>, writer: usize) {
        for number in 0_u64.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let name = format!("w{writer}-{}", number % OBJECTS);
            let written = map(&name, number);
            self.note((name.clone(), number), None);
            let answer = match maps.create(&PostParams::default(), &written).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let patch = Patch::Merge(json!({ "data": written.data }));
                    maps.patch(&name, &PatchParams::default(), &patch).await
                }
                other => other,
            };
            match answer {
                Ok(now) => {
                    self.note((name, number), Some(version(&now)));
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    self.moved.notify_waiters();
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Notes what a watch tells that goes on from where it was whenever it is cut off.
    async fn watch(&self, maps: &Api<ConfigMap>, start: String) -> anyhow::Result<()> {
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
                            self.told.lock().expect("nobody panics").push((
                                name,
                                number(&map)?,
                                version(&map),
                            ));
                        }
                        if self.last.lock().expect("nobody panics").is_some_and(|last| version(&map) > last) {
                            return Ok(());
                        }
                    }
                    WatchEvent::Bookmark(mark) => at = mark.metadata.resource_version,
                    WatchEvent::Error(error) => bail!("the watch cannot go on from {at}: {error:?}"),
                    other => bail!("nobody has asked for {other:?}"),
                }
            }
        }
    }

    fn note(&self, key: (String, u64), version: Option<u64>) {
        self.notes.lock().expect("nobody panics").insert(key, version);
    }
}

impl Seen {
    /// Whether everything acknowledged is there and nothing else, and the watch has told all of it in order: a line that
    /// says how much it was.
    pub(crate) fn judge(&self) -> anyhow::Result<String> {
        let Self { notes, told, found } = self;
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
        let acknowledged = notes.values().flatten().count();
        Ok(format!(
            "{acknowledged} writes acknowledged and there, {} without an answer, {} of those there; {} events in order, \
         none missing",
            notes.len() - acknowledged,
            told.len() - acknowledged,
            told.len()
        ))
    }
}
