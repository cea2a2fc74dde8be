//! The few requests over netlink that we need, each of which takes "it is so already" for success.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::Path;

use futures::TryStreamExt;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::{Error, Result, netns};

mod overlay;

/// A connection to the kernel's network configuration, of one network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Rtnl {
    handle: Handle,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

/// What a pair of virtual interfaces is to be.
pub(crate) struct Veth<'a> {
    /// The end on the node.
    pub(crate) name: &'a str,
    /// The end in the namespace.
    pub(crate) peer: &'a str,
    /// The namespace, open.
    pub(crate) namespace: RawFd,
    /// The hardware address of that end.
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
}

impl Rtnl {
    /// To the namespace that this thread is in.
    pub(crate) fn here() -> Result<Self> {
        let connect = || -> std::io::Result<_> {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            Ok(handle)
        };
        Ok(Self { handle: connect().map_err(|error| Error::io("netlink", error))? })
    }

    /// To the namespace at `path`. A socket belongs to the namespace in which it was opened, wherever it is used.
    pub(crate) async fn inside(path: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let connect = move || {
            let _in_runtime = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            runtime.spawn(connection);
            Ok(handle)
        };
        Ok(Self { handle: netns::run_in(path, connect).await? })
    }

    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.map(|message| read_link(&message))),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(failed(&format!("look for {name}"), error)),
        }
    }

    /// The names of the ports of a bridge.
    pub(crate) async fn ports(&self, bridge: u32) -> Result<Vec<String>> {
        let mut links = self.handle.link().get().execute();
        let mut names = Vec::new();
        while let Some(link) = links.try_next().await.map_err(|error| failed("list links", error))? {
            let of_bridge = link
                .attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::Controller(index) if *index == bridge));
            let name = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            names.extend(name.filter(|_| of_bridge));
        }
        Ok(names)
    }

    /// Makes a bridge, up, with this address of its own: else it would take that of its lowest port, and change it with
    /// its ports.
    pub(crate) async fn ensure_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<Link> {
        if self.link(name).await?.is_none() {
            let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).up().build();
            match self.handle.link().add(message).execute().await {
                Err(error) if !is(&error, Errno::EEXIST) => {
                    return Err(failed(&format!("make {name}"), error));
                }
                _ => {}
            }
        }
        let link = self.must_have(name).await?;
        self.set_up(link.index, mtu).await?;
        Ok(link)
    }

    /// Brings an interface up.
    pub(crate) async fn set_up(&self, index: u32, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        self.handle.link().set(message).execute().await.map_err(|error| failed("set link up", error))
    }

    /// Brings the loopback interface up.
    pub(crate) async fn loopback_up(&self) -> Result<()> {
        // The kernel makes it first.
        let message = LinkUnspec::new_with_index(1).up().build();
        self.handle.link().set(message).execute().await.map_err(|error| failed("set lo up", error))
    }

    /// Makes the pair in one go: at no time is one end anywhere else than where it belongs.
    pub(crate) async fn add_veth(&self, veth: &Veth<'_>) -> Result<()> {
        // It cannot be up yet: the kernel makes it before it has another end.
        let peer: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.peer)
            .address(veth.mac.to_vec())
            .mtu(veth.mtu)
            .setns_by_fd(veth.namespace)
            .build();
        let message = LinkVeth::new(veth.name, veth.peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(veth.mtu)
            .build();
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .map_err(|error| failed(&format!("make {}", veth.name), error))
    }

    /// Makes an interface a port of a bridge, up and with an alias. A pod may reach itself through a service: the bridge
    /// sends frames back where they came from.
    pub(crate) async fn set_port(&self, name: &str, bridge: u32, alias: &str) -> Result<()> {
        let failed = |error| failed(&format!("make {name} a port"), error);
        let index = self.must_have(name).await?.index;
        let port = LinkUnspec::new_with_index(index).controller(bridge).alias(alias).up().build();
        self.handle.link().set(port).execute().await.map_err(failed)?;
        let hairpin = LinkBridgePort::new(index).hairpin(true).build();
        self.handle.link().set_port(hairpin).execute().await.map_err(failed)
    }

    /// Removes an interface; one that is gone is fine.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        let Some(link) = self.link(name).await? else {
            return Ok(());
        };
        match self.handle.link().del(link.index).execute().await {
            Err(error) if !is(&error, Errno::ENODEV) => Err(failed(&format!("remove {name}"), error)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        match self.handle.address().add(index, address, prefix).execute().await {
            Err(error) if !is(&error, Errno::EEXIST) => Err(failed(&format!("add address {address}"), error)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn add_default_route(&self, index: u32, gateway: IpAddr) -> Result<()> {
        let route = match gateway {
            IpAddr::V4(v4) => {
                RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(v4).output_interface(index).build()
            }
            IpAddr::V6(v6) => {
                RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(v6).output_interface(index).build()
            }
        };
        match self.handle.route().add(route).execute().await {
            Err(error) if !is(&error, Errno::EEXIST) => {
                Err(failed(&format!("add route by {gateway}"), error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn must_have(&self, name: &str) -> Result<Link> {
        let missing = || Error::io(name, std::io::Error::from(Errno::ENODEV));
        self.link(name).await?.ok_or_else(missing)
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let mtu = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    Link { index: message.header.index, mtu: mtu.unwrap_or(0) }
}

fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}

fn failed(what: &str, source: rtnetlink::Error) -> Error {
    Error::Netlink { what: what.to_owned(), source }
}
