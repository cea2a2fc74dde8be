//! Which pods may speak to which: NetworkPolicies
//! (<https://kubernetes.io/docs/concepts/services-networking/network-policies/>) as a table of nftables.
//!
//! [`Table::compile`] is a plain function of all pods, namespaces and policies; what it gives is whole, and [`apply`]
//! puts it in place of what there was, in one transaction.
//!
//! A pod is reached by its own node whatever policies say, and connections that were allowed go on. Pods on their node's
//! network are not subject to policies, and are nobody's peers but as addresses.

mod compile;
mod render;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use minik8s_api::Cidr;

pub use render::{apply, remove};

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The rules of one node: for each of its pods that some policy is about, what may come to it or go from it. A pod that is
/// not here is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What may come, by the pod's address.
    pub ingress: BTreeMap<IpAddr, BTreeSet<Allow>>,
    /// What may go.
    pub egress: BTreeMap<IpAddr, BTreeSet<Allow>>,
}

/// Something that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allow {
    /// With whom.
    pub peers: Peers,
    /// At which ports of whoever is spoken to; `None` for all, and for protocols without ports.
    pub ports: Option<BTreeSet<Ports>>,
}

/// Those who may be at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peers {
    /// Everybody.
    All,
    /// These.
    Addresses(BTreeSet<IpAddr>),
    /// Those in a block, but for those in some parts of it.
    Block(Cidr, BTreeSet<Cidr>),
}

/// Ports of one protocol: the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// The first and the last; `None` for all.
    pub range: Option<(u16, u16)>,
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub from: IpAddr,
    /// Where it goes.
    pub to: IpAddr,
    /// The protocol and the port that it goes to; `None` for one without ports.
    pub port: Option<(Protocol, u16)>,
}

impl Table {
    /// Whether nothing is ruled.
    pub fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }

    /// Whether a packet passes.
    pub fn passes(&self, packet: &Packet) -> bool {
        let out = self.egress.get(&packet.from);
        let into = self.ingress.get(&packet.to);
        out.is_none_or(|allowed| allowed.iter().any(|a| a.matches(packet.to, packet.port)))
            && into.is_none_or(|allowed| allowed.iter().any(|a| a.matches(packet.from, packet.port)))
    }
}

impl Allow {
    fn matches(&self, peer: IpAddr, port: Option<(Protocol, u16)>) -> bool {
        let known = match &self.peers {
            Peers::All => true,
            Peers::Addresses(all) => all.contains(&peer),
            Peers::Block(block, but) => block.contains(peer) && !but.iter().any(|part| part.contains(peer)),
        };
        let fits = |ports: &Ports| {
            port.is_some_and(|(protocol, port)| {
                protocol == ports.protocol
                    && ports.range.is_none_or(|(first, last)| (first..=last).contains(&port))
            })
        };
        known && self.ports.as_ref().is_none_or(|ports| ports.iter().any(fits))
    }
}
