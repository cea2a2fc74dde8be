//! From kinds and names to keys of the storage.

use std::borrow::Cow;
use std::sync::Arc;

use minik8s_api::Kind;

use crate::error::ApiError;
use crate::request::User;

/// The kind and the namespace that a request is about, and who asks.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) kind: Arc<Kind>,
    /// `None` for cluster-scoped kinds, and for all namespaces.
    pub(super) namespace: Option<String>,
    pub(super) user: User,
}

impl Scope {
    pub(super) fn new(kind: Arc<Kind>, namespace: Option<String>, user: User) -> Result<Self, ApiError> {
        if namespace.is_some() && !kind.namespaced {
            return Err(ApiError::no_such_resource());
        }
        Ok(Self { kind, namespace, user })
    }

    /// The key of the object `name`.
    pub(super) fn key(&self, name: &str) -> Result<String, ApiError> {
        match (&self.namespace, self.kind.namespaced) {
            (Some(namespace), true) => Ok(format!("{}/{namespace}/{name}", shard(&self.kind))),
            (None, false) => Ok(format!("{}/{name}", shard(&self.kind))),
            _ => Err(ApiError::bad_request(format!(
                "an empty namespace may not be set when a {} is named",
                self.kind.singular
            ))),
        }
    }

    /// What the keys of all objects in question begin with.
    pub(super) fn prefix(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/{namespace}/", shard(&self.kind)),
            None => format!("{}/", shard(&self.kind)),
        }
    }
}

/// The shard of a kind: all its versions live together.
fn shard(kind: &Kind) -> Cow<'_, str> {
    kind.stored_resource()
}

/// The key of a namespace object.
pub(super) fn namespace_key(name: &str) -> String {
    format!("namespaces/{name}")
}
