//! The pod network of a node: the bridge of its own pods, in the addresses that the control plane gave it, and the way to
//! the pods of other nodes.

mod follow;
mod kept;
mod plugins;
mod policies;
mod view;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use minik8s_net::BridgeNetwork;
use minik8s_net::overlay::{Backend, Overlay, OverlayConfig, State};
use minik8s_runtime::runtime::{Attachment, PodNetwork, PodSandbox, Result, RuntimeError};
use tokio::sync::Notify;

use kept::Kept;

pub use follow::Keeper;
pub use plugins::Plugins;
pub use policies::enforce;

/// What the network is told about its node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// The node's address.
    pub address: IpAddr,
    /// How other nodes are reached.
    pub backend: Backend,
    /// The UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Where the agent keeps its files.
    pub dir: PathBuf,
}

/// Takes away the ways to other nodes, and what was kept of the network: this machine is no node any more.
///
/// # Errors
/// The kernel or the disk refuses.
pub async fn forget(dir: &Path, address: IpAddr) -> anyhow::Result<()> {
    Overlay::open(OverlayConfig::new(address))?.apply(&State::default()).await?;
    minik8s_net::policy::remove(Path::new("nft")).await?;
    Kept::remove(dir)
}

/// A node's pods' network for an agent: none, until the node has been given addresses.
#[derive(Debug)]
pub struct Network {
    phase: RwLock<Phase>,
    /// Why no pods can be attached although there is a network.
    trouble: RwLock<Option<String>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The node has no addresses for pods, and never had.
    Waiting,
    /// It has, and its network cannot be set up: why.
    Failed(String),
    Open(Arc<BridgeNetwork>),
}

impl Network {
    /// One that waits.
    fn waiting() -> Self {
        Self { phase: RwLock::new(Phase::Waiting), trouble: RwLock::default(), changed: Notify::new() }
    }

    fn phase(&self) -> Phase {
        self.phase.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn enter(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
        self.changed.notify_one();
    }

    /// Notes what keeps pods from being attached, or that nothing does.
    fn troubled(&self, why: Option<String>) {
        let mut trouble = self.trouble.write().unwrap_or_else(PoisonError::into_inner);
        if *trouble != why {
            *trouble = why;
            self.changed.notify_one();
        }
    }

    /// The network, for pods that are new.
    fn for_pods(&self) -> Result<Arc<BridgeNetwork>> {
        match self.phase() {
            Phase::Open(bridge) => Ok(bridge),
            Phase::Failed(why) => Err(RuntimeError::Other(why)),
            Phase::Waiting => {
                let why = "the control plane has not given this node addresses for pods yet (spec.podCIDR)";
                Err(RuntimeError::Other(why.to_owned()))
            }
        }
    }

    /// The network, for pods that may have something in it; `None` if none can have.
    fn for_old_pods(&self) -> Result<Option<Arc<BridgeNetwork>>> {
        match self.phase() {
            Phase::Waiting => Ok(None),
            _ => self.for_pods().map(Some),
        }
    }
}

fn failed(error: minik8s_net::Error) -> RuntimeError {
    RuntimeError::Other(error.to_string())
}

#[async_trait]
impl PodNetwork for Network {
    async fn ready(&self) -> Result<()> {
        self.for_pods()?.ready().await.map_err(failed)?;
        let trouble = self.trouble.read().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.map_or(Ok(()), |why| Err(RuntimeError::Other(why)))
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn attach(&self, pod: &PodSandbox) -> Result<Attachment> {
        let bridge = self.for_pods()?;
        let attached = bridge.attach(&pod.uid, &pod.namespace, &pod.name).await.map_err(failed)?;
        Ok(Attachment { netns: attached.netns, addresses: attached.addresses })
    }

    async fn detach(&self, pod_uid: &str) -> Result<()> {
        match self.for_old_pods()? {
            Some(bridge) => bridge.detach(pod_uid).await.map_err(failed),
            None => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<String>> {
        Ok(self.for_old_pods()?.map(|bridge| bridge.list()).unwrap_or_default())
    }
}
