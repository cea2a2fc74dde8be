//! Which node has to do with which objects. A plain data structure.

use std::collections::{BTreeMap, BTreeSet};

/// The kinds of objects that pods refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Account,
    Claim,
    ConfigMap,
    Secret,
}

/// What the graph knows of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodEntry {
    /// The node that it is bound to; empty if there is none.
    pub(super) node: String,
    /// What the pod refers to in its namespace, by name.
    pub(super) refers_to: BTreeSet<(Thing, String)>,
}

/// Pods with what they refer to, and claims with what they are bound to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Graph {
    /// By `NAMESPACE/NAME`.
    pods: BTreeMap<String, PodEntry>,
    /// How many pods of each node refer to the thing of that `NAMESPACE/NAME`.
    users: BTreeMap<(Thing, String), BTreeMap<String, usize>>,
    /// The volume of each claim.
    claims: BTreeMap<String, String>,
    /// The claims of each volume.
    volumes: BTreeMap<String, BTreeSet<String>>,
}

fn path(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Graph {
    /// Puts a pod in, in place of what was there by that name, or takes it out.
    pub(super) fn set_pod(&mut self, namespace: &str, name: &str, entry: Option<PodEntry>) {
        let at = path(namespace, name);
        if entry.as_ref() == self.pods.get(&at) {
            return;
        }
        for (thing, other) in self.pods.get(&at).into_iter().flat_map(|old| &old.refers_to) {
            let node = &self.pods[&at].node;
            let key = (*thing, path(namespace, other));
            if let Some(nodes) = self.users.get_mut(&key) {
                match nodes.get_mut(node) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(nodes.remove(node)),
                }
                if nodes.is_empty() {
                    self.users.remove(&key);
                }
            }
        }
        let Some(entry) = entry else {
            self.pods.remove(&at);
            return;
        };
        for (thing, other) in &entry.refers_to {
            let nodes = self.users.entry((*thing, path(namespace, other))).or_default();
            *nodes.entry(entry.node.clone()).or_default() += 1;
        }
        self.pods.insert(at, entry);
    }

    /// Notes the volume that a claim is bound to; `None` if it is bound to none or gone.
    pub(super) fn set_claim(&mut self, namespace: &str, name: &str, volume: Option<&str>) {
        let at = path(namespace, name);
        if let Some(old) = self.claims.remove(&at)
            && let Some(claims) = self.volumes.get_mut(&old)
        {
            claims.remove(&at);
            if claims.is_empty() {
                self.volumes.remove(&old);
            }
        }
        if let Some(volume) = volume {
            self.volumes.entry(volume.to_owned()).or_default().insert(at.clone());
            self.claims.insert(at, volume.to_owned());
        }
    }

    /// Forgets all pods.
    pub(super) fn clear_pods(&mut self) {
        self.pods.clear();
        self.users.clear();
    }

    /// Forgets all claims.
    pub(super) fn clear_claims(&mut self) {
        self.claims.clear();
        self.volumes.clear();
    }

    /// Whether the pod is bound to the node.
    pub(super) fn runs(&self, node: &str, namespace: &str, pod: &str) -> bool {
        self.pods.get(&path(namespace, pod)).is_some_and(|p| p.node == node)
    }

    /// Whether there is such a pod.
    pub(super) fn knows(&self, namespace: &str, pod: &str) -> bool {
        self.pods.contains_key(&path(namespace, pod))
    }

    /// Whether a pod of the node refers to the thing.
    pub(super) fn uses(&self, node: &str, thing: Thing, namespace: &str, name: &str) -> bool {
        self.is_used((thing, path(namespace, name)), node)
    }

    fn is_used(&self, key: (Thing, String), node: &str) -> bool {
        self.users.get(&key).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// Whether a pod of the node refers to a claim that is bound to the volume.
    pub(super) fn mounts(&self, node: &str, volume: &str) -> bool {
        let claims = self.volumes.get(volume).into_iter().flatten();
        claims.into_iter().any(|claim| self.is_used((Thing::Claim, claim.clone()), node))
    }
}

#[cfg(test)]
mod tests;
