//! Objects with their type erased, and the way back.

mod duplicate;

use std::any::Any;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use duplicate::duplicates;

/// A Rust type that is a Kubernetes kind: every struct of `k8s_openapi` with metadata and everything that
/// `#[derive(CustomResource)]` makes.
///
/// It is implemented for all such types; there is nothing to write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Kubernetes kind",
    note = "use a type of `k8s_openapi` or derive `kube::CustomResource`; \
            it must also be `Clone + Debug + Serialize + DeserializeOwned`"
)]
pub trait Resource:
    kube_core::Resource<DynamicType = (), Scope: 'static>
    + Clone
    + fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Resource for K where
    K: kube_core::Resource<DynamicType = (), Scope: 'static>
        + Clone
        + fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// An API object whose Rust type is not known here: what a server passes around.
pub trait Object: Any + fmt::Debug + Send + Sync {
    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// The object as JSON text, `apiVersion` and `kind` included.
    fn to_json(&self) -> Vec<u8>;
    /// The object as a JSON tree.
    fn to_value(&self) -> Value;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn Object>;
}

impl<K: Resource> Object for K {
    fn metadata(&self) -> &ObjectMeta {
        self.meta()
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        self.meta_mut()
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("API types have string keys and no failing serializers")
    }

    fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("API types have string keys and no failing serializers")
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

impl dyn Object {
    /// The object as a `K`, if that is what it is.
    pub fn downcast_ref<K: Resource>(&self) -> Option<&K> {
        (self as &dyn Any).downcast_ref()
    }

    /// The object as a `K` to change, if that is what it is.
    pub fn downcast_mut<K: Resource>(&mut self) -> Option<&mut K> {
        (self as &mut dyn Any).downcast_mut()
    }

    /// The object as an owned `K`; the box comes back when it is something else.
    pub fn downcast<K: Resource>(self: Box<Self>) -> Result<Box<K>, Box<dyn Object>> {
        if (&*self as &dyn Any).is::<K>() {
            Ok((self as Box<dyn Any>).downcast().expect("checked above"))
        } else {
            Err(self)
        }
    }
}

/// What came of reading an object.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub object: Box<dyn Object>,
    /// Paths of fields that its type does not have, in the order of the document, such as `spec.contaners`.
    pub unknown: Vec<String>,
}

/// Why a document is not an object of its kind.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", if path.is_empty() || path == "." { String::new() } else { format!("{path}: ") })]
pub struct DecodeError {
    path: String,
    message: String,
}

impl DecodeError {
    /// An error at the field `path` (empty for the document as a whole).
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// Where the error is, as a field path such as `spec.containers[0].image`; empty for the whole document.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Reads a `K` from JSON text, noting fields that `K` does not have.
pub(crate) fn decode<K: Resource>(json: &[u8]) -> Result<Decoded, DecodeError> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    // Not a closure of its own type: that would compile every nested type once per kind that holds it.
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(dotted(&path));
    let note: &mut dyn FnMut(serde_ignored::Path<'_>) = &mut note;
    let object: K = serde_ignored::deserialize(tracked, note)
        .map_err(|e| DecodeError::new(track.path().to_string(), e.to_string()))?;
    json.end().map_err(|e| DecodeError::new("", e.to_string()))?;
    Ok(Decoded { object: Box::new(object), unknown })
}

/// `a.b[0].c` from serde_ignored's `a.b.0.?.c`.
pub(crate) fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => match dotted(parent) {
            p if p.is_empty() => key.clone(),
            p => format!("{p}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            dotted(parent)
        }
    }
}
