//! Fences: a leader's writes are good only as long as it leads.
//!
//! Whenever a Lease gets another holder, or goes, the same transaction writes, or removes, its fence: a key that nothing
//! else touches. So the revision at which somebody became the holder names the time for which they are, and a write can
//! be made to depend on it without a look at the lease, whose own revision changes with every renewal.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use minik8s_api::Object;

use super::ApiServer;
use crate::storage::fenced::Fenced;
use crate::storage::{Draft, Op};

const SHARD: &str = "fences.minik8s.io";

/// The key of the fence of the lease with the key `lease`.
fn key(lease: &str) -> String {
    format!("{SHARD}/{}", lease.split_once('/').map_or(lease, |(_, rest)| rest))
}

/// What has to be written along when the object under `lease` becomes `after`.
pub(super) fn moved(lease: &str, before: Option<&dyn Object>, after: Option<&dyn Object>) -> Option<Op> {
    fn lease_of(object: Option<&dyn Object>) -> Option<&Lease> {
        object?.downcast_ref::<Lease>()
    }
    fn holder(lease: Option<&Lease>) -> Option<&str> {
        Some(lease?.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default())
    }
    let (before, after) = (lease_of(before), lease_of(after));
    let (old, new) = (holder(before), holder(after));
    if old == new {
        return None;
    }
    let head = r#"{"metadata":{"resourceVersion":""#;
    let holder = serde_json::Value::from(new.unwrap_or_default());
    let draft = Draft::new(format!("{head}\"}},\"holder\":{holder}}}").into_bytes(), head.len());
    Some(if new.is_some() { Op::Put(key(lease), draft) } else { Op::Delete(key(lease), draft) })
}

impl ApiServer {
    /// The same server, for somebody who became the holder of a Lease at the revision `since` (the `resourceVersion` of
    /// that write): what they write through it is refused from the moment on at which the lease has another holder.
    /// That is checked in the transaction of each write, so it holds whatever pauses and delays there are.
    ///
    /// A write that is refused answers 412 with the reason `Fenced`.
    #[must_use]
    pub fn fenced(&self, namespace: &str, lease: &str, since: u64) -> Self {
        let key = format!("{SHARD}/{namespace}/{lease}");
        Self { storage: Arc::new(Fenced::new(self.storage.clone(), key, since)), ..self.clone() }
    }
}
