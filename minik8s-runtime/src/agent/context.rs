//! What the parts of an agent share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minik8s_reconcile::Client;
use tokio::sync::{Notify, Semaphore};

use super::config::AgentConfig;
use super::directory::Directory;
use super::downward::Place;
use super::events::Events;
use super::image_pull::Puller;
use super::machine::Machine;
use super::sources::Sources;
use super::volumes::etc::Dns;
use crate::runtime::{ContainerRuntime, ImageStore, PodNetwork};

/// Writes of pod status under way at once.
const WRITES: usize = 16;

/// Who has to do something when the node is back: what they were at may be out of date, and connections may be dead
/// without knowing it.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    /// Says how the node is.
    pub(crate) report: Notify,
    /// Follows the node's pods.
    pub(crate) follow: Notify,
}

impl Returned {
    pub(crate) fn tell(&self) {
        self.report.notify_one();
        self.follow.notify_one();
    }
}

/// The seams, the settings and what is known of the machine.
pub(crate) struct Context {
    pub(crate) node_name: String,
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    pub(crate) images: Arc<dyn ImageStore>,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) config: AgentConfig,
    pub(crate) machine: Machine,
    pub(crate) sources: Sources,
    pub(crate) puller: Puller,
    pub(crate) writes: Semaphore,
    pub(crate) directory: Arc<Directory>,
    pub(crate) events: Events,
    /// Told when the server hears of the node again after it may have given it up.
    pub(crate) returned: Returned,
    /// The node's labels as the server had them last; users may add to them.
    labels: Mutex<Option<BTreeMap<String, String>>>,
}

impl Context {
    pub(crate) fn new(
        node_name: String,
        client: Client,
        runtime: Arc<dyn ContainerRuntime>,
        images: Arc<dyn ImageStore>,
        network: Arc<dyn PodNetwork>,
        config: AgentConfig,
        events: Events,
    ) -> Self {
        Self {
            machine: Machine::measure(&config),
            sources: Sources::new(client.clone(), config.clock.clone()),
            puller: Puller::new(images.clone(), config.max_parallel_pulls),
            writes: Semaphore::new(WRITES),
            directory: Arc::default(),
            node_name,
            client,
            runtime,
            images,
            network,
            config,
            events,
            returned: Returned::default(),
            labels: Mutex::default(),
        }
    }

    /// Notes the node's labels.
    pub(crate) fn set_labels(&self, labels: BTreeMap<String, String>) {
        *self.labels.lock().unwrap_or_else(PoisonError::into_inner) = Some(labels);
    }

    /// The node's labels as last seen, if they have been.
    pub(crate) fn labels(&self) -> Option<BTreeMap<String, String>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The facts of a pod's place.
    pub(crate) fn place(&self, pod_ips: Vec<std::net::IpAddr>) -> Place {
        let signed = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        Place {
            node_name: self.node_name.clone(),
            host_ips: self.config.addresses.clone(),
            pod_ips,
            cpu_milli: signed(self.machine.allocatable_cpu_milli()),
            memory: signed(self.machine.allocatable_memory()),
            storage: signed(self.machine.storage),
        }
    }

    /// How names are resolved.
    pub(crate) fn dns(&self) -> Dns {
        Dns {
            servers: self.config.cluster_dns.clone(),
            domain: self.config.cluster_domain.clone(),
            node: std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default(),
        }
    }
}
