//! The durable storage of one machine: a log of changes in a [redb](https://www.redb.org) file, and everything in
//! memory for reading.
//!
//! Every change is one record of the log; the newest record of a key is its value, so there is no second copy. A
//! writer thread takes all transactions that wait, decides them in order, commits them together and only then makes
//! them visible: what was read or acknowledged is on the disk. Opening replays the log, which brings back the history
//! too, so watches resume across restarts.
//!
//! # Guarantees
//! - A transaction is acknowledged after its commit has been flushed to the disk.
//! - A crash at any moment leaves whole transactions: all those acknowledged, and perhaps the ones under way.
//! - Two processes cannot open the same file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::mvcc::{Moved, Retention, Shared, State};
use super::{Change, Page, Query, Storage, StorageError, Subscription, Txn, TxnOutcome, shard_of};
use crate::stored::Stored;

/// (revision, place in its transaction) → record.
const LOG: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("log");
/// `revision`, `format` and `forgotten/SHARD` → number.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;
/// Transactions that may wait for the disk before callers wait for room.
const QUEUE: usize = 4096;
/// Transactions that go to the disk together at most.
const BATCH: usize = 512;

/// A storage in one file. Dropping it waits for the writes under way.
pub struct EmbeddedStorage {
    path: PathBuf,
    state: Shared,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

enum Job {
    Txn(Txn, oneshot::Sender<Result<TxnOutcome, StorageError>>),
    Compact(u64, oneshot::Sender<Result<(), StorageError>>),
}

impl EmbeddedStorage {
    /// Opens the storage in the file `path`, making it (and its directory) if there is none.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if the file cannot be opened or another process has it,
    /// [`StorageError::Corrupt`] if it holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::with_retention(path, Retention::default())
    }

    /// Opens the storage, keeping that much history from now on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_retention(path: impl AsRef<Path>, retention: Retention) -> Result<Self, StorageError> {
        let path = path.as_ref().to_owned();
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)
                .map_err(|e| StorageError::Unavailable(format!("cannot make {}: {e}", dir.display())))?;
        }
        let db = open_file(&path)?;
        let mut state = State::new(retention);
        state.keep_dropped();
        load(&db, &mut state)?;
        let state = Shared::new(state);
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let writer = Writer { path: path.clone(), db: Some(db), state: state.clone(), inbox };
        let writer =
            std::thread::Builder::new()
                .name("minik8s-storage".into())
                .spawn(move || writer.run())
                .map_err(|e| StorageError::Unavailable(format!("cannot start the writer thread: {e}")))?;
        Ok(Self { path, state, jobs: Some(jobs), writer: Some(writer) })
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
        write!(f, "EmbeddedStorage({})", self.path.display())
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
}

/// Bytes of the file's pages that redb keeps in memory. What is read is read from the map; the file is only written, and
/// that at its end.
const PAGE_CACHE: usize = 8 * 1024 * 1024;

/// The one that writes.
struct Writer {
    path: PathBuf,
    /// `None` after a failed commit, until it can be opened again.
    db: Option<Database>,
    state: Shared,
    inbox: mpsc::Receiver<Job>,
}

type Reply = oneshot::Sender<Result<TxnOutcome, StorageError>>;

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        while self.inbox.blocking_recv_many(&mut batch, BATCH) > 0 {
            let mut txns = Vec::new();
            for job in batch.drain(..) {
                match job {
                    Job::Txn(txn, reply) => txns.push((txn, reply)),
                    Job::Compact(revision, reply) => {
                        self.commit(std::mem::take(&mut txns));
                        // A caller that left does not want the answer.
                        let _ = reply.send(self.compact(revision));
                    }
                }
            }
            self.commit(txns);
        }
    }

    fn commit(&mut self, txns: Vec<(Txn, Reply)>) {
        if txns.is_empty() {
            return;
        }
        let mut replies: Vec<(Reply, TxnOutcome)> = Vec::new();
        let mut plans = Vec::new();
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
        let changes: Vec<&[Change]> = plans.iter().map(|p| p.changes.as_slice()).collect();
        let written = if changes.iter().all(|c| c.is_empty()) { Ok(()) } else { self.write(&changes) };
        match written {
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

    /// Brings the changes to the disk and lets go of records that nothing needs any more.
    fn write(&mut self, txns: &[&[Change]]) -> Result<(), StorageError> {
        let garbage = self.state.write().take_dropped();
        let result = self.write_records(txns, &garbage);
        if result.is_err() {
            // redb does not go on after a failed write: open the file anew before the next one. What was dropped
            // is found again then, at the latest by the next process.
            self.db = None;
        }
        result
    }

    fn write_records(&mut self, txns: &[&[Change]], garbage: &[Change]) -> Result<(), StorageError> {
        let db = match &mut self.db {
            Some(db) => db,
            none => none.insert(open_file(&self.path)?),
        };
        let write = db.begin_write().map_err(failed)?;
        {
            let mut log = write.open_table(LOG).map_err(failed)?;
            let mut meta = write.open_table(META).map_err(failed)?;
            let mut record = Vec::new();
            for changes in txns {
                for (index, change) in (0..).zip(*changes) {
                    encode(change, &mut record);
                    log.insert((change.revision(), index), record.as_slice()).map_err(failed)?;
                    meta.insert("revision", change.revision()).map_err(failed)?;
                }
            }
            for change in garbage {
                if let Some(previous) = &change.previous {
                    remove(&mut log, &change.key, previous.revision())?;
                }
                if change.removed {
                    remove(&mut log, &change.key, change.revision())?;
                }
                let name = format!("forgotten/{}", shard_of(&change.key));
                meta.insert(name.as_str(), change.revision()).map_err(failed)?;
            }
        }
        write.commit().map_err(failed)
    }

    fn compact(&mut self, revision: u64) -> Result<(), StorageError> {
        self.state.write().compact(revision);
        self.write(&[])
    }
}

/// Removes the record of `key` that was written at `revision`.
fn remove(
    log: &mut redb::Table<'_, (u64, u32), &'static [u8]>,
    key: &str,
    revision: u64,
) -> Result<(), StorageError> {
    let mut place = None;
    for entry in log.range((revision, 0)..=(revision, u32::MAX)).map_err(failed)? {
        let (at, record) = entry.map_err(failed)?;
        if decode(record.value()).is_some_and(|r| r.key == key) {
            place = Some(at.value());
            break;
        }
    }
    if let Some(place) = place {
        log.remove(place).map_err(failed)?;
    }
    Ok(())
}

fn open_file(path: &Path) -> Result<Database, StorageError> {
    let db = Database::builder().set_cache_size(PAGE_CACHE).create(path).map_err(|e| match e {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            StorageError::Unavailable(format!("{} is in use by another process", path.display()))
        }
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(what)) => {
            StorageError::Corrupt(format!("{}: {what}", path.display()))
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(e))
            if e.kind() == std::io::ErrorKind::InvalidData =>
        {
            StorageError::Corrupt(format!("{} is not a minik8s store: {e}", path.display()))
        }
        e => StorageError::Unavailable(format!("cannot open {}: {e}", path.display())),
    })?;
    let write = db.begin_write().map_err(failed)?;
    {
        write.open_table(LOG).map_err(failed)?;
        let mut meta = write.open_table(META).map_err(failed)?;
        let format = meta.get("format").map_err(failed)?.map(|f| f.value());
        match format {
            Some(FORMAT) => {}
            Some(other) => {
                let path = path.display();
                return Err(StorageError::Corrupt(format!("{path} has format {other}, not {FORMAT}")));
            }
            None => {
                meta.insert("format", FORMAT).map_err(failed)?;
            }
        }
    }
    write.commit().map_err(failed)?;
    Ok(db)
}

fn load(db: &Database, state: &mut State) -> Result<(), StorageError> {
    let read = db.begin_read().map_err(failed)?;
    let meta = read.open_table(META).map_err(failed)?;
    let mut forgotten = BTreeMap::new();
    let mut revision = 0;
    for entry in meta.iter().map_err(failed)? {
        let (name, value) = entry.map_err(failed)?;
        match name.value() {
            "revision" => revision = value.value(),
            name => {
                if let Some(shard) = name.strip_prefix("forgotten/") {
                    forgotten.insert(shard.to_owned(), value.value());
                }
            }
        }
    }
    state.restore(revision, &forgotten);
    let log = read.open_table(LOG).map_err(failed)?;
    for entry in log.iter().map_err(failed)? {
        let (at, bytes) = entry.map_err(failed)?;
        let (revision, index) = at.value();
        let record = decode(bytes.value()).ok_or_else(|| {
            StorageError::Corrupt(format!("record {index} of revision {revision} is damaged"))
        })?;
        let json = bytes::Bytes::copy_from_slice(record.json);
        state.replay(record.key, Stored::new(json, revision), record.removed);
    }
    Ok(())
}

/// A record of the log: what happened (1 byte), the key's length (4 bytes, little-endian), the key, the value.
struct Record<'a> {
    removed: bool,
    key: &'a str,
    json: &'a [u8],
}

fn encode(change: &Change, out: &mut Vec<u8>) {
    out.clear();
    out.push(u8::from(change.removed));
    out.extend_from_slice(&u32::try_from(change.key.len()).expect("keys are short").to_le_bytes());
    out.extend_from_slice(change.key.as_bytes());
    out.extend_from_slice(change.value.json());
}

fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let (&removed, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (key, json) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some(Record { removed: removed == 1, key: std::str::from_utf8(key).ok()?, json })
}

fn failed(error: impl Into<redb::Error>) -> StorageError {
    match error.into() {
        redb::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => {
            StorageError::Full(e.to_string())
        }
        redb::Error::Corrupted(what) => StorageError::Corrupt(what),
        e => StorageError::Unavailable(e.to_string()),
    }
}
