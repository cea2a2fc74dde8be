//! A storage seen by somebody who may write only as long as nobody else has taken over.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Compare, Page, Query, Storage, StorageError, Subscription, Txn, TxnOutcome};
use crate::stored::Stored;

/// Adds a condition to every transaction that writes.
pub(crate) struct Fenced {
    inner: Arc<dyn Storage>,
    /// Has to be as it was written at that revision.
    key: String,
    revision: u64,
}

impl Fenced {
    pub(crate) fn new(inner: Arc<dyn Storage>, key: String, revision: u64) -> Self {
        Self { inner, key, revision }
    }
}

impl fmt::Debug for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fenced({} at {})", self.key, self.revision)
    }
}

#[async_trait]
impl Storage for Fenced {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        self.inner.get(key).await
    }

    async fn list(&self, query: &Query) -> Result<Page, StorageError> {
        self.inner.list(query).await
    }

    async fn txn(&self, mut txn: Txn) -> Result<TxnOutcome, StorageError> {
        let last = txn.compare.len();
        txn.compare.push(Compare::Revision(self.key.clone(), self.revision));
        match self.inner.txn(txn).await? {
            TxnOutcome::Refused { index, .. } if index == last => Err(StorageError::Fenced(self.key.clone())),
            outcome => Ok(outcome),
        }
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
}
