//! One at a time, for each container.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// A lock per name, which exists only while somebody holds it or waits for it.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits for whoever holds this name, and holds it until the guard is dropped.
    pub(super) async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|_, lock| Arc::strong_count(lock) > 1);
            held.entry(name.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_name_is_held_once_and_forgotten() {
        let locks = Locks::default();
        let first = locks.lock("a").await;
        assert!(locks.lock("a").now_or_never().is_none());
        let other = locks.lock("b").now_or_never();
        assert!(other.is_some());
        drop((first, other));
        assert!(locks.lock("a").now_or_never().is_some());
        let _last = locks.lock("c").await;
        assert_eq!(locks.held.lock().unwrap().len(), 1);
    }
}
