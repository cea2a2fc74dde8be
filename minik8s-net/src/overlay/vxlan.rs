//! Pods' packets inside UDP packets, by the kernel's VXLAN device. Everything that the device would have to ask or learn
//! is told to it beforehand, so nothing is ever flooded.

use std::net::IpAddr;

use super::{Device, Egress, Forwarding, Mac, Neighbour, NodeRoute, Route, State};
use crate::Subnet;

/// The port of VXLAN in Linux and in flannel. IANA's, 4789, is that of many a datacenter's own.
pub const PORT: u16 = 8472;

/// The number of the network, of which there is one.
pub const VNI: u32 = 1;

/// By how much a packet grows: an Ethernet header, VXLAN's, UDP's, and that of IP.
pub fn overhead(address: IpAddr) -> u32 {
    14 + 8 + 8 + if address.is_ipv4() { 20 } else { 40 }
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The addresses of its pods.
    pub subnet: Subnet,
    /// Its own address.
    pub address: IpAddr,
    /// The largest packet, in bytes, of the link that has this address.
    pub link_mtu: u32,
    /// The UDP port; [`PORT`].
    pub port: u16,
}

/// The hardware address of the tunnel of the node with this subnet. It follows from the subnet, so that a tunnel that was
/// made anew is still the one that the others know.
pub fn mac(subnet: &Subnet) -> Mac {
    Mac(crate::bridge::mac_of(subnet.network()))
}

/// What a node needs to reach these others.
///
/// A node's tunnel has the first address of its subnet, which is no pod's. Others of another family than this node's own
/// addresses are left out.
pub fn desired(local: &Local, others: &[NodeRoute]) -> State {
    let device = Device {
        vni: VNI,
        port: local.port,
        local: local.address,
        mac: mac(&local.subnet),
        learning: false,
        address: Some(local.subnet.network()),
        mtu: local.link_mtu.saturating_sub(overhead(local.address)),
        up: true,
    };
    let mut state = State { device: Some(device), ..State::default() };
    for other in others {
        let fits = other.subnet.network().is_ipv4() == local.subnet.network().is_ipv4()
            && other.address.is_ipv4() == local.address.is_ipv4();
        if !fits || other.subnet == local.subnet {
            continue;
        }
        let mac = other.mac.unwrap_or_else(|| mac(&other.subnet));
        let gateway = other.subnet.network();
        state.forwarding.insert(Forwarding { mac, remote: other.address });
        state.neighbours.insert(Neighbour { address: gateway, mac });
        state.routes.insert(Route { to: other.subnet, via: gateway, out: Egress::Tunnel });
    }
    state
}
