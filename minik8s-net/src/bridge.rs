//! The pods of one node on one bridge.
//!
//! Each pod has a network namespace with an interface `eth0` whose other end is a port of the bridge; the bridge has the
//! subnet's gateway address, and what leaves the subnet does so in the node's name.

use std::fs;
use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ipam::Pool;
use crate::overlay::Mac;
use crate::rtnl::{Rtnl, Veth};
use crate::{Error, Result, Subnet, netns};

pub(crate) mod nft;

/// The pod's end of its interface.
const POD_INTERFACE: &str = "eth0";

/// How the names of the node's ends begin.
const PORT_PREFIX: &str = "mk";

/// How often, and how far apart, a removed namespace is looked at for what was in it.
const CLEANUP_CHECKS: u32 = 50;
const CLEANUP_CHECK: Duration = Duration::from_millis(4);

/// How a bridge network is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The bridge's name. Default: `mk8s0`.
    pub bridge: String,
    /// The addresses of this node's pods.
    pub subnet: Subnet,
    /// The addresses of all pods (and whatever else pods reach under their own address): what goes there keeps its
    /// sender's. This node's own subnet need not be among them.
    pub cluster: Vec<Subnet>,
    /// Where addresses that are taken are noted. Must survive a restart.
    pub state_dir: PathBuf,
    /// Where namespaces are named. Default: `/run/netns`.
    pub netns_dir: PathBuf,
    /// The largest packet, in bytes. Default: 1500.
    pub mtu: u32,
    /// The program that sets rules of nftables. Default: `nft`, wherever it is found.
    pub nft: PathBuf,
}

impl BridgeConfig {
    /// The defaults, with this subnet and state directory.
    pub fn new(subnet: Subnet, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            bridge: "mk8s0".to_owned(),
            subnet,
            cluster: Vec::new(),
            state_dir: state_dir.into(),
            netns_dir: netns::DEFAULT_DIR.into(),
            mtu: 1500,
            nft: "nft".into(),
        }
    }
}

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// An interface on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plug {
    /// The name of the node's end.
    pub port: String,
    /// The hardware address of the other end.
    pub mac: Mac,
    /// Its address.
    pub address: IpAddr,
}

/// The network of one node's pods. Its methods may be called at the same time for different pods.
#[derive(Debug)]
pub struct BridgeNetwork {
    config: BridgeConfig,
    /// The addresses of all pods, as last told.
    cluster: Mutex<Vec<Subnet>>,
    rtnl: Rtnl,
    pool: Arc<Mutex<Pool>>,
}

impl BridgeNetwork {
    /// Sees to the bridge, to forwarding and to the rules, and removes what no pod has an address for. Must be called in a
    /// tokio runtime, in the network namespace of the node.
    ///
    /// # Errors
    /// Without the right to configure networks, among others.
    pub async fn open(config: BridgeConfig) -> Result<Self> {
        let network = Self::join(config)?;
        network.remove_former().await?;
        let bridge = network.ensure().await?;
        network.remove_strays(bridge).await?;
        Ok(network)
    }

    /// The network of somebody else who keeps it: nothing is made or removed until it is needed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn join(config: BridgeConfig) -> Result<Self> {
        let pool = Pool::open(&config.state_dir, config.subnet)?;
        let cluster = Mutex::new(config.cluster.clone());
        Ok(Self { rtnl: Rtnl::here()?, pool: Arc::new(Mutex::new(pool)), cluster, config })
    }

    /// Whether pods can be attached; the error says what is missing.
    ///
    /// # Errors
    /// Without the bridge, among others.
    pub async fn ready(&self) -> Result<()> {
        self.rtnl.must_have(&self.config.bridge).await.map(|_| ())
    }

    /// The bridge's name.
    pub fn name(&self) -> &str {
        &self.config.bridge
    }

    /// The addresses of this node's pods.
    pub fn subnet(&self) -> Subnet {
        self.config.subnet
    }

    /// Takes these for the addresses of all pods, in place of [`BridgeConfig::cluster`], and makes good what somebody has
    /// changed: the bridge with its address, forwarding, and the rules. Cheap where nothing has changed.
    ///
    /// # Errors
    /// What the system says.
    pub async fn keep(&self, cluster: &[Subnet]) -> Result<()> {
        let known = std::mem::replace(&mut *lock(&self.cluster), cluster.to_vec());
        let there = self.rtnl.link(&self.config.bridge).await?.is_some();
        if known == cluster && there && nft::is_there(&self.config.nft, self.config.subnet).await? {
            return Ok(());
        }
        self.ensure().await.map(drop)
    }

    /// Makes good what somebody has changed: the bridge with its address, forwarding, and the rules. Answers with the
    /// bridge's number.
    async fn ensure(&self) -> Result<u32> {
        let config = &self.config;
        let bridge =
            self.rtnl.ensure_bridge(&config.bridge, mac_of(config.subnet.gateway()), config.mtu).await?;
        self.rtnl.add_address(bridge.index, config.subnet.gateway(), config.subnet.prefix()).await?;
        let forwarding = if config.subnet.network().is_ipv4() {
            "/proc/sys/net/ipv4/ip_forward"
        } else {
            "/proc/sys/net/ipv6/conf/all/forwarding"
        };
        set_sysctl(forwarding, "1")?;
        // The answer of a service's pod to another pod of this bridge must pass the rules that the question has passed.
        let bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        match set_sysctl(bridged, "1") {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
        let cluster = lock(&self.cluster).clone();
        let rules = nft::masquerade(config.subnet, &cluster, &config.bridge);
        nft::apply(&config.nft, rules).await?;
        Ok(bridge.index)
    }

    /// Removes a bridge that has a gateway's address of another subnet, which the node had before: as long as it is there,
    /// the way to whoever has that subnet now would lead nowhere.
    async fn remove_former(&self) -> Result<()> {
        let config = &self.config;
        let Some(bridge) = self.rtnl.link(&config.bridge).await? else { return Ok(()) };
        let addresses = self.rtnl.addresses_of(bridge.index).await?;
        let own = (config.subnet.gateway(), config.subnet.prefix());
        if addresses.into_iter().any(|address| address != own) {
            self.rtnl.delete(&config.bridge).await?;
        }
        Ok(())
    }

    /// Removes ports and namespaces of pods that have no address: what an interrupted removal has left.
    async fn remove_strays(&self, bridge: u32) -> Result<()> {
        let there = self.rtnl.ports(bridge).await?;
        // Asked afterwards: whoever has an interface by then has an address.
        let pool = self.pool.clone();
        blocking(move || lock(&pool).refresh()).await?;
        let ports: Vec<String> = lock(&self.pool).list().map(|(owner, _)| port_name(owner)).collect();
        for port in there {
            if is_port(&port) && !ports.contains(&port) {
                self.rtnl.delete(&port).await?;
            }
        }
        Ok(())
    }

    /// Gives a pod its namespace, its interface and its address. A pod that has them keeps them, and what is missing of
    /// them is made. `namespace` and `name` are for people to read.
    ///
    /// # Errors
    /// [`Error::Exhausted`] without a free address, [`Error::InvalidUid`], or what the system says. What was made by then
    /// is the pod's, until [`Self::detach`].
    pub async fn attach(&self, uid: &str, namespace: &str, name: &str) -> Result<Attachment> {
        check(uid)?;
        // First of all the address: by it the pod is known to have something to take away.
        self.allocate(uid).await?;
        let netns = netns::create(&self.config.netns_dir, uid).await?;
        let plug = self.plug(uid, &netns, POD_INTERFACE, &format!("{namespace}/{name}")).await?;
        Ok(Attachment { netns, addresses: vec![plug.address] })
    }

    /// Gives a network namespace that is there an interface, and `owner` an address for it. One that has them keeps them,
    /// and what is missing of them is made. `alias` is for people to read.
    ///
    /// # Errors
    /// As [`Self::attach`]; what was made by then is the owner's, until [`Self::unplug`].
    pub async fn plug(&self, owner: &str, netns: &Path, interface: &str, alias: &str) -> Result<Plug> {
        let config = &self.config;
        let address = self.allocate(owner).await?;
        let inside = Rtnl::inside(netns).await?;
        inside.loopback_up().await?;
        let (port, mac) = (port_name(owner), mac_of(address));
        let mut link = inside.link(interface).await?;
        if link.is_none() || self.rtnl.link(&port).await?.is_none() {
            // Half of a pair is left only where somebody has removed a namespace by hand.
            inside.delete(interface).await?;
            self.rtnl.delete(&port).await?;
            let file = File::open(netns).map_err(|error| Error::at(netns, error))?;
            let veth =
                Veth { name: &port, peer: interface, namespace: file.as_raw_fd(), mac, mtu: config.mtu };
            self.rtnl.add_veth(&veth).await?;
            link = inside.link(interface).await?;
        }
        self.rtnl.set_port(&port, self.bridge().await?, alias).await?;
        let missing = || Error::io(interface, std::io::Error::from(ErrorKind::NotFound));
        let index = link.ok_or_else(missing)?.index;
        inside.set_up(index, config.mtu).await?;
        inside.add_address(index, address, config.subnet.prefix()).await?;
        inside.add_default_route(index, config.subnet.gateway()).await?;
        Ok(Plug { port, mac: Mac(mac), address })
    }

    /// Takes away a pod's interface, its namespace and, at last, its address. A pod that has none is fine.
    ///
    /// # Errors
    /// What the system says; then the pod is still in [`Self::list`].
    pub async fn detach(&self, uid: &str) -> Result<()> {
        check(uid)?;
        netns::delete(&self.config.netns_dir, uid).await?;
        // The kernel removes what was in a namespace, many at a time; asking for each by itself takes it much longer.
        // Where somebody still uses the namespace, asking is the only way.
        let port = port_name(uid);
        for _ in 0..CLEANUP_CHECKS {
            if self.rtnl.link(&port).await?.is_none() {
                break;
            }
            tokio::time::sleep(CLEANUP_CHECK).await;
        }
        self.unplug(uid).await
    }

    /// Takes away an owner's interface and, at last, its address. One that has none is fine.
    ///
    /// # Errors
    /// What the system says; then the owner still has its address.
    pub async fn unplug(&self, owner: &str) -> Result<()> {
        self.rtnl.delete(&port_name(owner)).await?;
        let (pool, owner) = (self.pool.clone(), owner.to_owned());
        blocking(move || lock(&pool).release(&owner)).await?;
        Ok(())
    }

    /// The address that an owner has, and whether the node's end of its interface is there.
    ///
    /// # Errors
    /// What the system says.
    pub async fn plugged(&self, owner: &str) -> Result<Option<(IpAddr, bool)>> {
        let pool = self.pool.clone();
        blocking(move || lock(&pool).refresh()).await?;
        let Some(address) = lock(&self.pool).get(owner) else { return Ok(None) };
        Ok(Some((address, self.rtnl.link(&port_name(owner)).await?.is_some())))
    }

    /// All owners of addresses that are not pods of [`Self::attach`], ordered.
    ///
    /// # Errors
    /// What the system says.
    pub async fn owners(&self) -> Result<Vec<String>> {
        let pool = self.pool.clone();
        blocking(move || lock(&pool).refresh()).await?;
        let pool = lock(&self.pool);
        Ok(pool
            .list()
            .map(|(owner, _)| owner)
            .filter(|owner| check(owner).is_err())
            .map(Into::into)
            .collect())
    }

    /// The uids of the pods that have something here, ordered.
    pub fn list(&self) -> Vec<String> {
        // An owner that is no uid is somebody else's.
        lock(&self.pool).list().map(|(uid, _)| uid.to_owned()).filter(|uid| check(uid).is_ok()).collect()
    }

    async fn allocate(&self, uid: &str) -> Result<IpAddr> {
        let (pool, uid) = (self.pool.clone(), uid.to_owned());
        blocking(move || lock(&pool).allocate(&uid)).await
    }

    /// The bridge's number. Somebody may have removed it since we made it.
    async fn bridge(&self) -> Result<u32> {
        match self.rtnl.link(&self.config.bridge).await? {
            Some(bridge) => Ok(bridge.index),
            None => self.ensure().await,
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // A pool changes its memory only after its files: a panic in between leaves it sound.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work that waits for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::io("pod addresses", std::io::Error::other(error))),
    }
}

fn set_sysctl(path: &str, value: &str) -> Result<()> {
    let current = fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
    if current.trim() == value {
        return Ok(());
    }
    fs::write(path, value).map_err(|error| Error::io(path, error))
}

/// A uid is the name of a namespace, and so of a file.
pub(crate) fn check(uid: &str) -> Result<()> {
    let sound = !uid.is_empty()
        && uid.len() <= 253
        && !uid.starts_with('.')
        && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
    if sound { Ok(()) } else { Err(Error::InvalidUid(uid.to_owned())) }
}

/// The node's end of a pod's interface: within the 15 characters that a name may have, the same for a pod whenever it is
/// asked for.
fn port_name(uid: &str) -> String {
    // FNV-1a, of whose 64 bits 48 are kept: two of a thousand pods share them once in 500 million nodes.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{PORT_PREFIX}{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

fn is_port(name: &str) -> bool {
    name.strip_prefix(PORT_PREFIX)
        .is_some_and(|hash| hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A locally administered hardware address made of the network address. Whoever has the address next has this one too, so
/// that what others remember of it stays true.
pub(crate) fn mac_of(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    [0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports_are_short_and_steady() {
        let name = port_name("2f1d7c1a-5b5e-4f0e-9d5b-0a8a0e6f1c11");
        assert_eq!(name, port_name("2f1d7c1a-5b5e-4f0e-9d5b-0a8a0e6f1c11"));
        assert_ne!(name, port_name("2f1d7c1a-5b5e-4f0e-9d5b-0a8a0e6f1c12"));
        assert!(name.len() < 15 && is_port(&name), "{name}");
        assert!(!is_port("eth0") && !is_port("mk8s0") && !is_port("mkzzzzzzzzzzzz"));
    }

    #[test]
    fn uids_are_names_of_files() {
        for uid in ["", "a/b", ".", "..", ".x", "a b"] {
            assert!(check(uid).is_err(), "{uid:?}");
        }
        assert!(check("2f1d7c1a-5b5e").is_ok());
    }

    #[test]
    fn hardware_addresses_follow_from_addresses() {
        assert_eq!(mac_of("10.244.1.1".parse().unwrap()), [0x0a, 0x58, 10, 244, 1, 1]);
        assert_eq!(mac_of("fd00::1:2".parse().unwrap()), [0x0a, 0x58, 0, 1, 0, 2]);
    }
}
