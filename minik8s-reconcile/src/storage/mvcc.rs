//! The heart of the in-memory backends: a map, its history and those who wait for more of it. No IO.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Change, Compare, Op, Page, Query, StorageError, Subscription, Txn, TxnOutcome, shard_of};
use crate::stored::Stored;

/// How much history to keep. Older changes are forgotten, and whoever asks for them has to list anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes kept for each shard.
    pub changes: usize,
}

impl Default for Retention {
    /// 4 096 changes of each kind of object.
    fn default() -> Self {
        Self { changes: 4096 }
    }
}

/// The history of one shard.
#[derive(Default)]
struct Shard {
    changes: VecDeque<Change>,
    /// Everything up to this revision may be missing from `changes`.
    forgotten: u64,
    /// Wakes the shard's watchers.
    moved: Arc<Notify>,
}

impl Shard {
    fn forget(&mut self, up_to: u64) {
        self.forgotten = self.forgotten.max(up_to);
        let gone = self.changes.partition_point(|c| c.revision() <= up_to);
        self.changes.drain(..gone);
    }
}

/// The map and its history at one moment.
pub(super) struct State {
    revision: u64,
    values: BTreeMap<Arc<str>, Stored>,
    shards: BTreeMap<String, Shard>,
    /// Everything up to this revision may be missing from any shard.
    forgotten: u64,
    retention: Retention,
    #[cfg(feature = "embedded")]
    pub(super) sealing: Sealing,
}

/// How values are kept where there is a disk, and what was found of that there.
#[cfg(feature = "embedded")]
#[derive(Clone, Debug)]
pub(super) struct Sealing {
    seal: Arc<dyn super::seal::Seal>,
    /// Something would be kept in another way now.
    pub(super) stale: bool,
    /// Something could not be opened.
    pub(super) closed: Option<StorageError>,
}

/// Those who wait for what has been written.
#[derive(Default)]
#[must_use = "call `wake`"]
pub(super) struct Moved(Vec<Arc<Notify>>);

impl Moved {
    fn add(&mut self, shard: &Arc<Notify>) {
        if self.0.iter().all(|known| !Arc::ptr_eq(known, shard)) {
            self.0.push(shard.clone());
        }
    }

    pub(super) fn wake(self) {
        self.0.iter().for_each(|shard| shard.notify_waiters());
    }
}

/// Writes that have been decided upon but not made: what a transaction comes to.
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
}

impl State {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            revision: 1,
            values: BTreeMap::new(),
            shards: BTreeMap::new(),
            forgotten: 0,
            retention,
            #[cfg(feature = "embedded")]
            sealing: Sealing { seal: Arc::new(super::seal::Untouched), stale: false, closed: None },
        }
    }

    /// Has values kept in that way.
    #[cfg(feature = "embedded")]
    pub(super) fn sealed(self, seal: Arc<dyn super::seal::Seal>) -> Self {
        Self { sealing: Sealing { seal, ..self.sealing }, ..self }
    }

    /// How values are kept.
    #[cfg(feature = "embedded")]
    pub(super) fn seal(&self) -> &Arc<dyn super::seal::Seal> {
        &self.sealing.seal
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Sets the revision, which may have come from somewhere else than a change that is known.
    #[cfg(any(feature = "embedded", feature = "etcd"))]
    pub(super) fn set_revision(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Notes that history up to that revision is not known: of a shard, or (`""`) of all.
    #[cfg(any(feature = "embedded", feature = "etcd"))]
    pub(super) fn forget(&mut self, shard: &str, revision: u64) {
        if shard.is_empty() {
            self.forgotten = self.forgotten.max(revision);
        } else {
            self.shards.entry(shard.to_owned()).or_default().forget(revision);
        }
    }

    /// Replaces everything, which is known to be so at `revision`; what came before is not known.
    #[cfg(feature = "etcd")]
    pub(super) fn replace(&mut self, revision: u64, values: Vec<(Arc<str>, Stored)>) {
        self.values = values.into_iter().collect();
        self.revision = self.revision.max(revision);
        self.compact(revision);
    }

    /// How many values there are.
    #[cfg(feature = "embedded")]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// All that is needed to bring this state back: values, and the history with what its changes replaced.
    #[cfg(feature = "embedded")]
    pub(super) fn contents(&self) -> super::embedded::Contents {
        use super::embedded::{Contents, Kept};
        let values = self.values.iter().map(|(key, value)| (key, value, false));
        let history = self.shards.values().flat_map(|s| &s.changes).flat_map(|change| {
            let previous = change.previous.iter().map(|value| (&change.key, value, false));
            previous.chain([(&change.key, &change.value, change.removed)])
        });
        let kept = |(key, value, removed): (&Arc<str>, &Stored, bool)| Kept {
            key: key.clone(),
            value: value.clone(),
            removed,
        };
        let forgotten = self.shards.iter().map(|(name, shard)| (name.clone(), shard.forgotten));
        Contents {
            revision: self.revision,
            forgotten: forgotten.chain([(String::new(), self.forgotten)]).filter(|(_, at)| *at > 0).collect(),
            records: history.chain(values).map(kept).collect(),
            seal: self.seal().clone(),
        }
    }

    /// Puts a record back after a restart, oldest first.
    #[cfg(feature = "embedded")]
    pub(super) fn replay(&mut self, key: &str, value: Stored, removed: bool) {
        let key = self.shared(key);
        let previous =
            if removed { self.values.remove(&key) } else { self.values.insert(key.clone(), value.clone()) };
        self.revision = self.revision.max(value.revision());
        if value.revision() > self.forgotten(shard_of(&key)) {
            self.remember(Change { key, value, previous, removed });
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Stored> {
        self.values.get(key)
    }

    /// What `txn` comes to if it is the next one, with `pending` decided before it but not yet applied.
    pub(super) fn plan(
        &self,
        txn: &Txn,
        revision: u64,
        pending: &BTreeMap<Arc<str>, Option<Stored>>,
    ) -> Result<Plan, TxnOutcome> {
        let current = |key: &str| match pending.get(key) {
            Some(value) => value.as_ref(),
            None => self.values.get(key),
        };
        if let Some(index) = txn.compare.iter().position(|c: &Compare| !c.holds(current(c.key()))) {
            let current = current(txn.compare[index].key()).cloned();
            return Err(TxnOutcome::Refused { index, current });
        }
        let changes = txn.ops.iter().filter_map(|op| match op {
            Op::Put(key, draft) => {
                let previous = current(key).cloned();
                Some(Change { key: self.shared(key), value: draft.stamp(revision), previous, removed: false })
            }
            Op::Delete(key, last) => current(key).cloned().map(|previous| Change {
                key: self.shared(key),
                value: last.stamp(revision),
                previous: Some(previous),
                removed: true,
            }),
        });
        Ok(Plan { changes: changes.collect() })
    }

    /// The key as the map holds it, so that a key's text is in memory once.
    pub(super) fn shared(&self, key: &str) -> Arc<str> {
        self.values.get_key_value(key).map_or_else(|| key.into(), |(k, _)| k.clone())
    }

    /// Makes the planned writes. Whoever waits for them is in `moved` afterwards, to be woken when the state is free for
    /// them to read.
    pub(super) fn apply(&mut self, plan: Plan, moved: &mut Moved) {
        for change in plan.changes {
            self.revision = self.revision.max(change.revision());
            if change.removed {
                self.values.remove(&change.key);
            } else {
                self.values.insert(change.key.clone(), change.value.clone());
            }
            moved.add(self.remember(change));
        }
    }

    fn remember(&mut self, change: Change) -> &Arc<Notify> {
        let Self { shards, retention, .. } = self;
        let name = shard_of(&change.key);
        if !shards.contains_key(name) {
            shards.insert(name.to_owned(), Shard::default());
        }
        let shard = shards.get_mut(name).expect("inserted above");
        shard.changes.push_back(change);
        if shard.changes.len() > retention.changes {
            // A revision is forgotten as a whole: half a transaction is no history.
            let up_to = shard.changes[shard.changes.len() - retention.changes - 1].revision();
            shard.forget(up_to);
        }
        &shard.moved
    }

    pub(super) fn forgotten(&self, shard: &str) -> u64 {
        self.shards.get(shard).map_or(0, |s| s.forgotten).max(self.forgotten)
    }

    pub(super) fn compact(&mut self, revision: u64) {
        self.forgotten = self.forgotten.max(revision.min(self.revision));
        for shard in self.shards.values_mut() {
            shard.forget(self.forgotten);
            shard.moved.notify_waiters();
        }
    }

    pub(super) fn list(&self, query: &Query) -> Result<Page, StorageError> {
        let at = query.at.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StorageError::Future { requested: at, current: self.revision });
        }
        let shard = shard_of(&query.prefix);
        let oldest = self.forgotten(shard);
        if at < oldest {
            return Err(StorageError::Compacted { requested: at, oldest });
        }
        let start = match &query.after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(query.prefix.as_str()),
        };
        let current = self
            .values
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(query.prefix.as_str()));
        let past = if at < self.revision { self.undone(shard, at) } else { BTreeMap::new() };
        let mut page = Page { items: Vec::new(), revision: at, remaining: 0 };
        let mut push = |key: &Arc<str>, value: &Stored| {
            if query.limit == 0 || page.items.len() < query.limit {
                page.items.push((key.clone(), value.clone()));
            } else {
                page.remaining += 1;
            }
        };
        if past.is_empty() {
            current.for_each(|(key, value)| push(key, value));
        } else {
            let behind = |key: &str| query.after.as_deref().is_none_or(|after| key > after);
            let mut merged: BTreeMap<&Arc<str>, &Stored> = current.collect();
            for (key, value) in &past {
                if key.starts_with(query.prefix.as_str()) && behind(key) {
                    match value {
                        Some(value) => merged.insert(key, value),
                        None => merged.remove(key),
                    };
                }
            }
            merged.into_iter().for_each(|(key, value)| push(key, value));
        }
        Ok(page)
    }

    /// What the keys that changed after the revision `at` held then.
    fn undone(&self, shard: &str, at: u64) -> BTreeMap<Arc<str>, Option<Stored>> {
        let mut past = BTreeMap::new();
        if let Some(shard) = self.shards.get(shard) {
            for change in shard.changes.iter().rev().take_while(|c| c.revision() > at) {
                past.insert(change.key.clone(), change.previous.clone());
            }
        }
        past
    }

    /// Changes of `prefix` after the revision `after`.
    fn since(&self, prefix: &str, after: u64) -> Result<Vec<Change>, StorageError> {
        let name = shard_of(prefix);
        let oldest = self.forgotten(name);
        if after < oldest {
            return Err(StorageError::Compacted { requested: after, oldest });
        }
        let Some(shard) = self.shards.get(name) else { return Ok(Vec::new()) };
        let from = shard.changes.partition_point(|c| c.revision() <= after);
        Ok(shard.changes.range(from..).filter(|c| c.key.starts_with(prefix)).cloned().collect())
    }

    fn moved(&mut self, prefix: &str) -> Arc<Notify> {
        self.shards.entry(shard_of(prefix).to_owned()).or_default().moved.clone()
    }
}

/// The state, shared between readers, the writer and watchers.
#[derive(Clone)]
pub(super) struct Shared(Arc<RwLock<State>>);

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(RwLock::new(state)))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().expect("no writer panics halfway")
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().expect("no writer panics halfway")
    }

    pub(super) fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Subscription>, StorageError> {
        let mut state = self.write();
        if after > state.revision {
            return Err(StorageError::Future { requested: after, current: state.revision });
        }
        let oldest = state.forgotten(shard_of(prefix));
        if after < oldest {
            return Err(StorageError::Compacted { requested: after, oldest });
        }
        let moved = state.moved(prefix);
        Ok(Box::new(Cursor { state: self.clone(), prefix: prefix.to_owned(), progress: after, moved }))
    }
}

/// A place in the history. It holds no changes of its own, so a slow reader costs nothing and slows nobody.
struct Cursor {
    state: Shared,
    prefix: String,
    progress: u64,
    moved: Arc<Notify>,
}

#[async_trait]
impl Subscription for Cursor {
    async fn next(&mut self) -> Result<Vec<Change>, StorageError> {
        loop {
            let moved = self.moved.clone();
            let mut moved = std::pin::pin!(moved.notified());
            // Wait from before the look, or a change between the look and the wait would go unnoticed.
            moved.as_mut().enable();
            {
                let state = self.state.read();
                let changes = state.since(&self.prefix, self.progress)?;
                self.progress = state.revision();
                if !changes.is_empty() {
                    return Ok(changes);
                }
            }
            moved.await;
        }
    }

    fn progress(&self) -> u64 {
        // Whatever happened since the last look concerned other prefixes, unless `next` has something to say.
        let state = self.state.read();
        match state.since(&self.prefix, self.progress) {
            Ok(changes) if changes.is_empty() => state.revision(),
            _ => self.progress,
        }
    }
}
