//! How far the world is: asked of etcd for all that wait to know, at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Inner, failed, from_etcd};
use crate::storage::StorageError;

/// How long the watch may take to bring what etcd has.
const PATIENCE: Duration = Duration::from_secs(5);
/// Failed attempts that are repeated: a read may be asked of another member.
const ATTEMPTS: usize = 3;

type Waiting = oneshot::Sender<Result<(), StorageError>>;

pub(super) struct ReadIndex {
    waiting: mpsc::UnboundedSender<Waiting>,
}

impl ReadIndex {
    pub(super) fn start(inner: Arc<Inner>, stop: CancellationToken) -> Self {
        let (waiting, inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = answer(&inner, inbox) => {}
            }
        });
        Self { waiting }
    }

    /// Waits until the state shows all that was written before this call.
    pub(super) async fn current(&self) -> Result<(), StorageError> {
        let gone = || StorageError::Unavailable("the storage has been shut down".into());
        let (waiting, answer) = oneshot::channel();
        self.waiting.send(waiting).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn answer(inner: &Inner, mut inbox: mpsc::UnboundedReceiver<Waiting>) {
    let mut round = Vec::new();
    // Those who come while the question is under way may have seen what it will not: they wait for the next one.
    while inbox.recv_many(&mut round, usize::MAX).await > 0 {
        let answer = catch_up(inner).await;
        for waiting in round.drain(..) {
            // Who has left does not want to know.
            let _ = waiting.send(answer.clone());
        }
    }
}

async fn catch_up(inner: &Inner) -> Result<(), StorageError> {
    let mut attempt = 1;
    let revision = loop {
        // Linearizable: a member asks the others before it answers.
        match inner.kv().get(inner.layout.marker(), None).await {
            Ok(found) => break found.kvs().first().map_or(0, |kv| from_etcd(kv.mod_revision())),
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(failed(error)),
        }
    };
    let there = async {
        loop {
            let mut moved = std::pin::pin!(inner.moved.notified());
            // Wait from before the look, or a move in between would go unnoticed.
            moved.as_mut().enable();
            if inner.state.read().revision() >= revision {
                return;
            }
            moved.await;
        }
    };
    tokio::time::timeout(PATIENCE, there)
        .await
        .map_err(|_| StorageError::Unavailable("etcd does not say what was written last".into()))
}
