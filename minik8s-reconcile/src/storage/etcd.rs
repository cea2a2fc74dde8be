//! The storage of several servers: [etcd](https://etcd.io).
//!
//! A transaction of ours is one of etcd's, and etcd's revision is ours. Every server keeps all objects and the newest
//! history in memory, fed by one watch, and answers reads, lists and watches from there. To be as good as a read of
//! etcd itself, a read asks etcd first how far the world is, many reads at a time, and waits until the memory is there
//! too: every transaction writes a marker, whose revision is the answer.
//!
//! # Guarantees
//! - Those of every [`Storage`], among all servers that share an etcd and a prefix. What others than these servers
//!   write there is seen soon, not at once.
//! - A watch goes on after a server, or a member of etcd, was lost, as long as etcd has the history; the newest 10 000
//!   revisions and five minutes are never compacted.
//! - The final state of a removed object is its last state before, at the revision of the removal, as in Kubernetes.
//! - Nothing in it depends on etcd's leases, nor on the clocks of servers.

mod follow;
mod layout;
mod read_index;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Certificate, Client, Compare as EtcdCompare, CompareOp, ConnectOptions, GetOptions, Identity, KvClient,
    TlsOptions, Txn as EtcdTxn, TxnOp, TxnOpResponse,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::mvcc::{Retention, Shared, State};
use super::{Compare, Op, Page, Query, Storage, StorageError, Subscription, Txn, TxnOutcome, shard_of};
use crate::stored::Stored;
use layout::Layout;
use read_index::ReadIndex;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Revisions before the newest that are kept from compaction, and read when a server starts.
const HISTORY: u64 = 10_000;
/// Keys that are read at once.
const PAGE: i64 = 500;

/// Which etcd, and how to use it.
#[derive(Clone)]
pub struct EtcdOptions {
    /// The URLs of its members, such as `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What all keys begin with. Default: `/registry`.
    pub prefix: String,
    /// How to speak TLS to members whose URLs are `https`.
    pub tls: Option<EtcdTls>,
    /// A name and a password, where etcd asks for them.
    pub user: Option<(String, String)>,
    /// How much history to keep in memory.
    pub retention: Retention,
    /// How often history is compacted, by whichever server is first; `None` to leave that to others. Default: five
    /// minutes.
    pub compact_every: Option<Duration>,
}

/// Certificates for etcd, all PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who signs the certificates of its members.
    pub ca: String,
    /// The certificate and the key to show, where etcd asks for them.
    pub identity: Option<(String, String)>,
}

impl EtcdOptions {
    /// The etcd of these members, without TLS and without a password.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/registry".into(),
            tls: None,
            user: None,
            retention: Retention::default(),
            compact_every: Some(Duration::from_secs(300)),
        }
    }

    fn connect_options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(2))
            .with_timeout(TIMEOUT)
            // A member that is gone without a word is noticed within seconds, also by a watch that nothing happens in.
            .with_keep_alive(Duration::from_secs(1), Duration::from_secs(2))
            .with_keep_alive_while_idle(true)
            // A member that has lost the others ends its watches.
            .with_require_leader(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password).with_auto_token_refresh(true);
        }
        if let Some(tls) = &self.tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(with);
        }
        options
    }
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither keys nor passwords.
        write!(f, "EtcdOptions({} at {})", self.prefix, self.endpoints.join(","))
    }
}

/// What the parts of a storage share.
struct Inner {
    client: Client,
    layout: Layout,
    state: Shared,
    /// Notified when the state has moved on.
    moved: tokio::sync::Notify,
}

impl Inner {
    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(usize::MAX)
    }

    /// All objects below `prefix`, as of `at` or now, and the revision that shows.
    async fn read_all(
        &self,
        prefix: &str,
        at: Option<u64>,
    ) -> Result<(u64, Vec<(Arc<str>, Stored)>), etcd_client::Error> {
        let mut revision = at.map_or(0, to_etcd);
        let (mut start, end) = (self.layout.key(prefix).into_bytes(), end_of(&self.layout.key(prefix)));
        let mut found = Vec::new();
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
            let mut page = self.kv().get(start, Some(options)).await?;
            if revision == 0 {
                revision = page.header().map_or(0, |h| h.revision());
            }
            let more = page.more();
            let items = page.take_kvs();
            start = items.last().map(|kv| kv.key().to_vec()).unwrap_or_default();
            start.push(0);
            found.extend(items.iter().filter_map(|kv| {
                let key = self.layout.object(kv.key())?;
                Some((key.into(), layout::decode(kv.value(), from_etcd(kv.mod_revision()))))
            }));
            if !more {
                return Ok((from_etcd(revision), found));
            }
        }
    }
}

/// Objects in an etcd.
pub struct EtcdStorage {
    inner: Arc<Inner>,
    read_index: ReadIndex,
    endpoints: String,
    _stop: DropGuard,
}

impl EtcdStorage {
    /// Connects, and reads all there is.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if etcd does not answer, or not with what was asked for.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StorageError> {
        let endpoints = options.endpoints.join(",");
        let unreachable = |e: etcd_client::Error| match failed(e) {
            StorageError::Unavailable(why) => {
                StorageError::Unavailable(format!("etcd at {endpoints}: {why}"))
            }
            other => other,
        };
        let client = Client::connect(&options.endpoints, Some(options.connect_options()))
            .await
            .map_err(unreachable)?;
        let inner = Arc::new(Inner {
            client,
            layout: Layout::new(&options.prefix),
            state: Shared::new(State::new(options.retention)),
            moved: tokio::sync::Notify::new(),
        });
        inner.begin().await.map_err(unreachable)?;
        let stop = CancellationToken::new();
        tokio::spawn(follow::run(inner.clone(), stop.clone()));
        if let Some(period) = options.compact_every {
            tokio::spawn(follow::compact_regularly(inner.clone(), period, stop.clone()));
        }
        let read_index = ReadIndex::start(inner.clone(), stop.clone());
        Ok(Self { inner, read_index, endpoints, _stop: stop.drop_guard() })
    }

    /// Waits until the state shows all that has been written so far.
    async fn current(&self) -> Result<(), StorageError> {
        self.read_index.current().await
    }
}

impl fmt::Debug for EtcdStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdStorage({})", self.endpoints)
    }
}

#[async_trait]
impl Storage for EtcdStorage {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        self.current().await?;
        Ok(self.inner.state.read().get(key).cloned())
    }

    async fn list(&self, query: &Query) -> Result<Page, StorageError> {
        self.current().await?;
        match (self.inner.state.read().list(query), query.at) {
            // etcd may remember what this server does not.
            (Err(StorageError::Compacted { .. }), Some(_)) => {}
            (answer, _) => return answer,
        }
        let at = query.at.unwrap_or_default();
        let (revision, items) =
            self.inner.read_all(&query.prefix, Some(at)).await.map_err(|e| match failed(e) {
                StorageError::Compacted { requested, .. } => {
                    let oldest = self.inner.state.read().forgotten(shard_of(&query.prefix));
                    StorageError::Compacted { requested: requested.max(at), oldest }
                }
                other => other,
            })?;
        let behind = |key: &str| query.after.as_deref().is_none_or(|after| key > after);
        let mut items: Vec<_> = items.into_iter().filter(|(key, _)| behind(key)).collect();
        let limit = if query.limit == 0 { items.len() } else { query.limit.min(items.len()) };
        let remaining = (items.len() - limit) as u64;
        items.truncate(limit);
        Ok(Page { items, revision, remaining })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        let inner = self.inner.clone();
        // A task of its own: it goes on when nobody waits for it any more.
        let work = async move { inner.txn(txn).await };
        tokio::spawn(work).await.map_err(|e| StorageError::Unavailable(e.to_string()))?
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Subscription>, StorageError> {
        self.current().await?;
        self.inner.state.watch(prefix, after)
    }

    async fn revision(&self) -> Result<u64, StorageError> {
        self.current().await?;
        Ok(self.inner.state.read().revision())
    }

    async fn compact(&self, revision: u64) -> Result<(), StorageError> {
        self.current().await?;
        let revision = revision.min(self.inner.state.read().revision());
        self.inner.compact(revision).await?;
        self.inner.state.write().compact(revision);
        Ok(())
    }
}

impl Inner {
    /// Reads all there is, and as much of the history as there is, too.
    async fn begin(&self) -> Result<(), etcd_client::Error> {
        // Every etcd has the marker from its first server on.
        let marker = self.layout.marker();
        let absent = EtcdCompare::version(&*marker, CompareOp::Equal, 0);
        let txn = EtcdTxn::new().when([absent]).and_then([TxnOp::put(&*marker, "", None)]);
        let answer = self.kv().txn(txn).await?;
        let current = answer.header().map_or(1, |h| from_etcd(h.revision()));
        let compacted = self.compacted().await?;
        let oldest = current.saturating_sub(HISTORY).max(compacted).max(1);
        let (revision, objects) = match self.read_all("", Some(oldest)).await {
            Ok(found) => found,
            // Somebody else compacts this etcd as well.
            Err(_) => self.read_all("", None).await?,
        };
        self.state.write().replace(revision, objects);
        Ok(())
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        let key = |key: &str| self.layout.key(key);
        let conditions: Vec<_> = txn
            .compare
            .iter()
            .map(|compare| match compare {
                Compare::Absent(k) => EtcdCompare::version(key(k), CompareOp::Equal, 0),
                Compare::Present(k) => EtcdCompare::version(key(k), CompareOp::Greater, 0),
                // What is not there has the revision 0.
                Compare::Revision(k, 0) => EtcdCompare::mod_revision(key(k), CompareOp::Less, 0),
                Compare::Revision(k, at) => EtcdCompare::mod_revision(key(k), CompareOp::Equal, to_etcd(*at)),
            })
            .collect();
        let look: Vec<_> = txn.compare.iter().map(|c| TxnOp::get(key(c.key()), None)).collect();
        let mut drafts = Vec::with_capacity(txn.ops.len());
        let mut ops = Vec::with_capacity(txn.ops.len() + 1);
        let mut writes = false;
        for op in txn.ops {
            match op {
                Op::Put(k, draft) => {
                    writes = true;
                    ops.push(TxnOp::put(key(&k), layout::encode(draft.clone()), None));
                    drafts.push(draft);
                }
                Op::Delete(k, last) => {
                    ops.push(TxnOp::delete(key(&k), None));
                    drafts.push(last);
                }
            }
        }
        // The marker, so that readers know. A removal may find nothing to remove, and then nothing has happened.
        if writes || !ops.is_empty() {
            ops.push(TxnOp::put(self.layout.marker(), "", None));
        }
        let request = EtcdTxn::new().when(conditions).and_then(ops).or_else(look);
        let answer = self.kv().txn(request).await.map_err(failed)?;
        let revision = answer.header().map_or(0, |h| from_etcd(h.revision()));
        let responses = answer.op_responses();
        if answer.succeeded() {
            let happened = |response: &TxnOpResponse| match response {
                TxnOpResponse::Delete(deleted) => deleted.deleted() > 0,
                _ => true,
            };
            let written = drafts.iter().zip(&responses).filter(|(_, response)| happened(response));
            return Ok(TxnOutcome::Committed(written.map(|(draft, _)| draft.stamp(revision)).collect()));
        }
        for (index, (compare, response)) in txn.compare.iter().zip(&responses).enumerate() {
            let TxnOpResponse::Get(found) = response else { continue };
            let found = found.kvs().first();
            let current = found.map(|kv| layout::decode(kv.value(), from_etcd(kv.mod_revision())));
            if !compare.holds(current.as_ref()) {
                return Ok(TxnOutcome::Refused { index, current });
            }
        }
        Err(StorageError::Unavailable("etcd refuses a transaction whose conditions hold".into()))
    }
}

/// The key behind all that begin with `prefix`.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn from_etcd(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn to_etcd(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// What an error of etcd is to us.
fn failed(error: etcd_client::Error) -> StorageError {
    let text = match &error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    if text.contains("has been compacted") {
        StorageError::Compacted { requested: 0, oldest: 0 }
    } else if text.contains("database space exceeded") || text.contains("no space") {
        StorageError::Full(format!("etcd: {text}"))
    } else {
        StorageError::Unavailable(format!("etcd: {text}"))
    }
}
