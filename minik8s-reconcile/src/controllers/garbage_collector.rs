//! Deletes what nobody owns any more, and carries out foreground and orphaning deletion
//! (<https://kubernetes.io/docs/concepts/architecture/garbage-collection/>).
//!
//! The graph of owners is kept from the metadata of all objects of all kinds. What to do about an object is decided by
//! [`graph::Graph::decide`], a pure function; before anything is deleted for want of an owner, the server is asked
//! whether the owner is really gone.

mod graph;
mod watch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use minik8s_api::Kind;
use minik8s_api::patch::merge_keys;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::clock::sleep_until;
use crate::error::ApiError;
use crate::queue::{Backoff, Outcome, Priority, Queue};
use crate::request::{ApiRequest, DeleteParams, Operation, Patch, Propagation, ResponseBody, WriteParams};
use graph::{Decision, Graph, Node, Uid};

/// Runs until `stop`. To be given to [`crate::Manager::task`].
pub async fn run(client: Client, stop: CancellationToken) {
    let collector =
        Collector { client: client.field_manager("garbage-collector"), shared: Arc::new(Shared::default()) };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = collector.run() => {}
    }
}

#[derive(Default)]
struct Shared {
    graph: Mutex<Graph>,
    changed: Notify,
}

impl Shared {
    fn update<T>(&self, f: impl FnOnce(&mut Graph) -> T) -> T {
        let answer = f(&mut self.graph.lock().expect("no writer panics"));
        self.changed.notify_one();
        answer
    }
}

struct Collector {
    client: Client,
    shared: Arc<Shared>,
}

impl Collector {
    async fn run(self) {
        let watches = watch::follow_all(&self.client, &self.shared);
        let work = async {
            watch::complete(&self.client, &self.shared).await;
            self.work().await;
        };
        tokio::join!(watches, work);
    }

    async fn work(&self) {
        let origin = Instant::now();
        let mut queue: Queue<Uid> = Queue::new(Backoff::default());
        loop {
            let now = origin.elapsed();
            for uid in self.shared.graph.lock().expect("no writer panics").take_dirty() {
                queue.add(uid, now, Priority::Change);
            }
            let Some(uid) = queue.pop(now) else {
                let due = queue.next_due().map(|d| origin + d);
                tokio::select! {
                    biased;
                    () = self.shared.changed.notified() => {}
                    () = sleep_until(due) => {}
                }
                continue;
            };
            let outcome = match self.attend(&uid).await {
                Ok(()) => Outcome::Done(None),
                Err(error) if error.is_not_found() => Outcome::Done(None),
                Err(error) => {
                    tracing::debug!(%uid, %error, "collecting failed");
                    Outcome::Failed
                }
            };
            queue.finish(&uid, outcome, origin.elapsed());
        }
    }

    async fn attend(&self, uid: &Uid) -> Result<(), ApiError> {
        let decision = self.shared.graph.lock().expect("no writer panics").decide(uid);
        match decision {
            Decision::Nothing => Ok(()),
            Decision::Delete { node, owners, blocked } => {
                if blocked || self.are_gone(&node, &owners).await? {
                    let propagation = if blocked { Propagation::Foreground } else { Propagation::Background };
                    self.delete(&node, propagation).await?;
                }
                Ok(())
            }
            Decision::DropOwners { node, owners } => {
                if self.are_gone(&node, &owners).await? {
                    self.drop_owners(&node, &owners).await?;
                }
                Ok(())
            }
            Decision::Orphan { node, dependents } => {
                for dependent in &dependents {
                    match self.drop_owners(dependent, &[graph::Owner::of(&node)]).await {
                        Err(error) if !error.is_not_found() => return Err(error),
                        _ => {}
                    }
                }
                self.drop_finalizer(&node, graph::ORPHAN).await
            }
            Decision::Release { node } => self.drop_finalizer(&node, graph::FOREGROUND).await,
        }
    }

    /// Whether the server confirms that none of these owners exists.
    async fn are_gone(&self, node: &Node, owners: &[graph::Owner]) -> Result<bool, ApiError> {
        let registry = self.client.registry();
        for owner in owners {
            let Some(kind) = registry.by_kind(&owner.api_version, &owner.kind) else {
                // A kind that nobody serves: its objects cannot be said to be gone.
                return Ok(false);
            };
            if !kind.namespaced || !node.namespace.is_empty() {
                let namespace = kind.namespaced.then_some(node.namespace.as_str());
                match self.metadata_uid(kind, namespace, &owner.name).await? {
                    Some(uid) if uid == owner.uid => return Ok(false),
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    async fn metadata_uid(
        &self,
        kind: &Arc<Kind>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Uid>, ApiError> {
        let request = self.client.request(kind.clone(), namespace, Operation::Get);
        match self.client.call(ApiRequest { name: Some(name.to_owned()), ..request }).await {
            Ok(response) => match response.body {
                ResponseBody::Object { object, .. } => Ok(object.metadata().map_err(ApiError::internal)?.uid),
                _ => Ok(None),
            },
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, node: &Node, propagation: Propagation) -> Result<(), ApiError> {
        // Finalizers of its own say how the object wants to go.
        let propagation = node.own_propagation().unwrap_or(propagation);
        let params = DeleteParams {
            propagation: Some(propagation),
            uid: Some(node.uid.clone()),
            ..DeleteParams::default()
        };
        self.call(node, Operation::Delete(params)).await
    }

    async fn drop_owners(&self, node: &Node, owners: &[graph::Owner]) -> Result<(), ApiError> {
        if !merge_keys::is_built_in(&node.kind.group) {
            return self.drop_owners_of_custom(node, owners).await;
        }
        let deletions: Vec<_> = owners.iter().map(|o| json!({ "$patch": "delete", "uid": o.uid })).collect();
        let patch = json!({ "metadata": { "uid": node.uid, "ownerReferences": deletions } });
        let patch = Patch {
            format: crate::request::PatchFormat::StrategicMerge,
            body: patch.to_string().into(),
            force: false,
        };
        self.call(node, Operation::Patch(patch, WriteParams::default())).await
    }

    /// The lists of custom kinds cannot be patched by element: they are replaced, at the version that was read.
    async fn drop_owners_of_custom(&self, node: &Node, owners: &[graph::Owner]) -> Result<(), ApiError> {
        let namespace = node.kind.namespaced.then_some(node.namespace.as_str());
        let request = self.client.request(node.kind.clone(), namespace, Operation::Get);
        let response = self.client.call(ApiRequest { name: Some(node.name.clone()), ..request }).await?;
        let ResponseBody::Object { object, .. } = response.body else {
            return Err(ApiError::internal("an object is an object"));
        };
        let mut left = object.metadata().map_err(ApiError::internal)?.owner_references.unwrap_or_default();
        left.retain(|reference| !owners.iter().any(|o| o.uid == reference.uid));
        let patch = Patch::merge(&json!({
            "metadata": {
                "uid": node.uid, "resourceVersion": object.revision().to_string(), "ownerReferences": left,
            },
        }));
        self.call(node, Operation::Patch(patch, WriteParams::default())).await
    }

    async fn drop_finalizer(&self, node: &Node, finalizer: &str) -> Result<(), ApiError> {
        let left: Vec<_> = node.finalizers.iter().filter(|f| *f != finalizer).collect();
        let patch = Patch::merge(&json!({
            "metadata": {
                "uid": node.uid, "resourceVersion": node.revision.to_string(), "finalizers": left,
            },
        }));
        self.call(node, Operation::Patch(patch, WriteParams::default())).await
    }

    async fn call(&self, node: &Node, operation: Operation) -> Result<(), ApiError> {
        let namespace = node.kind.namespaced.then_some(node.namespace.as_str());
        let request = self.client.request(node.kind.clone(), namespace, operation);
        self.client.call(ApiRequest { name: Some(node.name.clone()), ..request }).await.map(drop)
    }
}

/// How long to wait between attempts to list a kind.
const RETRY: Duration = Duration::from_millis(200);
