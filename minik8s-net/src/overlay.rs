//! The way from one node's pods to another's.
//!
//! What a node must have for that is a [`State`]: a pure function of where the other nodes are ([`vxlan::desired`],
//! [`host_gw::desired`]). [`Overlay::apply`] looks at what there is and makes the difference. It touches nothing but the
//! device of its name and the routes that carry its number ([`PROTOCOL`]), and of those leaves none that is not wanted.

mod difference;
pub mod host_gw;
mod kernel;
#[cfg(test)]
mod tests;
pub mod vxlan;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{Error, Result, Subnet};

pub use difference::Step;
pub use kernel::{Overlay, OverlayConfig};

/// The number by which the kernel knows our routes from those of others (`ip route show proto 109`).
pub const PROTOCOL: u8 = 109;

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

/// How packets get to another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Inside UDP packets between the nodes' addresses. Works wherever nodes reach one another.
    #[default]
    Vxlan,
    /// As they are, by routes: for nodes on one link.
    HostGw,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        })
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "vxlan" => Ok(Self::Vxlan),
            "host-gw" => Ok(Self::HostGw),
            _ => Err(Error::InvalidBackend(text.to_owned())),
        }
    }
}

/// Where the pods of another node are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    /// The addresses of its pods.
    pub subnet: Subnet,
    /// The node's own address.
    pub address: IpAddr,
    /// The hardware address of its tunnel; [`vxlan::mac`] where it does not say.
    pub mac: Option<Mac>,
}

/// What the kernel has, or is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The tunnel.
    pub device: Option<Device>,
    /// Behind which node a hardware address of the tunnel is.
    pub forwarding: BTreeSet<Forwarding>,
    /// Which hardware address a gateway of the tunnel has.
    pub neighbours: BTreeSet<Neighbour>,
    /// The way to the pods of others.
    pub routes: BTreeSet<Route>,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The number of the network in it.
    pub vni: u32,
    /// The UDP port that nodes listen at.
    pub port: u16,
    /// The node's address.
    pub local: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether it learns from packets who is where; it must not, since it is told.
    pub learning: bool,
    /// The address of what the node itself sends through it.
    pub address: Option<IpAddr>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is in use.
    pub up: bool,
}

/// An entry of the tunnel's forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forwarding {
    /// The hardware address of another node's tunnel.
    pub mac: Mac,
    /// The address of that node.
    pub remote: IpAddr,
}

/// A neighbour that is known without asking.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The address of another node's tunnel.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub to: Subnet,
    /// By whom.
    pub via: IpAddr,
    /// Out of what.
    pub out: Egress,
}

/// What a route goes out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Egress {
    /// The tunnel.
    Tunnel,
    /// The link that has the node's address.
    Link,
    /// Another interface, by its number. Never wanted.
    Other(u32),
}
