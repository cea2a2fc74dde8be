//! Where objects are kept: an ordered map with one global revision, transactions and a history to watch.
//!
//! Keys look like `pods/default/web`; what stands before the first `/` is the key's *shard*. Values are the JSON of
//! objects. A transaction that writes raises the revision by one, however many keys it writes, and the revision is
//! stamped into each value it writes (see [`Draft`]).
//!
//! # Guarantees, of every implementation
//! - A transaction is atomic, and durable (as far as the storage is durable at all) before it is acknowledged.
//! - Reads and transactions are linearizable.
//! - A watch delivers every change of its prefix after its start, in the order of revisions, once; or it ends with
//!   [`StorageError::Compacted`].

#[cfg(feature = "embedded")]
pub mod backup;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "encryption")]
pub mod encryption;
#[cfg(feature = "etcd")]
pub mod etcd;
pub(crate) mod fenced;
#[cfg(any(test, feature = "conformance"))]
pub mod history;
pub mod memory;
mod mvcc;
pub mod seal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use crate::stored::Stored;

pub use mvcc::Retention;

/// Why a storage did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The revision is older than the history that is kept.
    #[error("revision {requested} has been compacted; the oldest one kept is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: u64,
        /// What could have been.
        oldest: u64,
    },
    /// The revision has not come yet.
    #[error("revision {requested} is in the future; the current one is {current}")]
    Future {
        /// What was asked for.
        requested: u64,
        /// What there is.
        current: u64,
    },
    /// The disk is full: reads go on, writes are refused.
    #[error("no space left for the data: {0}")]
    Full(String),
    /// What is on the disk is not what was written.
    #[error("the data is damaged: {0}")]
    Corrupt(String),
    /// Whoever writes was a leader and is none any more: see [`crate::ApiServer::fenced`].
    #[error("somebody else leads by now: {0} has changed")]
    Fenced(String),
    /// The storage cannot be reached, or has been shut down.
    #[error("the storage is unavailable: {0}")]
    Unavailable(String),
}

/// A value on its way into the storage: JSON with a gap for the revision.
#[derive(Clone, Debug)]
pub struct Draft {
    json: Vec<u8>,
    gap: usize,
}

impl Draft {
    /// A value whose revision goes in at the offset `gap`, between two quotes.
    ///
    /// # Panics
    /// `gap` lies outside `json`.
    pub fn new(json: Vec<u8>, gap: usize) -> Self {
        assert!(gap <= json.len(), "the gap at {gap} lies outside {} bytes", json.len());
        Self { json, gap }
    }

    /// The value as it is at `revision`.
    pub fn stamp(&self, revision: u64) -> Stored {
        let mut digits = [0; 20];
        let digits = decimal(revision, &mut digits);
        let mut json = Vec::with_capacity(self.json.len() + digits.len());
        json.extend_from_slice(&self.json[..self.gap]);
        json.extend_from_slice(digits);
        json.extend_from_slice(&self.json[self.gap..]);
        Stored::new(json.into(), revision)
    }

    /// Whether `stored` holds the same value, whatever its revision.
    pub fn same_as(&self, stored: &Stored) -> bool {
        let json = stored.json();
        let extra = json.len().wrapping_sub(self.json.len());
        json.len() >= self.json.len()
            && json[..self.gap.min(json.len())] == self.json[..self.gap]
            && json[self.gap + extra..] == self.json[self.gap..]
            && json[self.gap..self.gap + extra].iter().all(u8::is_ascii_digit)
    }
}

fn decimal(mut n: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &buffer[at..];
        }
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// There is no such key.
    Absent(String),
    /// There is such a key.
    Present(String),
    /// The key was last written at that revision.
    Revision(String, u64),
}

impl Compare {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Revision(key, _) => key,
        }
    }

    /// Whether it holds for what is stored under the key.
    pub fn holds(&self, current: Option<&Stored>) -> bool {
        match self {
            Self::Absent(_) => current.is_none(),
            Self::Present(_) => current.is_some(),
            Self::Revision(_, revision) => current.is_some_and(|c| c.revision() == *revision),
        }
    }
}

/// A write of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes the value.
    Put(String, Draft),
    /// Removes the key; watchers get `last` as its final state.
    Delete(String, Draft),
}

impl Op {
    /// Bytes of the key and the value.
    #[cfg(feature = "embedded")]
    fn size(&self) -> usize {
        let (Self::Put(key, value) | Self::Delete(key, value)) = self;
        key.len() + value.json.len()
    }
}

/// Writes that happen together if all conditions hold.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// The writes; no key twice.
    pub ops: Vec<Op>,
}

/// What came of a transaction.
#[derive(Clone, Debug)]
pub enum TxnOutcome {
    /// The values as written (for a removal, its final state), in the order of the writes.
    Committed(Vec<Stored>),
    /// The condition of that index does not hold; nothing was written.
    Refused {
        /// The first condition that does not hold.
        index: usize,
        /// What is stored under its key.
        current: Option<Stored>,
    },
}

/// Which keys to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Keys that begin so; a whole shard or more precise.
    pub prefix: String,
    /// Only keys behind this one.
    pub after: Option<String>,
    /// At most that many; 0 for all.
    pub limit: usize,
    /// As of that revision; `None` for now.
    pub at: Option<u64>,
}

impl Query {
    /// All keys that begin with `prefix`, as they are now.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// What a query found.
#[derive(Clone, Debug)]
pub struct Page {
    /// Keys and values in the order of the keys.
    pub items: Vec<(Arc<str>, Stored)>,
    /// The revision that this shows.
    pub revision: u64,
    /// How many more keys there are behind the last one.
    pub remaining: u64,
}

/// One key's change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key.
    pub key: Arc<str>,
    /// The value after it; for a removal, the final state, or the one before where the storage cannot keep that.
    pub value: Stored,
    /// The value before it.
    pub previous: Option<Stored>,
    /// Whether the key was removed.
    pub removed: bool,
}

impl Change {
    /// The revision at which it happened.
    pub fn revision(&self) -> u64 {
        self.value.revision()
    }
}

/// A running watch.
#[async_trait]
pub trait Subscription: Send {
    /// The next changes, at least one, in order. An empty batch says that nothing happened for the prefix up to
    /// [`Self::progress`] since the last call, after the storage was asked to report by [`Self::progress`].
    ///
    /// # Errors
    /// [`StorageError::Compacted`] if this watch was too slow for the history; it is over then.
    ///
    /// # Cancel safety
    /// No change is lost when the future is dropped.
    async fn next(&mut self) -> Result<Vec<Change>, StorageError>;

    /// The revision up to which everything has been delivered.
    fn progress(&self) -> u64;
}

/// An ordered, versioned, watchable map.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// The value under `key`.
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError>;
    /// Many values.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] or [`StorageError::Future`] for `query.at`.
    async fn list(&self, query: &Query) -> Result<Page, StorageError>;
    /// Writes, if the conditions hold.
    ///
    /// # Errors
    /// When the answer is an error, the writes may have happened all the same.
    ///
    /// # Cancel safety
    /// The transaction goes on when the future is dropped.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StorageError>;
    /// Changes of keys that begin with `prefix` (a whole shard or more precise) after the revision `after`.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] if the history does not reach back that far; [`StorageError::Future`].
    async fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Subscription>, StorageError>;
    /// The current revision.
    async fn revision(&self) -> Result<u64, StorageError>;
    /// Forgets the history up to and including `revision`.
    async fn compact(&self, revision: u64) -> Result<(), StorageError>;

    /// How it keeps values, for copies of them that are kept elsewhere.
    fn sealing(&self) -> Arc<dyn seal::Seal> {
        Arc::new(seal::Plain)
    }
}

#[async_trait]
impl<S: Storage + ?Sized> Storage for Arc<S> {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        (**self).get(key).await
    }

    async fn list(&self, query: &Query) -> Result<Page, StorageError> {
        (**self).list(query).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        (**self).txn(txn).await
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Subscription>, StorageError> {
        (**self).watch(prefix, after).await
    }

    async fn revision(&self) -> Result<u64, StorageError> {
        (**self).revision().await
    }

    async fn compact(&self, revision: u64) -> Result<(), StorageError> {
        (**self).compact(revision).await
    }

    fn sealing(&self) -> Arc<dyn seal::Seal> {
        (**self).sealing()
    }
}

/// What stands before the first `/`.
fn shard_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(shard, _)| shard)
}
