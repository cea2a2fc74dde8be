//! Who owns whom. No IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::Kind;

use crate::request::Propagation;

pub(super) type Uid = String;

/// On an object whose dependents are to go before it.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// On an object whose dependents are to be let go.
pub(super) const ORPHAN: &str = "orphan";

/// What an object says of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    /// The owner may not go before this object does.
    pub(super) blocks: bool,
}

impl Owner {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            uid: node.uid.clone(),
            api_version: node.kind.api_version(),
            kind: node.kind.kind.to_string(),
            name: node.name.clone(),
            blocks: false,
        }
    }
}

/// An object, as far as ownership goes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) uid: Uid,
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) revision: u64,
    pub(super) owners: Vec<Owner>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

impl Node {
    pub(super) fn new(kind: Arc<Kind>, metadata: ObjectMeta, revision: u64) -> Self {
        let owners = metadata.owner_references.unwrap_or_default().into_iter();
        Self {
            uid: metadata.uid.unwrap_or_default(),
            kind,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            revision,
            owners: owners
                .map(|o| Owner {
                    uid: o.uid,
                    api_version: o.api_version,
                    kind: o.kind,
                    name: o.name,
                    blocks: o.block_owner_deletion == Some(true),
                })
                .collect(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// How the object itself wants its dependents to be treated.
    pub(super) fn own_propagation(&self) -> Option<Propagation> {
        if self.has(ORPHAN) {
            Some(Propagation::Orphan)
        } else if self.has(FOREGROUND) {
            Some(Propagation::Foreground)
        } else {
            None
        }
    }
}

/// What is to be done about an object.
#[derive(Debug)]
pub(super) enum Decision {
    Nothing,
    /// It goes. Unless `blocked` (an owner waits for it), only if the server confirms that `owners` are gone.
    Delete {
        node: Node,
        owners: Vec<Owner>,
        blocked: bool,
    },
    /// Some owners are left; the reference to those that are not goes.
    DropOwners {
        node: Node,
        owners: Vec<Owner>,
    },
    /// Its dependents are let go, then it goes.
    Orphan {
        node: Node,
        dependents: Vec<Node>,
    },
    /// No dependent keeps it any more.
    Release {
        node: Node,
    },
}

/// All objects, and who depends on whom.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: BTreeMap<Uid, Node>,
    dependents: BTreeMap<Uid, BTreeSet<Uid>>,
    dirty: BTreeSet<Uid>,
    listed: BTreeSet<String>,
}

impl Graph {
    /// An object came to be or changed.
    pub(super) fn apply(&mut self, node: Node) {
        let uid = node.uid.clone();
        if let Some(old) = self.nodes.get(&uid) {
            for owner in old.owners.clone() {
                self.unlink(&owner.uid, &uid);
                self.dirty.insert(owner.uid);
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            self.dirty.insert(owner.uid.clone());
        }
        if node.deleting {
            self.dirty.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        if !node.owners.is_empty() || node.deleting {
            self.dirty.insert(uid.clone());
        }
        self.nodes.insert(uid, node);
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &Uid) {
        let Some(old) = self.nodes.remove(uid) else { return };
        for owner in old.owners {
            self.unlink(&owner.uid, uid);
            self.dirty.insert(owner.uid);
        }
        self.dirty.extend(self.dependents.get(uid).into_iter().flatten().cloned());
    }

    /// The uids of the known objects of a kind.
    pub(super) fn of_kind(&self, kind: &Kind) -> Vec<Uid> {
        let same = |n: &&Node| n.kind.qualified() == kind.qualified();
        self.nodes.values().filter(same).map(|n| n.uid.clone()).collect()
    }

    /// The kind has been listed.
    pub(super) fn listed(&mut self, kind: &Kind) {
        self.listed.insert(kind.stored_resource().into_owned());
    }

    /// There is no such kind any more.
    pub(super) fn forget(&mut self, kind: &Kind) {
        for uid in self.of_kind(kind) {
            self.remove(&uid);
        }
        self.listed.remove(&*kind.stored_resource());
    }

    /// How many kinds have been listed.
    pub(super) fn kinds_listed(&self) -> usize {
        self.listed.len()
    }

    /// The objects about which there may be something to do, since the last call.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<Uid> {
        std::mem::take(&mut self.dirty)
    }

    /// What is to be done about the object now.
    pub(super) fn decide(&self, uid: &Uid) -> Decision {
        let Some(node) = self.nodes.get(uid) else { return Decision::Nothing };
        let node = node.clone();
        if node.deleting {
            let dependents = self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d));
            if node.has(ORPHAN) {
                return Decision::Orphan { dependents: dependents.cloned().collect(), node };
            }
            let blocks = |d: &Node| d.owners.iter().any(|o| o.uid == *uid && o.blocks);
            if node.has(FOREGROUND) && !dependents.into_iter().any(blocks) {
                return Decision::Release { node };
            }
            return Decision::Nothing;
        }
        if node.owners.is_empty() {
            return Decision::Nothing;
        }
        let (mut solid, mut waiting, mut absent) = (0, 0, Vec::new());
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                Some(o) if o.waits_for_dependents() => waiting += 1,
                Some(_) => solid += 1,
                None => absent.push(owner.clone()),
            }
        }
        match (solid, waiting, absent.is_empty()) {
            (0, 0, _) => Decision::Delete { node, owners: absent, blocked: false },
            (0, _, _) => Decision::Delete { node, owners: absent, blocked: true },
            (_, _, false) => Decision::DropOwners { node, owners: absent },
            _ => Decision::Nothing,
        }
    }

    fn unlink(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests;
