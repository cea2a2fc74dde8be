//! Keeps the state as etcd is, by one watch of all keys; and etcd's history from growing without end.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Event, EventType, Txn, TxnOp, WatchOptions};
use tokio_util::sync::CancellationToken;

use super::{HISTORY, Inner, failed, from_etcd, layout, to_etcd};
use crate::storage::mvcc::{Moved, Plan};
use crate::storage::{Change, StorageError};

/// How long to wait before a watch that failed is begun anew.
const RETRY: Duration = Duration::from_millis(200);

/// Why a watch ended.
enum Ended {
    /// What it should have told has been compacted.
    Compacted,
    /// Something else.
    Failed(String),
}

/// Follows until `stop`.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let follow = async {
        loop {
            match follow(&inner).await {
                Ended::Compacted => {
                    tracing::warn!(
                        "etcd has compacted what this server has not seen; reading all of it anew"
                    );
                    match inner.read_all("", None).await {
                        Ok((revision, objects)) => {
                            inner.state.write().replace(revision, objects);
                            inner.moved.notify_waiters();
                            continue;
                        }
                        Err(error) => tracing::warn!(%error, "cannot read etcd"),
                    }
                }
                Ended::Failed(why) => tracing::warn!(why, "the watch of etcd has ended; beginning anew"),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = follow => {}
    }
}

async fn follow(inner: &Inner) -> Ended {
    let after = inner.state.read().revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(to_etcd(after + 1));
    let client = inner.client.watch_client().max_decoding_message_size(usize::MAX);
    let mut client = client;
    let mut stream = match client.watch(inner.layout.prefix(), Some(options)).await {
        Ok(stream) => stream,
        Err(error) => return Ended::Failed(error.to_string()),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) if message.canceled() => {
                return match message.compact_revision() {
                    0 => Ended::Failed(message.cancel_reason().to_owned()),
                    _ => Ended::Compacted,
                };
            }
            Ok(Some(message)) => take(inner, message.events()),
            Ok(None) => return Ended::Failed("the member has ended it".into()),
            Err(error) => return Ended::Failed(error.to_string()),
        }
    }
}

/// Takes over events, which come in the order of their revisions, and a revision's all at once.
fn take(inner: &Inner, events: &[Event]) {
    let revision = |event: &Event| event.kv().map_or(0, |kv| from_etcd(kv.mod_revision()));
    let mut moved = Moved::default();
    let mut state = inner.state.write();
    for group in events.chunk_by(|a, b| revision(a) == revision(b)) {
        let at = group.first().map_or(0, revision);
        if at <= state.revision() {
            continue;
        }
        let changes = group.iter().filter_map(|event| {
            let kv = event.kv()?;
            let key = inner.layout.object(kv.key())?;
            let previous = state.get(key).cloned();
            let removed = event.event_type() == EventType::Delete;
            let value = match (&previous, removed) {
                (Some(previous), true) => layout::decode(previous.json(), at),
                // It came and went within what was not seen.
                (None, true) => return None,
                (_, false) => layout::decode(kv.value(), at),
            };
            Some(Change { key: state.shared(key), value, previous, removed })
        });
        let plan = Plan { changes: changes.collect() };
        state.apply(plan, &mut moved);
        state.set_revision(at);
    }
    drop(state);
    moved.wake();
    inner.moved.notify_waiters();
}

/// Compacts every `period` what is older than that, unless another server has done so meanwhile.
pub(super) async fn compact_regularly(inner: Arc<Inner>, period: Duration, stop: CancellationToken) {
    let mut seen: Option<(u64, i64)> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        let now = inner.state.read().revision();
        let round = async {
            let version = inner.compaction().await?.0;
            if let Some((then, known)) = seen
                && version == known
            {
                let until = then.min(now.saturating_sub(HISTORY));
                if until > 0 {
                    inner.compact(until).await?;
                }
            }
            Ok::<_, StorageError>(inner.compaction().await?.0)
        };
        match round.await {
            Ok(version) => seen = Some((now, version)),
            Err(error) => tracing::warn!(%error, "cannot compact etcd's history; trying again later"),
        }
    }
}

impl Inner {
    /// How often the history has been compacted, and up to which revision.
    async fn compaction(&self) -> Result<(i64, u64), StorageError> {
        let found = self.kv().get(self.layout.compacted(), None).await.map_err(failed)?;
        let known = found.kvs().first().map(|kv| {
            let until = std::str::from_utf8(kv.value()).ok().and_then(|text| text.parse().ok());
            (kv.version(), until.unwrap_or(0))
        });
        Ok(known.unwrap_or_default())
    }

    /// Up to which revision the history has been compacted by a server of ours.
    pub(super) async fn compacted(&self) -> Result<u64, etcd_client::Error> {
        let found = self.kv().get(self.layout.compacted(), None).await?;
        let text = found.kvs().first().and_then(|kv| std::str::from_utf8(kv.value()).ok());
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Has etcd forget the history up to `revision`. If another server is doing so, it is left to that one.
    pub(super) async fn compact(&self, revision: u64) -> Result<(), StorageError> {
        let (version, until) = self.compaction().await?;
        if until >= revision {
            return Ok(());
        }
        let key = self.layout.compacted();
        let same = Compare::version(&*key, CompareOp::Equal, version);
        let note = TxnOp::put(&*key, revision.to_string(), None);
        let won = self.kv().txn(Txn::new().when([same]).and_then([note])).await.map_err(failed)?;
        if !won.succeeded() {
            return Ok(());
        }
        match self.kv().compact(to_etcd(revision), None).await.map_err(failed) {
            Ok(_) | Err(StorageError::Compacted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
