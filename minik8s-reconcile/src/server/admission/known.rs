//! What the plugins have to know of other objects: all of them, at hand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use minik8s_api::{DecodeError, Resource};

use super::policy::{self, Binding, Policy};
use super::webhook::{self, Hook};
use crate::server::follow::Index;
use crate::stored::Stored;

/// Objects of a kind, or what has been made of them, by namespace (empty for kinds in none) and name.
pub(in crate::server) struct Shelf<T> {
    objects: RwLock<BTreeMap<String, Named<T>>>,
}

/// By name.
type Named<T> = Arc<BTreeMap<String, Arc<T>>>;

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { objects: RwLock::default() }
    }
}

impl<T> Shelf<T> {
    /// Those of the namespace, ordered by name.
    pub(in crate::server) fn of(&self, namespace: &str) -> Option<Named<T>> {
        self.objects.read().expect("no writer panics").get(namespace).cloned()
    }

    /// Those that are in no namespace.
    pub(in crate::server) fn all(&self) -> Option<Named<T>> {
        self.of("")
    }

    /// Whether there is one in that namespace.
    pub(in crate::server) fn any(&self, namespace: &str) -> bool {
        self.objects.read().expect("no writer panics").contains_key(namespace)
    }

    fn set(&self, namespace: &str, name: &str, object: Option<Arc<T>>) {
        let mut objects = self.objects.write().expect("no writer panics");
        match object {
            Some(object) => {
                let there = objects.entry(namespace.to_owned()).or_default();
                copied(there).insert(name.to_owned(), object);
            }
            None => {
                let Some(there) = objects.get_mut(namespace) else { return };
                copied(there).remove(name);
                if there.is_empty() {
                    objects.remove(namespace);
                }
            }
        }
    }

    fn clear(&self) {
        self.objects.write().expect("no writer panics").clear();
    }
}

/// The map, to change. Whoever looks at it goes on with the old one.
fn copied<T>(map: &mut Named<T>) -> &mut BTreeMap<String, Arc<T>> {
    Arc::make_mut(map)
}

impl<T> fmt::Debug for Shelf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shelf")
    }
}

const LIMIT_RANGES: &str = "limitranges";
const QUOTAS: &str = "resourcequotas";
const PRIORITY_CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";
const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const POLICY_BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
const STORAGE_CLASSES: &str = "storageclasses.storage.k8s.io";

/// Everything that is known.
#[derive(Debug, Default)]
pub(in crate::server) struct Known {
    pub(in crate::server) limits: Shelf<LimitRange>,
    pub(in crate::server) quotas: Shelf<ResourceQuota>,
    pub(in crate::server) priorities: Shelf<PriorityClass>,
    pub(in crate::server) storage_classes: Shelf<StorageClass>,
    pub(in crate::server) mutating: Shelf<Vec<Hook>>,
    pub(in crate::server) validating: Shelf<Vec<Hook>>,
    pub(in crate::server) policies: Shelf<Policy>,
    pub(in crate::server) policy_bindings: Shelf<Binding>,
}

impl Known {
    /// The resources that it is made from.
    pub(in crate::server) const SHARDS: &[&str] = &[
        LIMIT_RANGES,
        QUOTAS,
        PRIORITY_CLASSES,
        STORAGE_CLASSES,
        MUTATING,
        VALIDATING,
        POLICIES,
        POLICY_BINDINGS,
    ];

    /// Whether it is made from that resource.
    pub(in crate::server) fn is_about(resource: &str) -> bool {
        Self::SHARDS.contains(&resource)
    }
}

impl Index for Known {
    fn replace(&self, shard: &str, objects: &[(Arc<str>, Stored)]) {
        match shard {
            LIMIT_RANGES => self.limits.clear(),
            QUOTAS => self.quotas.clear(),
            PRIORITY_CLASSES => self.priorities.clear(),
            MUTATING => self.mutating.clear(),
            VALIDATING => self.validating.clear(),
            POLICIES => self.policies.clear(),
            POLICY_BINDINGS => self.policy_bindings.clear(),
            _ => self.storage_classes.clear(),
        }
        for (key, object) in objects {
            self.set(shard, key, Some(object));
        }
    }

    fn set(&self, shard: &str, key: &str, object: Option<&Stored>) {
        match shard {
            LIMIT_RANGES => put(&self.limits, key, object, read),
            QUOTAS => put(&self.quotas, key, object, read),
            PRIORITY_CLASSES => put(&self.priorities, key, object, read),
            MUTATING => put(&self.mutating, key, object, webhook::mutating),
            VALIDATING => put(&self.validating, key, object, webhook::validating),
            POLICIES => put(&self.policies, key, object, policy::policy),
            POLICY_BINDINGS => put(&self.policy_bindings, key, object, policy::binding),
            _ => put(&self.storage_classes, key, object, read),
        }
    }
}

fn put<T>(
    shelf: &Shelf<T>,
    key: &str,
    object: Option<&Stored>,
    read: impl FnOnce(&Stored) -> Result<Arc<T>, DecodeError>,
) {
    let place = key.split_once('/').map_or("", |(_, place)| place);
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    let object = object.and_then(|stored| match read(stored) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(key, %error, "cannot be read, and has no effect");
            None
        }
    });
    shelf.set(namespace, name, object);
}

fn read<K: Resource>(stored: &Stored) -> Result<Arc<K>, DecodeError> {
    stored.typed::<K>()
}
