//! Keeps a node's network as the Nodes say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use minik8s_net::bridge::{BridgeConfig, BridgeNetwork};
use minik8s_net::overlay::{Backend, Overlay, OverlayConfig, State, host_gw, vxlan};
use minik8s_net::{Error, Subnet};
use minik8s_reconcile::Client;
use minik8s_reconcile::cache::Caches;
use minik8s_reconcile::request::Patch;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::kept::Kept;
use super::view::{BACKEND, TUNNEL_MAC, View};
use super::{Network, Phase, Settings};

/// How often what there is is compared with what there is to be, in case that somebody has changed it.
const REPAIR: Duration = Duration::from_secs(10);
/// What failed is tried again after that.
const RETRY: Duration = Duration::from_secs(1);
/// The largest packet where the node's link does not say.
const MTU: u32 = 1500;

/// Makes a node's network, and keeps it.
pub struct Keeper {
    settings: Settings,
    network: Arc<Network>,
    client: Client,
    overlay: Overlay,
    kept: Option<Kept>,
    view: View,
    failing: bool,
    /// The last complaint, so that each is made once.
    said: String,
}

impl Keeper {
    /// Sets up what the node was given before, if it was given anything. What the control plane said last holds until it
    /// says something else.
    ///
    /// # Errors
    /// What was kept is damaged, or the kernel cannot be spoken to.
    pub async fn open(settings: Settings, client: Client) -> anyhow::Result<Self> {
        let overlay = Overlay::open(OverlayConfig::new(settings.address))?;
        let kept = Kept::read(&settings.dir)?;
        let (view, said, network) = (View::default(), String::new(), Arc::new(Network::waiting()));
        let mut keeper = Self { settings, network, client, overlay, kept, view, failing: false, said };
        if let Some(kept) = keeper.kept.clone() {
            let (cluster, others) = (kept.cluster.clone(), kept.others());
            keeper.view = View { subnet: Some(kept.subnet), cluster, others, ..View::default() };
            keeper.work().await;
        }
        Ok(keeper)
    }

    /// The network.
    pub fn network(&self) -> Arc<Network> {
        self.network.clone()
    }

    /// Follows the Nodes until `stop`. The network stays as it is then.
    pub async fn run(mut self, stop: CancellationToken) {
        let nodes = Caches::new(self.client.clone(), stop.clone()).of::<Node>();
        let mut seen = 0;
        loop {
            let pause = if self.failing { RETRY } else { REPAIR };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = nodes.wait_for(seen + 1) => {
                    seen = nodes.revision();
                    if !self.look(&nodes.list()) {
                        continue;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.work().await;
        }
    }

    /// Takes note of the nodes; says whether that changes anything.
    fn look(&mut self, nodes: &[Arc<Node>]) -> bool {
        let Settings { node, backend, .. } = &self.settings;
        let mut view = View::of(nodes, node, *backend);
        if view.subnet.is_none() {
            // A node that registers anew keeps what it had until it is given something.
            view.subnet = self.view.subnet;
        }
        let changed = view != self.view;
        if changed && view.skipped != self.view.skipped {
            for skipped in &view.skipped {
                tracing::warn!("pods of another node are not reached: {skipped}");
            }
        }
        self.view = view;
        changed
    }

    async fn work(&mut self) {
        let result = self.try_work().await;
        self.failing = result.is_err();
        let said = result.err().map(|error| format!("{error:#}")).unwrap_or_default();
        if said != self.said {
            if said.is_empty() {
                tracing::info!("the pod network is as it is to be");
            } else {
                tracing::warn!("the pod network is not as it is to be: {said}");
            }
            self.said = said;
        }
    }

    async fn try_work(&mut self) -> anyhow::Result<()> {
        let Some(subnet) = self.view.subnet else { return Ok(()) };
        let mtu = self.mtu().await?;
        let own = match self.network.phase() {
            Phase::Open(bridge) if bridge.subnet() == subnet => bridge,
            Phase::Open(bridge) if !bridge.list().is_empty() => {
                self.network.troubled(Some(format!(
                    "this node was given {subnet}, and has pods with addresses of {}: it changes when they are gone",
                    bridge.subnet()
                )));
                bridge
            }
            _ => self.open_bridge(subnet, mtu).await?,
        };
        if own.subnet() == subnet {
            self.network.troubled(None);
        }
        let kept = Kept::new(own.subnet(), self.view.cluster.clone(), &self.view.others);
        if self.kept.as_ref() != Some(&kept) {
            kept.write(&self.settings.dir)?;
            self.kept = Some(kept);
        }
        own.keep(&self.view.cluster).await.context("the bridge")?;
        let wanted = self.wanted(own.subnet()).await?;
        let steps = self.overlay.apply(&wanted).await.context("the way to other nodes")?;
        if !steps.is_empty() {
            tracing::info!(changes = steps.len(), others = self.view.others.len(), "ways to other nodes set");
        }
        self.announce(own.subnet()).await
    }

    async fn open_bridge(&self, subnet: Subnet, mtu: u32) -> anyhow::Result<Arc<BridgeNetwork>> {
        let mut config = BridgeConfig::new(subnet, self.settings.dir.join("network"));
        config.cluster.clone_from(&self.view.cluster);
        config.mtu = mtu;
        match BridgeNetwork::open(config).await {
            Ok(bridge) => {
                let bridge = Arc::new(bridge);
                tracing::info!(%subnet, mtu, "pods have a network");
                self.network.enter(Phase::Open(bridge.clone()));
                Ok(bridge)
            }
            Err(error) => {
                let why = format!("the pod network {subnet} cannot be set up: {error}");
                self.network.enter(Phase::Failed(why.clone()));
                Err(anyhow::anyhow!(why))
            }
        }
    }

    /// Whether other nodes can reach this one at all.
    fn is_alone(&self) -> bool {
        self.settings.address.is_loopback()
    }

    /// The largest packet between pods.
    async fn mtu(&self) -> anyhow::Result<u32> {
        if self.is_alone() {
            return Ok(MTU);
        }
        let link = match self.overlay.link_mtu().await {
            // Known to others by an address that is somebody else's, who sends it on.
            Err(Error::NoSuchAddress(_)) => MTU,
            mtu => mtu?,
        };
        Ok(match self.settings.backend {
            Backend::Vxlan => link.saturating_sub(vxlan::overhead(self.settings.address)),
            Backend::HostGw => link,
        })
    }

    async fn wanted(&self, subnet: Subnet) -> anyhow::Result<State> {
        let others = &self.view.others;
        if self.is_alone() || others.is_empty() {
            return Ok(State::default());
        }
        Ok(match self.settings.backend {
            Backend::Vxlan => {
                let link_mtu = self.overlay.link_mtu().await?;
                let Settings { address, vxlan_port: port, .. } = self.settings;
                vxlan::desired(&vxlan::Local { subnet, address, link_mtu, port }, others)
            }
            Backend::HostGw => host_gw::desired(&subnet, others),
        })
    }

    /// Tells the other nodes how this one's pods are reached.
    async fn announce(&mut self, subnet: Subnet) -> anyhow::Result<()> {
        let Some(announced) = &self.view.announced else { return Ok(()) };
        let backend = self.settings.backend;
        let mac = (backend == Backend::Vxlan).then(|| vxlan::mac(&subnet).to_string());
        let mut wanted = BTreeMap::from([(BACKEND.to_owned(), backend.to_string())]);
        wanted.extend(mac.clone().map(|mac| (TUNNEL_MAC.to_owned(), mac)));
        if *announced == wanted {
            return Ok(());
        }
        let annotations = json!({ BACKEND: backend.to_string(), TUNNEL_MAC: mac });
        let patch = Patch::merge(&json!({ "metadata": { "annotations": annotations } }));
        self.client
            .all::<Node>()
            .patch(&self.settings.node, patch)
            .await
            .context("announcing the network")?;
        self.view.announced = Some(wanted);
        Ok(())
    }
}
