//! The kernel's side: what there is, and one change after the other.

use std::net::IpAddr;

use super::{Device, Egress, Forwarding, Neighbour, Route, State, Step};
use crate::rtnl::Rtnl;
use crate::{Error, Result};

/// How the way between nodes is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// The name of the tunnel. Default: `mk8s-vxlan`.
    pub device: String,
    /// The node's own address, by which its link is known.
    pub address: IpAddr,
}

impl OverlayConfig {
    /// The defaults, for the node with this address.
    pub fn new(address: IpAddr) -> Self {
        Self { device: "mk8s-vxlan".to_owned(), address }
    }
}

/// The way between nodes, as the kernel has it. What it has is found out each time, so nothing is lost with this value.
#[derive(Debug)]
pub struct Overlay {
    config: OverlayConfig,
    rtnl: Rtnl,
}

impl Overlay {
    /// Of the network namespace that this thread is in. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Without a socket to the kernel.
    pub fn open(config: OverlayConfig) -> Result<Self> {
        Ok(Self { rtnl: Rtnl::here()?, config })
    }

    /// The largest packet, in bytes, of the link that has the node's address.
    ///
    /// # Errors
    /// [`Error::NoSuchAddress`], or what the system says.
    pub async fn link_mtu(&self) -> Result<u32> {
        let index = self.link().await?;
        Ok(self.rtnl.link_at(index).await?.mtu)
    }

    async fn link(&self) -> Result<u32> {
        let address = self.config.address;
        self.rtnl.link_of(address).await?.ok_or(Error::NoSuchAddress(address))
    }

    /// What there is of ours.
    ///
    /// # Errors
    /// What the system says.
    pub async fn list(&self) -> Result<State> {
        let tunnel = self.rtnl.tunnel(&self.config.device).await?;
        let mut state = State::default();
        let mut egress = Vec::new();
        if let Some((index, device)) = tunnel {
            egress.push((index, Egress::Tunnel));
            state.device = Some(device);
            state.forwarding = self.rtnl.forwarding(index).await?.into_iter().collect();
            state.neighbours = self.rtnl.permanent_neighbours(index).await?.into_iter().collect();
        }
        if let Some(index) = self.rtnl.link_of(self.config.address).await? {
            egress.push((index, Egress::Link));
        }
        for (to, via, out) in self.rtnl.routes_of(super::PROTOCOL).await? {
            let known = egress.iter().find(|(index, _)| *index == out);
            let out = known.map_or(Egress::Other(out), |(_, egress)| *egress);
            state.routes.insert(Route { to, via, out });
        }
        Ok(state)
    }

    /// Makes what is wanted of what there is, and says what had to be done. What one change fails at does not keep the
    /// others from being made. With [`State::default`]: removes everything.
    ///
    /// # Errors
    /// The first failure.
    ///
    /// # Cancel safety
    /// Safe: another call goes on from what there is.
    pub async fn apply(&self, wanted: &State) -> Result<Vec<Step>> {
        let steps = wanted.since(&self.list().await?);
        let mut failure = None;
        for step in &steps {
            if let Err(error) = self.perform(step).await {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(steps), Err)
    }

    async fn perform(&self, step: &Step) -> Result<()> {
        let device = &self.config.device;
        let tunnel = || async { Ok::<_, Error>(self.rtnl.must_have(device).await?.index) };
        match step {
            Step::DeleteDevice => self.rtnl.delete(device).await,
            Step::CreateDevice(tunnel) => self.rtnl.add_tunnel(device, tunnel, self.link().await?).await,
            Step::ConfigureDevice(Device { address, mtu, .. }) => {
                let index = tunnel().await?;
                if let Some(address) = address {
                    let bits = if address.is_ipv4() { 32 } else { 128 };
                    self.rtnl.add_address(index, *address, bits).await?;
                }
                self.rtnl.set_up(index, *mtu).await
            }
            Step::DeleteRoute(route) => self.rtnl.delete_route(route.to, route.via, super::PROTOCOL).await,
            Step::AddRoute(Route { to, via, out }) => {
                let index = match out {
                    Egress::Tunnel => tunnel().await?,
                    Egress::Link => self.link().await?,
                    Egress::Other(index) => *index,
                };
                let onlink = *out == Egress::Tunnel;
                self.rtnl.replace_route(*to, *via, index, onlink, super::PROTOCOL).await
            }
            Step::AddNeighbour(Neighbour { address, mac }) => {
                self.rtnl.replace_neighbour(tunnel().await?, *address, *mac).await
            }
            Step::DeleteNeighbour(Neighbour { address, .. }) => {
                self.rtnl.delete_neighbour(tunnel().await?, *address).await
            }
            Step::AddForwarding(Forwarding { mac, remote }) => {
                self.rtnl.add_forwarding(tunnel().await?, *mac, *remote).await
            }
            Step::DeleteForwarding(Forwarding { mac, remote }) => {
                self.rtnl.delete_forwarding(tunnel().await?, *mac, *remote).await
            }
        }
    }
}
