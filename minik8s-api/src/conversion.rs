//! Kinds that are served in several versions and stored in one, the *hub*.

mod autoscaling;
mod event;

use serde::Deserialize;

use crate::object::{Object, Resource};

pub(crate) use autoscaling::{METRICS, from_v2, to_v2};
pub(crate) use event::{from_core, to_core};

/// Why an object cannot be had in another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConversionError(pub String);

/// How the objects of a kind are stored, where that is not just as they are served.
pub trait StoredForm: Send + Sync {
    /// The resource under which they are stored, such as `events` or `things.example.dev`.
    fn resource(&self) -> &str;
    /// Whether the kind is the hub itself.
    fn is_hub(&self) -> bool;
    /// The JSON text to store for an object of the kind.
    ///
    /// # Errors
    /// There is no way to the hub.
    fn store(&self, object: &dyn Object) -> Result<Vec<u8>, ConversionError>;
    /// The JSON text to serve for one that is stored; `None` if that is the same.
    ///
    /// # Errors
    /// There is no way from the stored version, or what is stored is damaged.
    fn serve(&self, stored: &[u8]) -> Result<Option<Vec<u8>>, ConversionError>;
}

/// Two Rust types, and the functions between them.
pub(crate) struct TypedForm<K, Hub> {
    to: fn(&K) -> Hub,
    from: fn(&Hub) -> K,
    resource: String,
}

impl<K: Resource, Hub: Resource> TypedForm<K, Hub> {
    pub(crate) fn new(to: fn(&K) -> Hub, from: fn(&Hub) -> K) -> Self {
        let (plural, group) = (Hub::plural(&()), Hub::group(&()));
        let resource = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
        Self { to, from, resource }
    }
}

impl<K: Resource, Hub: Resource> StoredForm for TypedForm<K, Hub> {
    fn resource(&self) -> &str {
        &self.resource
    }

    fn is_hub(&self) -> bool {
        false
    }

    fn store(&self, object: &dyn Object) -> Result<Vec<u8>, ConversionError> {
        let object = object.downcast_ref().expect("a kind is only given objects that it decoded");
        Ok((self.to)(object).to_json())
    }

    fn serve(&self, stored: &[u8]) -> Result<Option<Vec<u8>>, ConversionError> {
        let hub: Hub = read(stored)?;
        Ok(Some((self.from)(&hub).to_json()))
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ConversionError> {
    serde_json::from_slice(json).map_err(|e| ConversionError(format!("what is stored cannot be read: {e}")))
}

#[cfg(test)]
mod tests;
