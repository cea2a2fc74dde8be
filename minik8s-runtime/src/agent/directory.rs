//! Finding the pods of this node, for servers of logs, exec, attach and port-forward.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use crate::runtime::Container;

/// A container of a pod, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerInfo {
    /// Its name in the pod.
    pub name: String,
    /// The newest attempt; `None` if there was none yet.
    pub current: Option<AttemptInfo>,
    /// The attempt before, whose logs are kept.
    pub previous: Option<AttemptInfo>,
    /// Why nothing runs, such as `CrashLoopBackOff`; may be empty.
    pub waiting: String,
}

/// One attempt at running a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptInfo {
    /// Its id in the runtime.
    pub id: String,
    /// Its number, from 0.
    pub attempt: u32,
    /// Whether its process runs.
    pub running: bool,
    /// The file of its output.
    pub log_path: PathBuf,
}

/// A pod of this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PodInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The object as last seen; `None` for a pod that an earlier agent left running and that the server has not
    /// been asked about yet.
    pub pod: Option<Arc<Pod>>,
    /// Its containers: init containers, main ones, ephemeral ones, each in the order of the spec.
    pub containers: Vec<ContainerInfo>,
    /// Its addresses, the primary one first; the node's own on the node's network.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace; `None` on the node's network, and until it is known.
    pub netns: Option<PathBuf>,
}

impl PodInfo {
    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&ContainerInfo> {
        self.containers.iter().find(|c| c.name == name)
    }
}

/// The pods of an agent, to be read by others. Cheap to clone; it stays valid, and empty, after the agent has ended.
#[derive(Clone, Debug, Default)]
pub struct AgentHandle {
    pub(super) directory: Arc<Directory>,
}

impl AgentHandle {
    /// The pod of that name. Of two that share it (the old one still ending), the newer.
    pub fn find(&self, namespace: &str, name: &str) -> Option<PodInfo> {
        let pods = self.directory.lock();
        let created = |p: &PodInfo| p.pod.as_ref().and_then(|p| p.metadata.creation_timestamp.clone());
        pods.values()
            .filter(|p| p.namespace == namespace && p.name == name)
            .max_by(|a, b| created(a).cmp(&created(b)))
            .cloned()
    }

    /// The pod of that uid.
    pub fn by_uid(&self, uid: &str) -> Option<PodInfo> {
        self.directory.lock().get(uid).cloned()
    }

    /// All pods, ordered by uid.
    pub fn pods(&self) -> Vec<PodInfo> {
        self.directory.lock().values().cloned().collect()
    }

    /// The id of a container to read, run commands in or attach to: the newest attempt, or the one before with
    /// `previous`.
    pub fn container(&self, namespace: &str, pod: &str, name: &str, previous: bool) -> Option<AttemptInfo> {
        let info = self.find(namespace, pod)?;
        let container = info.container(name)?;
        if previous { container.previous.clone() } else { container.current.clone() }
    }
}

/// The pods by uid.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<BTreeMap<String, PodInfo>>);

impl Directory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PodInfo>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, info: PodInfo) {
        self.lock().insert(info.uid.clone(), info);
    }

    /// The pod whose newest attempt at some container is `id`.
    pub(crate) fn owner(&self, id: &str) -> Option<String> {
        let pods = self.lock();
        let own =
            |pod: &&PodInfo| pod.containers.iter().any(|c| c.current.as_ref().is_some_and(|a| a.id == id));
        pods.values().find(own).map(|pod| pod.uid.clone())
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Pods that are known by their containers only.
    pub(crate) fn put_found(&self, containers: &[Container], log_path: impl Fn(&Container) -> PathBuf) {
        let mut pods: BTreeMap<String, PodInfo> = BTreeMap::new();
        for container in containers {
            let labels = &container.labels;
            let pod = pods.entry(labels.pod_uid.clone()).or_insert_with(|| PodInfo {
                namespace: labels.pod_namespace.clone(),
                name: labels.pod_name.clone(),
                uid: labels.pod_uid.clone(),
                pod: None,
                containers: Vec::new(),
                addresses: Vec::new(),
                netns: None,
            });
            let attempt = AttemptInfo {
                id: container.id.clone(),
                attempt: labels.attempt,
                running: matches!(container.state, crate::runtime::ContainerState::Running { .. }),
                log_path: log_path(container),
            };
            let position = pod.containers.iter().position(|c| c.name == labels.container);
            let known = match position {
                Some(position) => &mut pod.containers[position],
                None => {
                    pod.containers.push(ContainerInfo {
                        name: labels.container.clone(),
                        current: None,
                        previous: None,
                        waiting: String::new(),
                    });
                    pod.containers.last_mut().expect("just pushed")
                }
            };
            match &known.current {
                Some(current) if current.attempt > attempt.attempt => {
                    if known.previous.as_ref().is_none_or(|p| p.attempt < attempt.attempt) {
                        known.previous = Some(attempt);
                    }
                }
                _ => known.previous = known.current.replace(attempt),
            }
        }
        self.lock().extend(pods);
    }
}
