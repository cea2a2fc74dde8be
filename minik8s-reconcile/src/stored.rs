//! One version of one object, shared by everyone who looks at it.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::conversion::ConversionError;
use minik8s_api::{DecodeError, Kind, Object, Resource};

use crate::json_text;

/// One version of an object: its JSON with `metadata.resourceVersion` in it, and the decoded object for whoever
/// asks, decoded once. Cheap to clone.
#[derive(Clone)]
pub struct Stored(Arc<Inner>);

struct Inner {
    json: Bytes,
    revision: u64,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
    facts: OnceLock<Facts>,
    /// As it was last served, where that is not as it is stored.
    served: Mutex<Option<Box<Served>>>,
}

/// A version as one kind serves it.
type Served = (Arc<Kind>, Stored);

/// What selectors look at.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) labels: BTreeMap<String, String>,
    fields: Vec<(Cow<'static, str>, String)>,
}

impl Facts {
    pub(crate) fn field(&self, path: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == path).map(|(_, value)| value.as_str())
    }
}

impl Stored {
    /// The version that was written at `revision`. `json` must hold that revision as its resourceVersion.
    pub fn new(json: Bytes, revision: u64) -> Self {
        Self(Arc::new(Inner {
            json,
            revision,
            typed: OnceLock::new(),
            facts: OnceLock::new(),
            served: Mutex::default(),
        }))
    }

    /// This version as objects of `kind` are served: itself for most kinds; in the version of the kind, without what
    /// its schema does not know and with its defaults, for the others. Readers of the same kind share the result.
    ///
    /// # Errors
    /// What is stored cannot be converted.
    pub fn served_as(&self, kind: &Arc<Kind>) -> Result<Self, ConversionError> {
        if !kind.is_converted() {
            return Ok(self.clone());
        }
        let mut known = self.0.served.lock().expect("no reader panics");
        if let Some((_, served)) = known.as_deref().filter(|(of, _)| Arc::ptr_eq(of, kind)) {
            return Ok(served.clone());
        }
        let json = kind.from_stored(&self.0.json)?.map_or_else(|| self.0.json.clone(), Bytes::from);
        let served = Self::new(json, self.0.revision);
        *known = Some(Box::new((kind.clone(), served.clone())));
        Ok(served)
    }

    /// Whether it is known how objects of `kind` are served.
    pub(crate) fn is_served_as(&self, kind: &Arc<Kind>) -> bool {
        let known = self.0.served.lock().expect("no reader panics");
        known.as_deref().is_some_and(|(of, _)| Arc::ptr_eq(of, kind))
    }

    /// As [`Self::served_as`], from what a webhook made of it in the version of the kind.
    pub(crate) fn served_from(&self, kind: &Arc<Kind>, json: &[u8]) -> Result<Self, ConversionError> {
        let json = kind.from_stored(json)?.unwrap_or_else(|| json.to_vec());
        let served = Self::new(json.into(), self.0.revision);
        *self.0.served.lock().expect("no reader panics") = Some(Box::new((kind.clone(), served.clone())));
        Ok(served)
    }

    /// The object as JSON text.
    pub fn json(&self) -> &Bytes {
        &self.0.json
    }

    /// The revision at which this version was written: its resourceVersion.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// The object as a `K`. The first call decodes it; later calls, from any clone, share the result.
    ///
    /// It comes without `metadata.managedFields`: caches of typed objects would hold little else. They are in
    /// [`Stored::json`], and a server keeps them when an object is sent back without.
    ///
    /// # Errors
    /// It is not a `K`.
    pub fn typed<K: Resource>(&self) -> Result<Arc<K>, DecodeError> {
        if let Some(known) = self.0.typed.get()
            && let Ok(typed) = known.clone().downcast::<K>()
        {
            return Ok(typed);
        }
        let typed: Arc<K> =
            Arc::new(serde_json::from_slice(&self.lean()).map_err(|e| DecodeError::new("", e.to_string()))?);
        // Somebody else may have been first: then theirs is shared, unless it is of another type.
        if let Err(typed) = self.0.typed.set(typed.clone())
            && let Some(first) = self.0.typed.get().and_then(|first| first.clone().downcast::<K>().ok())
        {
            drop(typed);
            return Ok(first);
        }
        Ok(typed)
    }

    /// The object with its type erased, decoded anew, without `metadata.managedFields`.
    ///
    /// # Errors
    /// It is not of that kind.
    pub fn object(&self, kind: &Kind) -> Result<Box<dyn Object>, DecodeError> {
        kind.decode(&self.lean()).map(|d| d.object)
    }

    /// What selectors look at, found once. Nothing, for what is not of that kind.
    pub(crate) fn facts(&self, kind: &Kind) -> &Facts {
        self.0.facts.get_or_init(|| match self.object(kind) {
            Ok(object) => Facts {
                labels: object.metadata().labels.clone().unwrap_or_default(),
                fields: kind.selectable_fields(&*object),
            },
            Err(_) => Facts::default(),
        })
    }

    /// The JSON without `metadata.managedFields`.
    pub(crate) fn lean(&self) -> Cow<'_, [u8]> {
        json_text::without_managed_fields(&self.0.json)
    }

    /// The JSON of `metadata.managedFields`, if there are any.
    pub(crate) fn managed_fields(&self) -> Option<&[u8]> {
        json_text::metadata_member(&self.0.json, "managedFields").map(|at| &self.0.json[at])
    }

    /// The object's metadata alone, decoded anew, without `managedFields`.
    ///
    /// # Errors
    /// It has no such thing.
    pub fn metadata(&self) -> Result<ObjectMeta, DecodeError> {
        #[derive(serde::Deserialize)]
        struct Partial {
            #[serde(default)]
            metadata: ObjectMeta,
        }
        serde_json::from_slice::<Partial>(&self.lean())
            .map(|p| p.metadata)
            .map_err(|e| DecodeError::new("metadata", e.to_string()))
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({} bytes at revision {})", self.0.json.len(), self.0.revision)
    }
}
