//! A storage that forgets when the process ends: for tests, simulations and short-lived servers.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use super::mvcc::{Moved, Retention, Shared, State};
use super::{Page, Query, Storage, StorageError, Subscription, Txn, TxnOutcome};
use crate::stored::Stored;

/// Keeps everything in memory.
pub struct MemoryStorage {
    state: Shared,
}

impl MemoryStorage {
    /// An empty storage.
    pub fn new() -> Self {
        Self::with_retention(Retention::default())
    }

    /// An empty storage that keeps that much history.
    pub fn with_retention(retention: Retention) -> Self {
        Self { state: Shared::new(State::new(retention)) }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStorage(revision {})", self.state.read().revision())
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        Ok(self.state.read().get(key).cloned())
    }

    async fn list(&self, query: &Query) -> Result<Page, StorageError> {
        self.state.read().list(query)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        let mut state = self.state.write();
        let revision = state.revision() + 1;
        match state.plan(&txn, revision, &BTreeMap::new()) {
            Ok(plan) => {
                let written = plan.changes.iter().map(|c| c.value.clone()).collect();
                let mut moved = Moved::default();
                state.apply(plan, &mut moved);
                drop(state);
                moved.wake();
                Ok(TxnOutcome::Committed(written))
            }
            Err(refused) => Ok(refused),
        }
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Subscription>, StorageError> {
        self.state.watch(prefix, after)
    }

    async fn revision(&self) -> Result<u64, StorageError> {
        Ok(self.state.read().revision())
    }

    async fn compact(&self, revision: u64) -> Result<(), StorageError> {
        self.state.write().compact(revision);
        Ok(())
    }
}
