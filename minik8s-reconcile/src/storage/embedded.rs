//! The durable storage of one machine: a log of changes on the disk, and everything in memory for reading.
//!
//! A writer thread takes all transactions that wait, decides them in order, appends them to the log as one frame,
//! flushes it, and only then makes them visible: what was read or acknowledged is on the disk. When the log has grown
//! to the size of what it holds, a snapshot is written beside it by another thread, and the log before it goes. Opening
//! reads the snapshot and the log behind it, which brings back the history too, so watches resume across restarts.
//!
//! # Guarantees
//! - A transaction is acknowledged after it has been flushed to the disk.
//! - A crash at any moment leaves whole transactions: all those acknowledged, and perhaps the ones under way.
//! - What is read from the disk is what was written, or an error: everything carries a checksum (CRC-32C), and no part
//!   can be missing unnoticed. The one thing that cannot be told from a write that a crash cut off is damage to the
//!   last write; it is cut off, kept aside, and there is a warning.
//! - A full disk refuses writes with [`StorageError::Full`]; reads go on, and so do writes when there is room again.
//! - Two processes cannot open the same directory.

mod directory;
mod frame;
mod record;
#[cfg(all(test, feature = "encryption"))]
mod sealed_tests;
mod segment;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::mvcc::{Moved, Plan, Retention, Shared, State};
use super::seal::{Plain, Seal};
use super::{Op, Page, Query, Storage, StorageError, Subscription, Txn, TxnOutcome};
use crate::stored::Stored;
use directory::Damage;
use record::Record;
use segment::Segment;

pub(super) use directory::{lock, read_snapshot};
pub(super) use snapshot::{Contents, Kept};

/// Transactions that may wait for the disk before callers wait for room.
const QUEUE: usize = 4096;
/// Transactions that go to the disk together at most, and their bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// When the log is replaced by a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Not before the log has that many bytes, and as many as the last snapshot. Default: 64 MiB.
    pub log_bytes: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { log_bytes: 64 * 1024 * 1024 }
    }
}

/// A storage in a directory of its own. Dropping it waits for the writes under way.
pub struct EmbeddedStorage {
    dir: PathBuf,
    state: Shared,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

enum Job {
    Txn(Txn, Reply),
    Compact(u64, oneshot::Sender<Result<(), StorageError>>),
}

type Reply = oneshot::Sender<Result<TxnOutcome, StorageError>>;

impl EmbeddedStorage {
    /// Opens the storage in the directory `dir`, making it if there is none.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if the directory cannot be used or another process has it,
    /// [`StorageError::Corrupt`] if it holds something else, or what it holds is damaged.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::with(dir, Retention::default(), Compaction::default())
    }

    /// Opens the storage, keeping that much history from now on, and that much log.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with(
        dir: impl AsRef<Path>,
        retention: Retention,
        compaction: Compaction,
    ) -> Result<Self, StorageError> {
        Self::start(dir, retention, compaction, Arc::new(Plain))
    }

    /// Opens the storage, with values kept as `seal` does it. What was kept in another way is written anew, at the next
    /// write.
    ///
    /// # Errors
    /// As [`Self::open`]; and [`StorageError::Unavailable`] if there is no key for something.
    pub fn sealed(dir: impl AsRef<Path>, seal: Arc<dyn Seal>) -> Result<Self, StorageError> {
        Self::start(dir, Retention::default(), Compaction::default(), seal)
    }

    fn start(
        dir: impl AsRef<Path>,
        retention: Retention,
        compaction: Compaction,
        seal: Arc<dyn Seal>,
    ) -> Result<Self, StorageError> {
        let dir = dir.as_ref().to_owned();
        let unusable = |e: io::Error| failed(&format!("cannot use {}", dir.display()), &e);
        if dir.is_file() {
            return Err(StorageError::Corrupt(format!("{} is a file, not a directory", dir.display())));
        }
        std::fs::create_dir_all(&dir).map_err(unusable)?;
        let lock = directory::lock(&dir)?;
        let mut state = State::new(retention).sealed(seal);
        let loaded = directory::load(&dir, &mut state, Damage::Refuse).map_err(|error| match error {
            StorageError::Corrupt(what) => StorageError::Corrupt(format!("{what}. {ADVICE}")),
            other => other,
        })?;
        directory::tidy(&dir, loaded.snapshot).map_err(unusable)?;
        let segment = loaded.segment(&dir, state.revision()).map_err(unusable)?;
        let stale = state.sealing.stale;
        let state = Shared::new(state);
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let writer = Writer {
            dir: dir.clone(),
            segment,
            state: state.clone(),
            compaction,
            due: if stale { 0 } else { compaction.log_bytes.max(loaded.bytes) },
            snapshot: None,
            _lock: lock,
        };
        let writer = std::thread::Builder::new()
            .name("minik8s-storage".into())
            .spawn(move || writer.run(inbox))
            .map_err(|e| StorageError::Unavailable(format!("cannot start the writer thread: {e}")))?;
        Ok(Self { dir, state, jobs: Some(jobs), writer: Some(writer) })
    }

    async fn send<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StorageError>>) -> Job,
    ) -> Result<T, StorageError> {
        let gone = || StorageError::Unavailable("the storage has been shut down".into());
        let (reply, answer) = oneshot::channel();
        self.jobs.as_ref().ok_or_else(gone)?.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// What to do about damage.
const ADVICE: &str = "Nothing was changed. Restore a backup into an empty directory (minik8s restore FILE), or save what \
                      can be read, without the changes named here, with: minik8s backup --salvage --data-dir DIR FILE";

impl Drop for EmbeddedStorage {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // It panicked if this fails; that has been printed already.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for EmbeddedStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedStorage({})", self.dir.display())
    }
}

#[async_trait]
impl Storage for EmbeddedStorage {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        Ok(self.state.read().get(key).cloned())
    }

    async fn list(&self, query: &Query) -> Result<Page, StorageError> {
        self.state.read().list(query)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        self.send(|reply| Job::Txn(txn, reply)).await
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Subscription>, StorageError> {
        self.state.watch(prefix, after)
    }

    async fn revision(&self) -> Result<u64, StorageError> {
        Ok(self.state.read().revision())
    }

    async fn compact(&self, revision: u64) -> Result<(), StorageError> {
        self.send(|reply| Job::Compact(revision, reply)).await
    }

    fn sealing(&self) -> Arc<dyn Seal> {
        self.state.read().seal().clone()
    }
}

/// The one that writes.
struct Writer {
    dir: PathBuf,
    segment: Segment,
    state: Shared,
    compaction: Compaction,
    /// A snapshot is due when the log has that many bytes.
    due: u64,
    /// A snapshot that is being written; its size is the answer.
    snapshot: Option<JoinHandle<io::Result<u64>>>,
    _lock: File,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while inbox.blocking_recv_many(&mut batch, BATCH) > 0 {
            let (mut txns, mut bytes) = (Vec::new(), 0);
            for job in batch.drain(..) {
                match job {
                    Job::Txn(txn, reply) => {
                        bytes += txn.ops.iter().map(Op::size).sum::<usize>();
                        txns.push((txn, reply));
                        if bytes >= BATCH_BYTES {
                            self.commit(std::mem::take(&mut txns));
                            bytes = 0;
                        }
                    }
                    Job::Compact(revision, reply) => {
                        self.commit(std::mem::take(&mut txns));
                        // A caller that left does not want the answer.
                        let _ = reply.send(self.compact(revision));
                    }
                }
            }
            self.commit(txns);
            self.make_snapshots();
        }
        if let Some(snapshot) = self.snapshot.take() {
            self.finish_snapshot(snapshot);
        }
    }

    fn commit(&mut self, txns: Vec<(Txn, Reply)>) {
        if txns.is_empty() {
            return;
        }
        let mut replies: Vec<(Reply, TxnOutcome)> = Vec::new();
        let mut plans: Vec<Plan> = Vec::new();
        {
            let state = self.state.read();
            let mut revision = state.revision();
            let mut pending: BTreeMap<Arc<str>, Option<Stored>> = BTreeMap::new();
            for (txn, reply) in txns {
                match state.plan(&txn, revision + 1, &pending) {
                    Ok(plan) => {
                        if !plan.changes.is_empty() {
                            revision += 1;
                        }
                        for change in &plan.changes {
                            let value = (!change.removed).then(|| change.value.clone());
                            pending.insert(change.key.clone(), value);
                        }
                        let written = plan.changes.iter().map(|c| c.value.clone()).collect();
                        replies.push((reply, TxnOutcome::Committed(written)));
                        plans.push(plan);
                    }
                    Err(refused) => replies.push((reply, refused)),
                }
            }
        }
        match self.payload(&plans).and_then(|payload| self.append(&payload)) {
            Ok(()) => {
                let mut moved = Moved::default();
                let mut state = self.state.write();
                plans.into_iter().for_each(|plan| state.apply(plan, &mut moved));
                drop(state);
                for (reply, outcome) in replies {
                    let _ = reply.send(Ok(outcome));
                }
                moved.wake();
            }
            Err(error) => {
                for (reply, _) in replies {
                    // Those refused were measured against writes that did not happen.
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// What is to be on the disk for the plans.
    fn payload(&self, plans: &[Plan]) -> Result<Vec<u8>, StorageError> {
        let seal = self.state.read().seal().clone();
        let mut payload = Vec::new();
        for change in plans.iter().flat_map(|plan| &plan.changes) {
            let (revision, key) = (change.revision(), &*change.key);
            let json = &*seal.seal(key, change.value.json())?;
            let record = if change.removed {
                Record::Removed { revision, key, json }
            } else {
                Record::Put { revision, key, json }
            };
            record.encode(&mut payload);
        }
        Ok(payload)
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), StorageError> {
        if payload.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(payload.len() + frame::FRAME_HEADER);
        frame::encode(self.segment.header(), payload, &mut bytes);
        self.segment
            .append(&bytes)
            .map_err(|e| failed(&format!("cannot write to {}", self.dir.display()), &e))
    }

    fn compact(&mut self, revision: u64) -> Result<(), StorageError> {
        let revision = revision.min(self.state.read().revision());
        let mut payload = Vec::new();
        Record::Forgotten { revision, shard: "" }.encode(&mut payload);
        self.append(&payload)?;
        self.state.write().compact(revision);
        Ok(())
    }

    fn make_snapshots(&mut self) {
        if let Some(snapshot) = self.snapshot.take_if(|s| s.is_finished()) {
            self.finish_snapshot(snapshot);
        }
        if self.snapshot.is_none()
            && self.segment.bytes() >= self.due
            && let Err(error) = self.begin_snapshot()
        {
            self.postpone(&error);
        }
    }

    /// Goes on in a new log, and has a snapshot written of all before it. Writes wait only while what there is is
    /// counted, not while it is written.
    fn begin_snapshot(&mut self) -> io::Result<()> {
        let revision = self.state.read().revision();
        self.segment = Segment::create(&self.dir, revision)?;
        let mut contents = self.state.read().contents();
        let dir = self.dir.clone();
        let write = move || {
            contents.sort();
            contents.store(&dir)
        };
        self.snapshot = Some(std::thread::Builder::new().name("minik8s-snapshot".into()).spawn(write)?);
        Ok(())
    }

    fn finish_snapshot(&mut self, snapshot: JoinHandle<io::Result<u64>>) {
        match snapshot.join() {
            Ok(Ok(size)) => self.due = self.compaction.log_bytes.max(size),
            Ok(Err(error)) => self.postpone(&error),
            Err(_) => self.postpone(&io::Error::other("the thread that wrote it has panicked")),
        }
    }

    /// A snapshot could not be written: what it was to replace stays, and the next one is tried later.
    fn postpone(&mut self, error: &io::Error) {
        tracing::warn!(dir = %self.dir.display(), %error, "cannot write a snapshot; the log stays as it is");
        self.due = self.segment.bytes() + self.compaction.log_bytes / 4;
    }
}

/// What an error of the operating system is to a storage.
pub(super) fn failed(what: &str, error: &io::Error) -> StorageError {
    let text = format!("{what}: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StorageError::Full(text),
        _ => StorageError::Unavailable(text),
    }
}

/// What can be read of the directory `dir` in spite of damage, and what cannot.
pub(super) fn salvage(dir: &Path) -> Result<(State, Vec<String>), StorageError> {
    if !dir.is_dir() {
        return Err(StorageError::Unavailable(format!("there is no directory {}", dir.display())));
    }
    let _lock = directory::lock(dir)?;
    let mut state = State::new(Retention { changes: 0 });
    let mut lost = Vec::new();
    directory::load(dir, &mut state, Damage::Skip(&mut lost))?;
    Ok((state, lost))
}

/// Makes `dir` a storage of these contents, if there is none.
pub(super) fn establish(dir: &Path, contents: Contents) -> Result<(), StorageError> {
    let unusable = |e: io::Error| failed(&format!("cannot use {}", dir.display()), &e);
    std::fs::create_dir_all(dir).map_err(unusable)?;
    let _lock = directory::lock(dir)?;
    if !directory::Files::list(dir).map_err(unusable)?.is_empty() {
        return Err(StorageError::Unavailable(format!("there are objects in {} already", dir.display())));
    }
    contents.store(dir).map_err(unusable)?;
    Ok(())
}
