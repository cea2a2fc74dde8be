//! Where things are in etcd, and how: objects under `/registry/SHARD/…` as JSON that `etcdctl get` shows. This is the
//! one place where the bytes of a value are made and read.
//!
//! The revision of an object is that of its key. It cannot be known when the value is written, so the value has an
//! empty `resourceVersion`, and the revision is put there when it is read.

use bytes::Bytes;

use crate::json_text;
use crate::storage::Draft;
use crate::stored::Stored;

/// The shard of what is no object: the keys below. Kubernetes' resources do not begin with a dot.
const OWN: &str = ".minik8s/";

/// Where the keys of one cluster are.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// With a `/` at its end.
    prefix: String,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')) }
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// etcd's key of ours.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Our key of etcd's; `None` for what is no object.
    pub(super) fn object<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&*self.prefix).filter(|key| !key.starts_with(OWN))
    }

    /// Written by every transaction: its revision is that of the last one.
    pub(super) fn marker(&self) -> String {
        format!("{}{OWN}revision", self.prefix)
    }

    /// Up to which revision the history has been compacted.
    pub(super) fn compacted(&self) -> String {
        format!("{}{OWN}compacted", self.prefix)
    }
}

/// The value as etcd keeps it.
pub(super) fn encode(draft: Draft) -> Vec<u8> {
    draft.json
}

/// The value as it was at `revision`.
pub(super) fn decode(value: &[u8], revision: u64) -> Stored {
    let Some(version) = json_text::metadata_member(value, "resourceVersion") else {
        return Stored::new(Bytes::copy_from_slice(value), revision);
    };
    let mut json = Vec::with_capacity(value.len() + 20);
    json.extend_from_slice(&value[..version.start]);
    json.extend_from_slice(format!("\"{revision}\"").as_bytes());
    json.extend_from_slice(&value[version.end..]);
    Stored::new(json.into(), revision)
}
