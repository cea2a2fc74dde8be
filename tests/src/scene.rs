//! What a case has to work with.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::Lookup};
use tokio::process::Child;
use tokio::time::timeout;

use crate::{Cluster, Container, NodeState, Program, container, is_ready};

/// How long to wait for something that is to happen. Nothing fails because it was slow.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A Kubernetes namespace of a case's own, on the suite's cluster.
#[derive(Clone)]
pub struct Scene {
    cluster: Arc<Cluster>,
    kube: kube::Client,
    namespace: String,
}

impl Scene {
    /// Makes the namespace.
    pub(crate) async fn set(
        cluster: Arc<Cluster>,
        kube: kube::Client,
        namespace: String,
    ) -> anyhow::Result<Self> {
        let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
        let new = Namespace { metadata, ..Namespace::default() };
        Api::all(kube.clone())
            .create(&PostParams::default(), &new)
            .await
            .context("cannot make a namespace")?;
        Ok(Self { cluster, kube, namespace })
    }

    /// Deletes the namespace and waits until it is gone, with all that is in it.
    pub(crate) async fn strike(&self) -> anyhow::Result<()> {
        let now = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
        self.pods()
            .delete_collection(&now, &ListParams::default())
            .await
            .context("cannot delete the pods")?;
        let namespaces: Api<Namespace> = Api::all(self.kube.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .context("cannot delete the namespace")?;
        self.until_in(&namespaces, &self.namespace, "to be gone", |o| o.is_none()).await.map(drop)
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The namespace's name.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A client of the API server.
    pub fn kube(&self) -> kube::Client {
        self.kube.clone()
    }

    /// The pods of this scene.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    /// `minik8s`, in this namespace.
    pub fn minik8s(&self, args: &[&str]) -> Program {
        self.cluster.minik8s().args(["--namespace", &self.namespace]).args(args)
    }

    /// `kubectl`, in this namespace.
    pub fn kubectl(&self, args: &[&str]) -> Program {
        self.cluster.kubectl().args(["--namespace", &self.namespace]).args(args)
    }

    /// Has a manifest applied.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        self.minik8s(&["apply", "-f", "-"]).input(manifest).ok().await.map(drop)
    }

    /// Waits for the pod to be as it should.
    ///
    /// # Errors
    /// It is not so after [`PATIENCE`]; what the pod looks like is in the error.
    pub async fn until(&self, pod: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> anyhow::Result<Pod> {
        let seen = self.until_in(&self.pods(), pod, what, |p| p.is_some_and(&wanted)).await?;
        seen.context("a pod that is as it should be is there")
    }

    /// Waits for the pod to be ready.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn until_ready(&self, pod: &str) -> anyhow::Result<Pod> {
        self.until(pod, "to be ready", is_ready).await
    }

    /// Waits for the pod to have ended, well or not: its phase.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn until_ended(&self, pod: &str) -> anyhow::Result<Pod> {
        self.until(pod, "to end", |p| matches!(phase(p), "Succeeded" | "Failed")).await
    }

    /// Waits for the pod to be gone.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn until_gone(&self, pod: &str) -> anyhow::Result<()> {
        self.until_in(&self.pods(), pod, "to be gone", |o| o.is_none()).await.map(drop)
    }

    /// Watches one object until it is as it should; `None` is no object. A server that goes away is waited for.
    async fn until_in<K>(
        &self,
        api: &Api<K>,
        name: &str,
        what: &str,
        wanted: impl Fn(Option<&K>) -> bool,
    ) -> anyhow::Result<Option<K>>
    where
        K: kube::Resource + Lookup + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
        <K as kube::Resource>::DynamicType: Default,
    {
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(api.clone(), only).default_backoff();
        pin_mut!(events);
        let mut seen: Option<K> = None;
        let mut listed: Option<K> = None;
        let waiting = async {
            while let Some(event) = events.next().await {
                seen = match event {
                    Ok(Event::Init) => {
                        listed = None;
                        continue;
                    }
                    Ok(Event::InitApply(object)) => {
                        listed = Some(object);
                        continue;
                    }
                    Ok(Event::InitDone) => listed.take(),
                    Ok(Event::Apply(object)) => Some(object),
                    Ok(Event::Delete(_)) => None,
                    Err(_) => continue,
                };
                if wanted(seen.as_ref()) {
                    return;
                }
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(()) => Ok(seen),
            Err(_) => bail!("waited for {name} {what}; it is {seen:#?}"),
        }
    }

    /// Runs a command in a container.
    pub fn exec(&self, pod: &str, container: &str, words: &[&str]) -> Program {
        self.minik8s(&["exec", pod, "-c", container, "--"]).args(words)
    }

    /// What a shell script prints in a container.
    ///
    /// # Errors
    /// It fails.
    pub async fn sh(&self, pod: &str, container: &str, script: &str) -> anyhow::Result<String> {
        self.exec(pod, container, &["sh", "-c", script]).ok().await
    }

    /// What a container has printed so far.
    ///
    /// # Errors
    /// There is no such container, or it has not run yet.
    pub async fn logs(&self, pod: &str, container: &str) -> anyhow::Result<String> {
        self.minik8s(&["logs", pod, "-c", container]).ok().await
    }

    /// Follows a container's output; it ends when the answer is dropped.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn follow(&self, pod: &str, container: &str) -> anyhow::Result<Child> {
        self.minik8s(&["logs", "-f", pod, "-c", container]).start()
    }

    /// The container as it runs now.
    ///
    /// # Errors
    /// It does not run.
    pub async fn running(&self, pod: &str, name: &str) -> anyhow::Result<Container> {
        let pod = self.pods().get(pod).await?;
        let status = container(&pod, name).with_context(|| format!("no status of container {name}"))?;
        let id = status.container_id.as_deref().and_then(|id| id.strip_prefix("containerd://"));
        let id = id.with_context(|| format!("container {name} has no id"))?.to_owned();
        let tasks = self.cluster.node(&["ctr", "-n", "k8s.io", "tasks", "ls"]).ok().await?;
        let of_it = |line: &str| {
            let mut words = line.split_whitespace();
            (words.next() == Some(&id)).then(|| words.next()?.parse().ok())?
        };
        let pid =
            tasks.lines().find_map(of_it).with_context(|| format!("container {name} has no process"))?;
        Ok(Container { id, restarts: status.restart_count, pid })
    }

    /// Ends a container's process with SIGKILL, from outside.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self, container: &Container) -> anyhow::Result<()> {
        self.cluster.node_sh(&format!("kill -9 {}", container.pid)).await.map(drop)
    }

    /// What is on the node.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn node_state(&self) -> anyhow::Result<NodeState> {
        NodeState::of(&self.cluster).await
    }

    /// For a case that failed: what the pods look like.
    pub(crate) async fn picture(&self) -> String {
        match self.minik8s(&["describe", "pods"]).run().await {
            Ok(ran) => format!("{}{}", ran.stdout, ran.stderr),
            Err(error) => format!("{error:#}"),
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}
