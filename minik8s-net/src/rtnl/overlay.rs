//! Tunnels, what is behind them, and routes.

use std::net::IpAddr;

use futures::{Stream, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use nix::errno::Errno;
use rtnetlink::{LinkVxlan, RouteMessageBuilder};

use super::{Link, Rtnl, failed, is, read_link};
use crate::overlay::{Device, Forwarding, Mac, Neighbour};
use crate::{Error, Result, Subnet};

/// Everything that a listing has. One that was disturbed by a change meanwhile is good enough: the next one sees it.
async fn all<T>(what: &str, list: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>> {
    let mut list = std::pin::pin!(list);
    let mut found = Vec::new();
    while let Some(item) = list.try_next().await.map_err(|error| failed(what, error))? {
        found.push(item);
    }
    Ok(found)
}

/// Takes these errors for success.
fn unless(result: Result<(), rtnetlink::Error>, fine: &[Errno], what: impl FnOnce() -> String) -> Result<()> {
    match result {
        Err(error) if !fine.iter().any(|errno| is(&error, *errno)) => Err(failed(&what(), error)),
        _ => Ok(()),
    }
}

impl Rtnl {
    pub(crate) async fn link_at(&self, index: u32) -> Result<Link> {
        let links = all("look for a link", self.handle.link().get().match_index(index).execute()).await?;
        links
            .first()
            .map(read_link)
            .ok_or_else(|| Error::io("look for a link", std::io::Error::from(Errno::ENODEV)))
    }

    async fn addresses(&self) -> Result<Vec<AddressMessage>> {
        all("list addresses", self.handle.address().get().execute()).await
    }

    /// The addresses of an interface, with the lengths of their prefixes, but for those that the kernel gave it.
    pub(crate) async fn addresses_of(&self, index: u32) -> Result<Vec<(IpAddr, u8)>> {
        let addresses = self.addresses().await?;
        let addresses = addresses.iter().filter(|message| message.header.index == index);
        Ok(addresses.filter_map(|message| Some((own(message)?, message.header.prefix_len))).collect())
    }

    /// The number of the interface that has this address.
    pub(crate) async fn link_of(&self, address: IpAddr) -> Result<Option<u32>> {
        let addresses = self.addresses().await?;
        Ok(addresses.iter().find(|message| has(message, address)).map(|message| message.header.index))
    }

    /// The tunnel of that name: its number and what it is. Another kind of device of that name is one that can only be
    /// removed.
    pub(crate) async fn tunnel(&self, name: &str) -> Result<Option<(u32, Device)>> {
        let found =
            all(&format!("look for {name}"), self.handle.link().get().match_name(name).execute()).await;
        let found = match found {
            Err(Error::Netlink { source, .. }) if is(&source, Errno::ENODEV) => return Ok(None),
            found => found?,
        };
        let Some(message) = found.first() else { return Ok(None) };
        let mut device = read_tunnel(message);
        let index = message.header.index;
        // The kernel gives IPv6 devices an address of their own, which is none of ours.
        device.address = self.addresses_of(index).await?.first().map(|(address, _)| *address);
        Ok(Some((index, device)))
    }

    /// Makes a tunnel over `link`, with everything that cannot be set later.
    pub(crate) async fn add_tunnel(&self, name: &str, device: &Device, link: u32) -> Result<()> {
        let message = LinkVxlan::new(name, device.vni)
            .port(device.port)
            .dev(link)
            .learning(device.learning)
            .address(device.mac.0.to_vec())
            .mtu(device.mtu);
        let message = match device.local {
            IpAddr::V4(v4) => message.local(v4),
            IpAddr::V6(v6) => message.local6(v6),
        };
        let made = self.handle.link().add(message.build()).execute().await;
        unless(made, &[], || format!("make {name}"))
    }

    /// The forwarding database of a tunnel.
    pub(crate) async fn forwarding(&self, index: u32) -> Result<Vec<Forwarding>> {
        let what = "list the forwarding database";
        let get = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let entries = all(what, get.execute()).await?;
        let entries = entries.iter().filter(|entry| entry.header.ifindex == index);
        Ok(entries
            .filter_map(|entry| Some(Forwarding { mac: mac(entry)?, remote: address(entry)? }))
            .collect())
    }

    pub(crate) async fn add_forwarding(&self, index: u32, mac: Mac, remote: IpAddr) -> Result<()> {
        let request = self.handle.neighbours().add_bridge(index, &mac.0).destination(remote);
        let done = request.flags(NeighbourFlags::Own).replace().execute().await;
        unless(done, &[], || format!("tell that {mac} is behind {remote}"))
    }

    pub(crate) async fn delete_forwarding(&self, index: u32, mac: Mac, remote: IpAddr) -> Result<()> {
        let mut request = self.handle.neighbours().add_bridge(index, &mac.0).destination(remote);
        request = request.flags(NeighbourFlags::Own);
        let message = request.message_mut().clone();
        let done = self.handle.neighbours().del(message).execute().await;
        unless(done, &[Errno::ENOENT], || format!("forget that {mac} is behind {remote}"))
    }

    /// The neighbours of an interface that somebody has set.
    pub(crate) async fn permanent_neighbours(&self, index: u32) -> Result<Vec<Neighbour>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let get = self.handle.neighbours().get().set_address_family(family);
            found.extend(all("list neighbours", get.execute()).await?);
        }
        let ours = found
            .iter()
            .filter(|entry| entry.header.ifindex == index && entry.header.state == NeighbourState::Permanent);
        Ok(ours.filter_map(|entry| Some(Neighbour { address: address(entry)?, mac: mac(entry)? })).collect())
    }

    pub(crate) async fn replace_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac.0);
        unless(request.replace().execute().await, &[], || format!("set neighbour {address}"))
    }

    pub(crate) async fn delete_neighbour(&self, index: u32, address: IpAddr) -> Result<()> {
        let message = self.handle.neighbours().add(index, address).message_mut().clone();
        let done = self.handle.neighbours().del(message).execute().await;
        unless(done, &[Errno::ENOENT], || format!("remove neighbour {address}"))
    }

    /// Where the routes of that protocol go, by whom, and out of which interface.
    pub(crate) async fn routes_of(&self, protocol: u8) -> Result<Vec<(Subnet, IpAddr, u32)>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            found.extend(all("list routes", self.handle.route().get(query).execute()).await?);
        }
        let ours = found.iter().filter(|route| route.header.protocol == RouteProtocol::Other(protocol));
        Ok(ours.filter_map(read_route).collect())
    }

    pub(crate) async fn replace_route(
        &self,
        to: Subnet,
        via: IpAddr,
        index: u32,
        onlink: bool,
        protocol: u8,
    ) -> Result<()> {
        let mut message = route(to, via, protocol)?;
        message.attributes.push(RouteAttribute::Oif(index));
        if onlink {
            message.header.flags.insert(netlink_packet_route::route::RouteFlags::Onlink);
        }
        let done = self.handle.route().add(message).replace().execute().await;
        unless(done, &[], || format!("set the route to {to} by {via}"))
    }

    pub(crate) async fn delete_route(&self, to: Subnet, via: IpAddr, protocol: u8) -> Result<()> {
        let done = self.handle.route().del(route(to, via, protocol)?).execute().await;
        unless(done, &[Errno::ESRCH], || format!("remove the route to {to} by {via}"))
    }
}

fn route(to: Subnet, via: IpAddr, protocol: u8) -> Result<RouteMessage> {
    let invalid = |error| Error::io(format!("the route to {to} by {via}"), std::io::Error::other(error));
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to.network(), to.prefix())
        .and_then(|builder| builder.gateway(via))
        .map_err(invalid)?;
    let mut message = builder.build();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(protocol);
    Ok(message)
}

fn read_route(message: &RouteMessage) -> Option<(Subnet, IpAddr, u32)> {
    let (mut to, mut via, mut out) = (None, None, None);
    let read = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = read(address),
            RouteAttribute::Gateway(address) => via = read(address),
            RouteAttribute::Oif(index) => out = Some(*index),
            _ => {}
        }
    }
    Some((Subnet::new(to?, message.header.destination_prefix_length).ok()?, via?, out?))
}

fn has(message: &AddressMessage, wanted: IpAddr) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Address(address) | AddressAttribute::Local(address) => *address == wanted,
        _ => false,
    })
}

/// An address, if it is not one that the kernel made.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let addresses = message.attributes.iter().filter_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    addresses.into_iter().find(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    })
}

fn read_tunnel(message: &LinkMessage) -> Device {
    let mut device = Device {
        vni: 0,
        port: 0,
        local: IpAddr::from([0, 0, 0, 0]),
        mac: Mac([0; 6]),
        learning: false,
        address: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Address(bytes) => device.mac = octets(bytes).unwrap_or(device.mac),
            LinkAttribute::LinkInfo(infos) => {
                let parts = infos.iter().filter_map(|info| match info {
                    LinkInfo::Data(InfoData::Vxlan(parts)) => Some(parts),
                    _ => None,
                });
                parts.flatten().for_each(|part| read_vxlan(&mut device, part));
            }
            _ => {}
        }
    }
    device
}

fn read_vxlan(device: &mut Device, part: &InfoVxlan) {
    match part {
        InfoVxlan::Id(vni) => device.vni = *vni,
        InfoVxlan::Port(port) => device.port = *port,
        InfoVxlan::Local(v4) => device.local = IpAddr::V4(*v4),
        InfoVxlan::Local6(v6) => device.local = IpAddr::V6(*v6),
        InfoVxlan::Learning(learning) => device.learning = *learning,
        _ => {}
    }
}

fn octets(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => octets(bytes),
        _ => None,
    })
}

fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        // The family of a forwarding database says nothing of its addresses.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    })
}
