//! Keeps indexes of what is stored, by following the storage.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::storage::{Change, Query, Storage, StorageError};
use crate::stored::Stored;

/// How long to wait before a storage that failed is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What is derived from objects, and kept up to date with them.
pub(super) trait Index: Send + Sync + 'static {
    /// These are all objects of the shard; what else was known of it is not there any more.
    fn replace(&self, shard: &str, objects: &[(Arc<str>, Stored)]);
    /// An object of the shard is there now, or (`None`) no longer.
    fn set(&self, shard: &str, key: &str, object: Option<&Stored>);
}

/// Feeds an [`Index`] until it is dropped.
pub(super) struct Follower {
    storage: Arc<dyn Storage>,
    shards: Vec<Arc<Shard>>,
    _stop: DropGuard,
}

/// How far one shard has been followed.
struct Shard {
    name: &'static str,
    progress: AtomicU64,
    moved: Notify,
}

impl Shard {
    fn prefix(&self) -> String {
        format!("{}/", self.name)
    }

    fn reached(&self, revision: u64) {
        self.progress.fetch_max(revision, Ordering::AcqRel);
        self.moved.notify_waiters();
    }
}

impl Follower {
    /// Fills `index` with all objects of the shards, and goes on from there. Every kind is a shard, by its qualified
    /// name.
    ///
    /// # Errors
    /// The storage does not answer.
    pub(super) async fn start(
        storage: Arc<dyn Storage>,
        shards: &[&'static str],
        index: Arc<impl Index>,
    ) -> Result<Self, StorageError> {
        let stop = CancellationToken::new();
        let mut followed = Vec::new();
        for name in shards {
            let shard = Arc::new(Shard { name, progress: AtomicU64::new(0), moved: Notify::new() });
            fill(&*storage, &shard, &*index).await?;
            followed.push(shard);
        }
        for shard in &followed {
            tokio::spawn(follow(Arc::downgrade(&storage), shard.clone(), index.clone(), stop.clone()));
        }
        Ok(Self { storage, shards: followed, _stop: stop.drop_guard() })
    }

    /// Waits until the index shows all that is stored now.
    pub(super) async fn settle(&self) -> Result<(), StorageError> {
        let revision = self.storage.revision().await?;
        for shard in &self.shards {
            loop {
                let mut moved = std::pin::pin!(shard.moved.notified());
                moved.as_mut().enable();
                let progress = shard.progress.load(Ordering::Acquire);
                if progress >= revision {
                    break;
                }
                // Where nothing has happened there is nothing to wait for.
                match self.storage.watch(&shard.prefix(), progress).await {
                    Ok(look) if look.progress() >= revision => {
                        shard.reached(revision);
                        break;
                    }
                    Ok(_) | Err(StorageError::Compacted { .. }) => moved.await,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

async fn fill(storage: &dyn Storage, shard: &Shard, index: &impl Index) -> Result<(), StorageError> {
    let page = storage.list(&Query::prefix(shard.prefix())).await?;
    index.replace(shard.name, &page.items);
    shard.reached(page.revision);
    Ok(())
}

/// Goes on for as long as somebody else holds the storage: one that is let go is closed at once.
async fn follow(
    storage: Weak<dyn Storage>,
    shard: Arc<Shard>,
    index: Arc<impl Index>,
    stop: CancellationToken,
) {
    loop {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ended = changes(&storage, &shard, &*index) => match ended {
                Some(ended) => ended,
                None => return,
            },
        };
        tracing::debug!(shard = shard.name, error = %ended, "reading anew");
        let refill = async {
            if !matches!(ended, StorageError::Compacted { .. }) {
                tokio::time::sleep(RETRY).await;
            }
            while let Some(storage) = storage.upgrade() {
                match fill(&*storage, &shard, &*index).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(shard = shard.name, %error, "cannot read"),
                }
                drop(storage);
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = refill => {}
        }
    }
}

/// Takes over changes until something goes wrong, or the storage is no longer there.
async fn changes(storage: &Weak<dyn Storage>, shard: &Shard, index: &impl Index) -> Option<StorageError> {
    let after = shard.progress.load(Ordering::Acquire);
    let watch = storage.upgrade()?.watch(&shard.prefix(), after).await;
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => return Some(error),
    };
    loop {
        match watch.next().await {
            Ok(changes) => {
                let mut last = 0;
                for Change { key, value, removed, .. } in &changes {
                    index.set(shard.name, key, (!removed).then_some(value));
                    last = value.revision();
                }
                shard.reached(last);
            }
            Err(error) => return Some(error),
        }
    }
}
