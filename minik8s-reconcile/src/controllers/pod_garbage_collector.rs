//! Removes pods that nobody else does
//! (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection>): those of nodes that are gone
//! or out of service, those that are being deleted and were never on a node, and, of those that have ended, the oldest
//! above a number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio_util::sync::CancellationToken;

use super::node_lifecycle::status_of;
use super::taint_eviction::set_disruption_target;
use crate::cache::{Cache, Caches};
use crate::client::Client;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::placement::{is_over, node_of};
use crate::request::DeleteParams;

/// An administrator's word that nothing runs on the node any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// When pods go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How often it looks (20 s).
    pub period: Duration,
    /// How long a node must have been gone before its pods go (40 s): an agent may be about to register it again.
    pub quarantine: Duration,
    /// How many pods that have ended are kept (12 500); 0 for all.
    pub terminated: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { period: Duration::from_secs(20), quarantine: Duration::from_secs(40), terminated: 12_500 }
    }
}

/// Works on the server of `client` until `stop`; to be given to [`crate::Manager::task`].
pub fn run(
    client: Client,
    caches: &Caches,
    clock: Clock,
    settings: Settings,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let client = client.field_manager("pod-garbage-collector");
    let (pods, nodes) = (caches.of::<Pod>(), caches.of::<Node>());
    async move {
        let mut missing = Missing::default();
        let working = async {
            loop {
                let now = clock.now();
                for (pod, why) in sweep(&pods.list(), &nodes.list(), &mut missing, &settings, now) {
                    if let Err(error) = remove(&client, &nodes, &pod, why, now).await {
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        tracing::warn!(pod = name, %error, "a pod that nobody has any more cannot be removed");
                    }
                }
                tokio::time::sleep(settings.period).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = working => {}
        }
    }
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NodeGone,
    OutOfService,
    NeverRan,
    TooMany,
}

/// Since when nodes have been missing that pods are bound to.
#[derive(Debug, Default)]
struct Missing(BTreeMap<String, Timestamp>);

impl Missing {
    /// Takes in which are missing now, and says which have been for long enough.
    fn note(&mut self, names: &BTreeSet<&str>, quarantine: Duration, now: Timestamp) -> BTreeSet<String> {
        self.0.retain(|name, _| names.contains(name.as_str()));
        for name in names {
            self.0.entry((*name).to_owned()).or_insert(now);
        }
        let quarantine = SignedDuration::try_from(quarantine).unwrap_or(SignedDuration::MAX);
        let gone = self.0.iter().filter(|(_, since)| now.duration_since(**since) >= quarantine);
        gone.map(|(name, _)| name.clone()).collect()
    }
}

/// The pods that are to go.
fn sweep(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    missing: &mut Missing,
    settings: &Settings,
    now: Timestamp,
) -> Vec<(Arc<Pod>, Why)> {
    let nodes: BTreeMap<&str, &Node> =
        nodes.iter().map(|n| (n.metadata.name.as_deref().unwrap_or_default(), &**n)).collect();
    let bound = pods.iter().map(|p| node_of(p)).filter(|node| !node.is_empty());
    let gone = missing.note(&bound.filter(|n| !nodes.contains_key(n)).collect(), settings.quarantine, now);
    let why = |pod: &Pod| {
        let ending = pod.metadata.deletion_timestamp.is_some();
        match node_of(pod) {
            "" => ending.then_some(Why::NeverRan),
            node if gone.contains(node) => Some(Why::NodeGone),
            node => {
                let dead = nodes.get(node).is_some_and(|node| is_out_of_service(node));
                (ending && dead).then_some(Why::OutOfService)
            }
        }
    };
    let mut out: Vec<_> = pods.iter().filter_map(|pod| Some((pod.clone(), why(pod)?))).collect();
    if settings.terminated > 0 {
        let mut over: Vec<&Arc<Pod>> = pods.iter().filter(|p| is_over(p) && why(p).is_none()).collect();
        let excess = over.len().saturating_sub(settings.terminated);
        over.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        out.extend(over.into_iter().take(excess).map(|pod| (pod.clone(), Why::TooMany)));
    }
    out
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    status_of(node, "Ready") != Some("True") && taints.into_iter().any(|t| t.key == OUT_OF_SERVICE)
}

async fn remove(
    client: &Client,
    nodes: &Cache<Node>,
    pod: &Arc<Pod>,
    why: Why,
    now: Timestamp,
) -> Result<(), ApiError> {
    let (namespace, name) = (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
    );
    let node = node_of(pod);
    if why == Why::NodeGone {
        // The cache may be behind, and what is removed by mistake runs twice.
        if let Some(there) = client.all::<Node>().get_opt(node).await? {
            let revision = there.metadata.resource_version.as_ref().and_then(|v| v.parse().ok());
            nodes.wait_for(revision.unwrap_or(0)).await;
            return Ok(());
        }
    }
    let api = client.namespaced::<Pod>(namespace);
    let message = match why {
        Why::NodeGone => Some(format!("node {node} is gone")),
        Why::OutOfService => Some(format!("node {node} is out of service")),
        Why::NeverRan | Why::TooMany => None,
    };
    if let Some(message) = message
        && !is_over(pod)
    {
        let mut failed = (**pod).clone();
        failed.status.get_or_insert_default().phase = Some("Failed".to_owned());
        set_disruption_target(&mut failed, "DeletionByPodGC", message, now);
        match api.update_status(&failed).await {
            // It has changed; the next round sees how.
            Err(error) if error.is_conflict() || error.is_not_found() => return Ok(()),
            done => done.map(drop)?,
        }
    }
    let params = DeleteParams { uid: pod.metadata.uid.clone(), ..DeleteParams::now() };
    match api.delete(name, &params).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => {
            tracing::info!(namespace, pod = name, node, ?why, "removed a pod that nobody has any more");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
