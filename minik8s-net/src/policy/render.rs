//! Rules as nftables reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use super::{Allow, Peers, Ports, Protocol, Table};
use crate::Result;
use crate::bridge::nft;

/// The table that is ours.
const NAME: &str = "minik8s_policy";

/// Puts the rules in place of those that there were, all at once. Must be called in a tokio runtime, in the network
/// namespace of the node.
///
/// # Errors
/// What `nft` says; then those that there were stay.
pub async fn apply(program: &Path, table: &Table) -> Result<()> {
    nft::apply(program, table.to_string()).await
}

/// Removes the rules, if there are any.
///
/// # Errors
/// What `nft` says.
pub async fn remove(program: &Path) -> Result<()> {
    nft::apply(program, format!("table inet {NAME} {{}}\ndelete table inet {NAME}\n")).await
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// A word that is the same for an address and for no other.
fn chain(way: &str, address: IpAddr) -> String {
    format!("{way}_{}", address.to_string().replace(['.', ':'], "_"))
}

/// The whole table, with the one that there was removed before.
///
/// Connections pass what they are allowed to go through and what their other end lets in; either chain returns what it
/// allows. What pods send to their own node is their egress, too.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {NAME} {{}}\ndelete table inet {NAME}\ntable inet {NAME} {{")?;
        for (way, pods) in [("egress", &self.egress), ("ingress", &self.ingress)] {
            let end = if way == "egress" { "daddr" } else { "saddr" };
            for (address, allowed) in pods {
                writeln!(f, "    chain {} {{", chain(way, *address))?;
                for allow in allowed {
                    allow.write(f, end, *address)?;
                }
                writeln!(f, "        drop\n    }}")?;
            }
        }
        for (hook, ways) in [("forward", &["egress", "ingress"][..]), ("input", &["egress"])] {
            writeln!(f, "    chain {hook} {{")?;
            writeln!(f, "        type filter hook {hook} priority filter; policy accept;")?;
            writeln!(f, "        ct state established,related accept")?;
            for way in ways {
                let (pods, end) =
                    if *way == "egress" { (&self.egress, "saddr") } else { (&self.ingress, "daddr") };
                jumps(f, way, pods, end)?;
            }
            writeln!(f, "    }}")?;
        }
        writeln!(f, "}}")
    }
}

/// The way into the chains, one map for each family.
fn jumps(
    f: &mut fmt::Formatter<'_>,
    way: &str,
    pods: &BTreeMap<IpAddr, BTreeSet<Allow>>,
    end: &str,
) -> fmt::Result {
    for family_ in ["ip", "ip6"] {
        let of = pods.keys().filter(|address| family(**address) == family_);
        let jumps: Vec<String> =
            of.map(|address| format!("{address} : jump {}", chain(way, *address))).collect();
        if !jumps.is_empty() {
            writeln!(f, "        {family_} {end} vmap {{ {} }}", jumps.join(", "))?;
        }
    }
    Ok(())
}

impl Allow {
    /// The rules, for a pod with this address, of what has a peer at its `end`.
    fn write(&self, f: &mut fmt::Formatter<'_>, end: &str, own: IpAddr) -> fmt::Result {
        let own = family(own);
        let mut peers = String::new();
        match &self.peers {
            Peers::All => {}
            Peers::Addresses(all) => {
                let all: Vec<_> =
                    all.iter().filter(|a| family(**a) == own).map(ToString::to_string).collect();
                if all.is_empty() {
                    return Ok(());
                }
                write!(peers, "{own} {end} {{ {} }} ", all.join(", "))?;
            }
            Peers::Block(block, but) => {
                if family(block.network()) != own {
                    return Ok(());
                }
                // A match of everything is none.
                if block.prefix() > 0 {
                    write!(peers, "{own} {end} {block} ")?;
                }
                for part in but.iter().filter(|part| family(part.network()) == own) {
                    if part.prefix() == 0 {
                        return Ok(());
                    }
                    write!(peers, "{own} {end} != {part} ")?;
                }
            }
        }
        match &self.ports {
            None => writeln!(f, "        {peers}return"),
            Some(ports) => ports.iter().try_for_each(|ports| writeln!(f, "        {peers}{ports} return")),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        match self.range {
            None => write!(f, "meta l4proto {protocol}"),
            Some((first, last)) if first == last => write!(f, "{protocol} dport {first}"),
            Some((first, last)) => write!(f, "{protocol} dport {first}-{last}"),
        }
    }
}
