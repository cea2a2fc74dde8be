//! Three nodes on one link, each a network namespace with a bridge for its pods. Needs root, `ip`, `nft` and `ping`
//! (busybox has one); without the right to make namespaces every test here passes without doing anything.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use minik8s_net::bridge::{Attachment, BridgeConfig};
use minik8s_net::overlay::{Backend, NodeRoute, Overlay, OverlayConfig, State, host_gw, vxlan};
use minik8s_net::{BridgeNetwork, Subnet, netns};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::Runtime;

const NODES: u8 = 3;
/// How long a packet may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A network that exists for one test: a switch, and nodes at it.
struct Net {
    folder: tempfile::TempDir,
}

/// What runs on one node: everything that this runtime does is in the node's namespace.
struct Node {
    number: u8,
    path: PathBuf,
    runtime: Runtime,
    network: Arc<BridgeNetwork>,
    overlay: Arc<Overlay>,
}

fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn subnet(number: u8) -> Subnet {
    format!("10.77.{number}.0/24").parse().unwrap()
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 168, 77, number])
}

impl Net {
    fn run(test: impl FnOnce(&Net, Vec<Node>) + Send + 'static) {
        let all = std::thread::spawn(move || {
            match unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                Err(Errno::EPERM) => return,
                other => other.unwrap(),
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let net = Net { folder: tempfile::tempdir().unwrap() };
            output("ip link set lo up; ip link add switch type bridge && ip link set switch up");
            let nodes = (1..=NODES).map(|number| net.node(number)).collect();
            test(&net, nodes);
            // The mounts below the folder, so that it can be removed.
            while umount2(&net.folder.path().join("nodes"), MntFlags::MNT_DETACH).is_ok() {}
            for number in 1..=NODES {
                while umount2(&net.folder.path().join(format!("pods{number}")), MntFlags::MNT_DETACH).is_ok()
                {
                }
            }
        });
        if let Err(panic) = all.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn node(&self, number: u8) -> Node {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = runtime
            .block_on(netns::create(&self.folder.path().join("nodes"), &format!("node{number}")))
            .unwrap();
        output(&format!(
            "ip link add port{number} type veth peer name eth0 netns {0} && ip link set port{number} master switch up &&
             nsenter --net={0} sh -c 'ip link set lo up && ip addr add {1}/24 dev eth0 && ip link set eth0 up'",
            path.display(),
            address(number),
        ));
        let config = BridgeConfig {
            cluster: vec!["10.77.0.0/16".parse().unwrap()],
            netns_dir: self.folder.path().join(format!("pods{number}")),
            mtu: 1450,
            ..BridgeConfig::new(subnet(number), self.folder.path().join(format!("ipam{number}")))
        };
        // A runtime whose threads are all in the node's namespace.
        let into = path.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                setns(std::fs::File::open(&into).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            })
            .build()
            .unwrap();
        let opened = runtime.spawn(async move {
            let overlay = Overlay::open(OverlayConfig::new(address(number))).unwrap();
            (BridgeNetwork::open(config).await.unwrap(), overlay)
        });
        let (network, overlay) = runtime.block_on(opened).unwrap();
        Node { number, path, runtime, network: Arc::new(network), overlay: Arc::new(overlay) }
    }
}

impl Node {
    /// Runs something there.
    fn there<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(self.runtime.spawn(work)).unwrap()
    }

    fn attach(&self, uid: &str) -> Attachment {
        let (network, uid) = (self.network.clone(), uid.to_owned());
        self.there(async move { network.attach(&uid, "default", &uid).await.unwrap() })
    }

    fn apply(&self, state: State) -> usize {
        let overlay = self.overlay.clone();
        self.there(async move { overlay.apply(&state).await.unwrap().len() })
    }

    fn wanted(&self, backend: Backend, nodes: &[u8]) -> State {
        let others: Vec<_> = nodes
            .iter()
            .filter(|other| **other != self.number)
            .map(|&n| NodeRoute { subnet: subnet(n), address: address(n), mac: None })
            .collect();
        match backend {
            Backend::Vxlan => {
                let overlay = self.overlay.clone();
                let link_mtu = self.there(async move { overlay.link_mtu().await.unwrap() });
                let local = vxlan::Local {
                    subnet: subnet(self.number),
                    address: address(self.number),
                    link_mtu,
                    port: vxlan::PORT,
                };
                vxlan::desired(&local, &others)
            }
            Backend::HostGw => host_gw::desired(&subnet(self.number), &others),
        }
    }

    fn sh(&self, command: &str) -> String {
        output(&format!("nsenter --net={} sh -c '{command}'", self.path.display()))
    }

    /// Removes everything, and sees that it is gone.
    fn finish(self) {
        assert!(self.apply(State::default()) > 0);
        assert_eq!(self.sh("ip route show proto 109"), "");
        assert!(!self.sh("ip -o link").contains("mk8s-vxlan"));
        for uid in self.network.list() {
            let network = self.network.clone();
            self.there(async move { network.detach(&uid).await.unwrap() });
        }
        assert_eq!(self.sh("ip -o link show type veth").lines().count(), 1, "the node's own");
    }
}

/// 64 KiB there and back by TCP; answers with the address that the other one saw.
fn tcp(from: &Path, to: &Path, address: IpAddr) -> IpAddr {
    let listener = in_netns(to, move || TcpListener::bind((address, 0)).unwrap());
    let target = SocketAddr::new(address, listener.local_addr().unwrap().port());
    let serve = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut data = vec![0; 64 << 10];
        stream.read_exact(&mut data).unwrap();
        stream.write_all(&data).unwrap();
        peer.ip()
    });
    let mut stream = in_netns(from, move || TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..64u32 << 10).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    stream.write_all(&sent).unwrap();
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(sent, back);
    serve.join().unwrap()
}

/// A datagram that has to be cut in pieces, there and back.
fn udp(from: &Path, to: &Path, own: IpAddr, other: IpAddr) {
    let there = in_netns(to, move || UdpSocket::bind((other, 0)).unwrap());
    let here = in_netns(from, move || UdpSocket::bind((own, 0)).unwrap());
    for socket in [&there, &here] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let sent = vec![7; 4000];
    here.send_to(&sent, there.local_addr().unwrap()).unwrap();
    let mut data = vec![0; 8000];
    let (size, peer) = there.recv_from(&mut data).unwrap();
    assert_eq!((size, peer.ip()), (sent.len(), own), "no other address is seen");
    there.send_to(b"yes", peer).unwrap();
    assert_eq!(here.recv(&mut data).unwrap(), 3);
}

/// Does something in a namespace, on a thread of its own.
fn in_netns<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = std::fs::File::open(path).unwrap();
    let there = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    there.join().unwrap()
}

fn ping(from: &Path, to: IpAddr) {
    output(&format!("nsenter --net={} busybox ping -c 1 -W 20 {to}", from.display()));
}

fn everybody_reaches_everybody(pods: &[(PathBuf, IpAddr)]) {
    for (from, own) in pods {
        for (to, other) in pods.iter().filter(|(_, other)| other != own) {
            assert_eq!(tcp(from, to, *other), *own, "no other address is seen");
            udp(from, to, *own, *other);
            ping(from, *other);
        }
    }
}

fn a_cluster_by(backend: Backend) {
    Net::run(move |_, nodes| {
        let pods: Vec<_> = nodes
            .iter()
            .flat_map(|node| [node.attach("a"), node.attach("b")])
            .map(|attached| (attached.netns, attached.addresses[0]))
            .collect();
        let all: Vec<u8> = (1..=NODES).collect();
        for node in &nodes {
            let wanted = node.wanted(backend, &all);
            assert!(node.apply(wanted.clone()) > 0);
            assert_eq!(node.apply(wanted), 0, "all is as it is to be");
        }
        everybody_reaches_everybody(&pods[..2].iter().chain(&pods[3..5]).cloned().collect::<Vec<_>>());
        // A node reaches others' pods, and a hundred connections are made at once.
        ping(&nodes[0].path, pods[5].1);
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| tcp(&pods[0].0, &pods[5].0, pods[5].1));
            }
        });
        // One after the other is taken away, and comes back.
        let mut damages =
            vec!["ip route del 10.77.2.0/24", "ip route replace 10.77.3.0/24 dev eth0 proto 109"];
        if backend == Backend::Vxlan {
            damages.extend([
                "ip link del mk8s-vxlan",
                "ip link set mk8s-vxlan down",
                "ip neigh del 10.77.2.0 dev mk8s-vxlan",
                "bridge fdb del 0a:58:0a:4d:02:00 dev mk8s-vxlan dst 192.168.77.2",
                "ip addr flush dev mk8s-vxlan",
                "ip link del mk8s-vxlan && ip link add mk8s-vxlan type vxlan id 9 dstport 9999 dev eth0",
            ]);
        }
        for damage in damages {
            nodes[0].sh(damage);
            let wanted = nodes[0].wanted(backend, &all);
            assert!(nodes[0].apply(wanted.clone()) > 0, "{damage}");
            assert_eq!(nodes[0].apply(wanted), 0, "after {damage}");
            assert_eq!(tcp(&pods[0].0, &pods[2].0, pods[2].1), pods[0].1, "after {damage}");
            assert_eq!(tcp(&pods[4].0, &pods[0].0, pods[0].1), pods[4].1, "after {damage}");
        }
        // Somebody else's routes are not touched; those to a node that left are gone.
        nodes[0].sh("ip route add 10.88.0.0/16 via 192.168.77.3");
        nodes[0].apply(nodes[0].wanted(backend, &[1, 3]));
        let routes = nodes[0].sh("ip route");
        assert!(!routes.contains("10.77.2.0/24") && routes.contains("10.88.0.0/16"), "{routes}");
        let left = nodes[0].sh("ip neigh; bridge fdb");
        assert!(!left.contains("10.77.2.0") && !left.contains("dst 192.168.77.2"), "{left}");
        assert_eq!(tcp(&pods[0].0, &pods[4].0, pods[4].1), pods[0].1);
        nodes.into_iter().for_each(Node::finish);
    });
}

#[test]
fn pods_of_three_nodes_by_vxlan() {
    a_cluster_by(Backend::Vxlan);
}

#[test]
fn pods_of_three_nodes_by_routes() {
    a_cluster_by(Backend::HostGw);
}

#[test]
fn a_node_changes_its_backend() {
    Net::run(|_, nodes| {
        let pods: Vec<_> = nodes.iter().map(|node| node.attach("a")).collect();
        for backend in [Backend::HostGw, Backend::Vxlan, Backend::HostGw] {
            nodes.iter().for_each(|node| {
                node.apply(node.wanted(backend, &[1, 2, 3]));
            });
            let to = pods[2].addresses[0];
            assert_eq!(tcp(&pods[0].netns, &pods[2].netns, to), pods[0].addresses[0], "{backend}");
            assert_eq!(nodes[0].sh("ip -o link").contains("mk8s-vxlan"), backend == Backend::Vxlan);
        }
        // A node that is not on the link is told of, and the others are reached all the same.
        let mut wanted = nodes[0].wanted(Backend::HostGw, &[1, 3]);
        let far = NodeRoute { subnet: subnet(9), address: IpAddr::from([172, 31, 0, 9]), mac: None };
        wanted.routes.extend(host_gw::desired(&subnet(1), &[far]).routes);
        let overlay = nodes[0].overlay.clone();
        let error = nodes[0].there(async move { overlay.apply(&wanted).await.unwrap_err() });
        assert!(error.to_string().contains("10.77.9.0/24 by 172.31.0.9"), "{error}");
        assert_eq!(tcp(&pods[0].netns, &pods[2].netns, pods[2].addresses[0]), pods[0].addresses[0]);
        nodes.into_iter().for_each(Node::finish);
    });
}
