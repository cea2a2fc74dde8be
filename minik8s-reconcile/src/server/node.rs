//! What nodes may do: what they need for the pods that are bound to them, and no more
//! (<https://kubernetes.io/docs/reference/access-authn-authz/node/>).

mod graph;
mod references;
mod restriction;

use std::fmt;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::SubjectRulesReviewStatus;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;

use self::graph::{Graph, Thing};
use super::authorizer::{Action, Authorizer, Decision, selected};
use super::follow::{Follower, Index};
use super::rbac;
use crate::request::User;
use crate::storage::{Storage, StorageError};
use crate::stored::Stored;

pub(super) use self::restriction::{admit, admit_deletion, admit_reading};

/// The group of all nodes.
const NODES: &str = "system:nodes";
/// What nodes' user names begin with.
const NODE: &str = "system:node:";
/// Where nodes' leases are.
pub const LEASES: &str = "kube-node-lease";
/// The annotation of pods that show what a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The name of the node that the user is.
pub(super) fn node_name(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(NODE).filter(|n| !n.is_empty())?;
    user.groups.iter().any(|g| g == NODES).then_some(name)
}

/// Allows nodes what they need: their own objects, the pods that are bound to them, and what those pods refer to. Of
/// others it has no opinion.
///
/// It answers from an index of its own, which follows the storage for as long as this lives.
pub struct NodeAuthorizer {
    graph: Arc<Shared>,
    follower: Follower,
    /// What all nodes may do.
    common: Vec<PolicyRule>,
}

#[derive(Default)]
struct Shared(RwLock<Graph>);

const PODS: &str = "pods";
const CLAIMS: &str = "persistentvolumeclaims";

impl NodeAuthorizer {
    /// Authorizes by the pods and claims in `storage`.
    ///
    /// # Errors
    /// The storage does not answer.
    ///
    /// # Panics
    /// Not in a tokio runtime.
    pub async fn start(storage: Arc<dyn Storage>) -> Result<Self, StorageError> {
        let graph = Arc::new(Shared::default());
        let follower = Follower::start(storage, &[PODS, CLAIMS], graph.clone()).await?;
        Ok(Self { graph, follower, common: rbac::node_rules() })
    }

    /// Whether the node has to do with the object; the sentence says why not.
    fn related(&self, node: &str, action: &Action<'_>) -> Result<(), String> {
        let Action::Resource { verb, group, resource, subresource, namespace, name, field_selector, .. } =
            *action
        else {
            return Err(String::new());
        };
        let graph = self.graph.0.read().expect("no writer panics");
        let unrelated = || Err(format!("no relationship found between node '{node}' and this object"));
        let yes_if = |yes: bool| if yes { Ok(()) } else { unrelated() };
        // Who asks after a pod that was its own has to learn that it is gone. Should it be there after all, it is seen
        // whose it is.
        let runs_or_gone = || yes_if(graph.runs(node, namespace, name) || !graph.knows(namespace, name));
        let reads = matches!(verb, "get" | "list" | "watch");
        match (group, resource, subresource) {
            ("", "secrets" | "configmaps", "") if reads => {
                let thing = if resource == "secrets" { Thing::Secret } else { Thing::ConfigMap };
                if name.is_empty() {
                    return Err(format!("No Object name found, {resource} can only be read one by one"));
                }
                yes_if(graph.uses(node, thing, namespace, name))
            }
            ("", "persistentvolumeclaims", "") if verb == "get" => {
                yes_if(graph.uses(node, Thing::Claim, namespace, name))
            }
            ("", "persistentvolumes", "") if verb == "get" => yes_if(graph.mounts(node, name)),
            ("", "serviceaccounts", "token") if verb == "create" => {
                yes_if(graph.uses(node, Thing::Account, namespace, name))
            }
            ("", "pods", "") => match verb {
                "get" => runs_or_gone(),
                "list" | "watch" if selected(field_selector, "spec.nodeName").as_deref() == Some(node) => {
                    Ok(())
                }
                "list" | "watch" if !name.is_empty() => yes_if(graph.runs(node, namespace, name)),
                "list" | "watch" => Err(format!(
                    "can only list/watch pods with spec.nodeName field selector of node '{node}'"
                )),
                // Which pods those may be is said when they are seen.
                "create" | "delete" => Ok(()),
                _ => Err(String::new()),
            },
            ("", "pods", "status") if matches!(verb, "update" | "patch") => runs_or_gone(),
            ("", "pods", "eviction") if verb == "create" => runs_or_gone(),
            ("", "nodes", "") => match verb {
                // Which node that may be is said when it is seen.
                "create" if name.is_empty() => Ok(()),
                "get" | "list" | "watch" | "create" | "update" | "patch" if name == node => Ok(()),
                _ if reads => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
                _ => Err(String::new()),
            },
            ("", "nodes", "status") if matches!(verb, "update" | "patch") => yes_if(name == node),
            ("coordination.k8s.io", "leases", "") => {
                let own = namespace == LEASES && (name == node || (verb == "create" && name.is_empty()));
                match verb {
                    "get" | "create" | "update" | "patch" | "delete" if own => Ok(()),
                    _ => Err(format!("can only access the lease of node '{node}' in {LEASES}")),
                }
            }
            ("storage.k8s.io", "csinodes", "") => {
                let own = name == node || (verb == "create" && name.is_empty());
                match verb {
                    "get" | "create" | "update" | "patch" | "delete" if own => Ok(()),
                    _ => Err(format!("can only access the CSINode of node '{node}'")),
                }
            }
            _ => Err(String::new()),
        }
    }
}

impl fmt::Debug for NodeAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeAuthorizer")
    }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    fn authorize(&self, user: &User, action: &Action<'_>) -> Decision {
        let Some(node) = node_name(user) else { return Decision::no_opinion(String::new()) };
        if rbac::any_allows(&self.common, action) {
            return Decision::allow(String::new());
        }
        match self.related(node, action) {
            Ok(()) => Decision::allow(String::new()),
            Err(why) => Decision::no_opinion(why),
        }
    }

    /// What a node may do depends on its pods, and cannot be listed.
    fn rules(&self, user: &User, _namespace: &str) -> SubjectRulesReviewStatus {
        let mut status = SubjectRulesReviewStatus::default();
        if node_name(user).is_some() {
            status.incomplete = true;
            status.evaluation_error = Some("node authorizer doesn't support user rule resolution".to_owned());
        }
        status
    }

    async fn settle(&self) -> Result<(), StorageError> {
        self.follower.settle().await
    }
}

impl Index for Shared {
    fn replace(&self, shard: &str, objects: &[(Arc<str>, Stored)]) {
        let mut graph = self.0.write().expect("no writer panics");
        if shard == PODS {
            graph.clear_pods()
        } else {
            graph.clear_claims()
        }
        for (key, object) in objects {
            set(&mut graph, shard, key, Some(object));
        }
    }

    fn set(&self, shard: &str, key: &str, object: Option<&Stored>) {
        // What the object says is found out before anybody has to wait.
        let entry = Entry::of(shard, key, object);
        entry.put(&mut self.0.write().expect("no writer panics"), shard, key);
    }
}

fn set(graph: &mut Graph, shard: &str, key: &str, object: Option<&Stored>) {
    Entry::of(shard, key, object).put(graph, shard, key);
}

/// What the graph is told of an object.
enum Entry {
    Pod(Option<graph::PodEntry>),
    Claim(Option<String>),
}

impl Entry {
    fn of(shard: &str, key: &str, object: Option<&Stored>) -> Self {
        // What cannot be read gives nobody anything.
        let unreadable = |error: minik8s_api::DecodeError| tracing::error!(key, %error, "cannot be read");
        if shard == PODS {
            // A pod that cannot be read is there all the same, and nobody's.
            Self::Pod(object.map(|o| match o.typed::<Pod>().map_err(unreadable) {
                Ok(pod) => references::entry(&pod),
                Err(()) => graph::PodEntry::default(),
            }))
        } else {
            let claim = object.and_then(|o| o.typed::<PersistentVolumeClaim>().map_err(unreadable).ok());
            let volume = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
            Self::Claim(volume.filter(|v| !v.is_empty()))
        }
    }

    fn put(self, graph: &mut Graph, shard: &str, key: &str) {
        let place = key.strip_prefix(shard).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        match self {
            Self::Pod(entry) => graph.set_pod(namespace, name, entry),
            Self::Claim(volume) => graph.set_claim(namespace, name, volume.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests;
