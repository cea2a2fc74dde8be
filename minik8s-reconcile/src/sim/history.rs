//! What happened in a run: every write, in order, judged as it happens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use minik8s_api::{Registry, Resource};

use crate::clock::Clock;
use crate::key::Key;
use crate::storage::memory::MemoryStorage;
use crate::storage::seal::Seal;
use crate::storage::{Op, Page, Query, Storage, StorageError, Subscription, Txn, TxnOutcome};
use crate::stored::Stored;

/// How many of the last writes a report shows.
const SHOWN: usize = 40;
/// More writes than any run needs. Whoever writes in answer to what was written stops simulated time.
const TOO_MANY: usize = 50_000;

/// All objects as they are at one revision.
pub struct State {
    objects: BTreeMap<Arc<str>, Stored>,
    registry: Arc<Registry>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} objects)", self.objects.len())
    }
}

impl State {
    fn prefix<K: Resource>(&self) -> String {
        let kind = self.registry.of::<K>().unwrap_or_else(|| panic!("{} is not served", K::kind(&())));
        format!("{}/", kind.stored_resource())
    }

    /// All `K`s, by namespace and name.
    ///
    /// # Panics
    /// The server does not know `K`.
    pub fn all<K: Resource>(&self) -> Vec<Arc<K>> {
        let prefix = self.prefix::<K>();
        let of_kind = self.objects.range(Arc::from(prefix.as_str())..);
        of_kind.take_while(|(key, _)| key.starts_with(&prefix)).map(|(_, stored)| typed(stored)).collect()
    }

    /// The `K` of that key.
    ///
    /// # Panics
    /// The server does not know `K`.
    pub fn get<K: Resource>(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.get(format!("{}{key}", self.prefix::<K>()).as_str()).map(typed)
    }
}

fn typed<K: Resource>(stored: &Stored) -> Arc<K> {
    stored.typed().unwrap_or_else(|e| panic!("what is stored as a {} is none: {e}", K::kind(&())))
}

/// One write of one object.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The object's resource, namespace and name, such as `pods/default/web`.
    pub key: &'a str,
    /// The revision at which it happened.
    pub revision: u64,
    /// When, by the simulation's clock.
    pub at: Timestamp,
    before: Option<&'a Stored>,
    /// As it was written; if it was removed, as it was last.
    value: &'a Stored,
    removed: bool,
}

impl Change<'_> {
    /// The resource, with its group: `pods`, `replicasets.apps`.
    pub fn resource(&self) -> &str {
        self.key.split('/').next().unwrap_or_default()
    }

    /// The object before; `None` if there was none, or if it is no `K`.
    pub fn before<K: Resource>(&self) -> Option<Arc<K>> {
        self.before.filter(|_| self.is::<K>()).map(typed)
    }

    /// The object after; `None` if it is gone, or if it is no `K`.
    pub fn after<K: Resource>(&self) -> Option<Arc<K>> {
        (!self.removed && self.is::<K>()).then(|| typed(self.value))
    }

    /// Whether it is about a `K`.
    pub fn is<K: Resource>(&self) -> bool {
        let (plural, group) = (K::plural(&()), K::group(&()));
        let (own, of) = self.resource().split_once('.').unwrap_or((self.resource(), ""));
        own == plural && of == group
    }

    /// The object's metadata as it was last, whatever kind it is of.
    pub fn metadata(&self) -> serde_json::Value {
        let object = serde_json::from_slice::<serde_json::Value>(self.value.json());
        object.map(|mut object| object["metadata"].take()).unwrap_or_default()
    }

    /// Whether the object came to be, changed, or went.
    pub fn deed(&self) -> Deed {
        match (self.removed, self.before) {
            (true, _) => Deed::Removed,
            (false, None) => Deed::Created,
            (false, Some(_)) => Deed::Changed,
        }
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The object came to be.
    Created,
    /// It changed.
    Changed,
    /// It is gone.
    Removed,
}

/// What has to hold of every write: `Err` says what is wrong. It may remember what it has seen.
pub(super) type Judge = Box<dyn FnMut(&Change<'_>, &State) -> Result<(), String> + Send>;

/// Something that must never happen, and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What does not hold.
    pub property: String,
    /// What is wrong.
    pub why: String,
    /// At which revision it was found.
    pub revision: u64,
    /// When, by the simulation's clock.
    pub at: Timestamp,
}

/// One line of the history.
struct Line {
    at: Timestamp,
    revision: u64,
    deed: Deed,
    key: Arc<str>,
}

struct Inner {
    state: State,
    judges: Vec<(String, Judge)>,
    violation: Option<Violation>,
    lines: Vec<Line>,
    revision: u64,
    clock: Clock,
    /// Of every byte that was written, and when.
    exact: Fnv,
    /// Of what was done to which kinds, in which order.
    shape: Fnv,
}

/// The history of a run. Cheap to clone; clones are the same one.
#[derive(Clone)]
pub(super) struct History(Arc<Mutex<Inner>>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "History({} writes)", self.writes())
    }
}

impl History {
    pub(super) fn new(registry: Arc<Registry>, clock: Clock, judges: Vec<(String, Judge)>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            state: State { objects: BTreeMap::new(), registry },
            judges,
            violation: None,
            lines: Vec::new(),
            revision: 0,
            clock,
            exact: Fnv::new(),
            shape: Fnv::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first violation.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// Notes that something does not hold, unless something else was found before.
    pub(super) fn violated(&self, property: &str, why: String) {
        let mut inner = self.lock();
        let (at, revision) = (inner.clock.now(), inner.revision);
        inner.violation.get_or_insert(Violation { property: property.to_owned(), why, revision, at });
    }

    /// Looks at everything as it is now.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// How many writes there have been that a cluster at rest does not make, and when the last one was.
    pub(super) fn restless(&self) -> (usize, Option<Timestamp>) {
        let inner = self.lock();
        let mut counted = inner.lines.iter().filter(|line| !is_everyday(line));
        let last = counted.next_back().map(|line| line.at);
        (counted.count() + usize::from(last.is_some()), last)
    }

    /// All writes so far.
    pub(super) fn writes(&self) -> usize {
        self.lock().lines.len()
    }

    /// What tells this run from others: exactly, and by what was done.
    pub(super) fn fingerprints(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.exact.0, inner.shape.0)
    }

    /// The last writes, a line each.
    pub(super) fn tail(&self, since: Timestamp) -> Vec<String> {
        let inner = self.lock();
        let shown = inner.lines.iter().filter(|line| !is_everyday(line)).rev().take(SHOWN);
        let mut shown: Vec<String> = shown.map(|line| line.text(since)).collect();
        shown.reverse();
        shown
    }
}

impl Line {
    fn text(&self, since: Timestamp) -> String {
        let deed = match self.deed {
            Deed::Created => "created",
            Deed::Changed => "changed",
            Deed::Removed => "removed",
        };
        let at = self.at.duration_since(since).as_secs_f64();
        format!("{at:>10.3}s  {:>6}  {deed}  {}", self.revision, self.key)
    }
}

/// Whether a cluster does that at rest too: Leases are renewed, and events forgotten.
fn is_everyday(line: &Line) -> bool {
    line.key.starts_with("leases.coordination.k8s.io/")
        || (line.deed == Deed::Removed && line.key.starts_with("events"))
}

impl Inner {
    fn note(&mut self, key: &str, value: &Stored, removed: bool) {
        let at = self.clock.now();
        self.revision = value.revision();
        let key: Arc<str> = key.into();
        let before = if removed {
            self.state.objects.remove(&key)
        } else {
            self.state.objects.insert(key.clone(), value.clone())
        };
        let change =
            Change { key: &key, revision: self.revision, at, before: before.as_ref(), value, removed };
        let deed = change.deed();
        self.exact.add(key.as_bytes());
        self.exact.add(value.json());
        self.exact.add(&at.as_nanosecond().to_le_bytes());
        self.shape.add(change.resource().as_bytes());
        self.shape.add(&[deed as u8]);
        if self.violation.is_none() {
            for (property, judge) in &mut self.judges {
                if let Err(why) = judge(&change, &self.state) {
                    let (property, revision) = (property.clone(), self.revision);
                    self.violation = Some(Violation { property, why, revision, at });
                    break;
                }
            }
        }
        self.lines.push(Line { at, revision: self.revision, deed, key });
        if self.lines.len() > TOO_MANY && self.violation.is_none() {
            let (property, why) = ("it comes to rest".to_owned(), format!("{TOO_MANY} writes, and no end"));
            self.violation = Some(Violation { property, why, revision: self.revision, at });
        }
    }
}

/// A storage in memory that notes what is written.
pub(super) struct Recorded {
    inner: MemoryStorage,
    history: History,
}

impl Recorded {
    pub(super) fn new(history: History) -> Self {
        Self { inner: MemoryStorage::new(), history }
    }
}

#[async_trait]
impl Storage for Recorded {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        self.inner.get(key).await
    }

    async fn list(&self, query: &Query) -> Result<Page, StorageError> {
        self.inner.list(query).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        if self.history.violation().is_some() {
            // The run is over, and nothing that goes on is to keep it from its end.
            return Err(StorageError::Unavailable("the run is over".to_owned()));
        }
        let keys: Vec<(String, bool)> = txn
            .ops
            .iter()
            .map(|op| match op {
                Op::Put(key, _) => (key.clone(), false),
                Op::Delete(key, _) => (key.clone(), true),
            })
            .collect();
        // Nothing runs between the commit and the note: a storage in memory does not wait for anything.
        let outcome = self.inner.txn(txn).await?;
        if let TxnOutcome::Committed(values) = &outcome {
            let mut history = self.history.lock();
            keys.iter().zip(values).for_each(|((key, removed), value)| history.note(key, value, *removed));
        }
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Subscription>, StorageError> {
        self.inner.watch(prefix, after).await
    }

    async fn revision(&self) -> Result<u64, StorageError> {
        self.inner.revision().await
    }

    async fn compact(&self, revision: u64) -> Result<(), StorageError> {
        self.inner.compact(revision).await
    }

    fn sealing(&self) -> Arc<dyn Seal> {
        self.inner.sealing()
    }
}

/// The hash of Fowler, Noll and Vo: the same in every build, unlike the hashers of the standard library.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
