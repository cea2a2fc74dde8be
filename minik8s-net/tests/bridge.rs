//! The bridge network in a network namespace that each test makes for itself. Needs root, `ip` and `nft`; without the
//! right to make namespaces every test here passes without doing anything.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use minik8s_net::bridge::BridgeConfig;
use minik8s_net::policy::{self, Allow, Peers, Ports, Protocol, Table};
use minik8s_net::{BridgeNetwork, Error, netns};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// A node that exists for one test: threads that its runtime starts are in its namespaces, too.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn run<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + Send + 'static) {
        let node = std::thread::spawn(move || {
            match unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                Err(Errno::EPERM) => return,
                other => other.unwrap(),
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let node = Node { folder: tempfile::tempdir().unwrap() };
            runtime.block_on(test(node));
        });
        if let Err(panic) = node.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn config(&self) -> BridgeConfig {
        BridgeConfig {
            netns_dir: self.folder.path().join("netns"),
            mtu: 1400,
            ..BridgeConfig::new("10.77.1.0/24".parse().unwrap(), self.folder.path().join("ipam"))
        }
    }

    async fn network(&self) -> BridgeNetwork {
        BridgeNetwork::open(self.config()).await.unwrap()
    }

    fn netns(&self, uid: &str) -> PathBuf {
        self.config().netns_dir.join(uid)
    }

    /// Removes the mounts below the folder, so that it can be removed.
    async fn finish(self, network: BridgeNetwork) {
        for uid in network.list() {
            network.detach(&uid).await.unwrap();
        }
        assert_eq!(netns::list(&self.config().netns_dir).unwrap(), Vec::<String>::new());
        assert_eq!(ports(), Vec::<String>::new());
        nix::mount::umount(&self.config().netns_dir).unwrap();
    }
}

/// What a command writes; it must succeed.
fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The node's ends of the pods' interfaces.
fn ports() -> Vec<String> {
    let links = output("ip -o link show type veth");
    links.lines().map(|line| line.split([' ', '@']).nth(1).unwrap().to_owned()).collect()
}

/// Those interfaces with what a new one would not have: the number and the hardware address. Whether they carry
/// anything yet takes the kernel a moment.
fn devices() -> Vec<String> {
    let links = output("ip -o link show type veth");
    let identity = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let ether = words.iter().position(|w| *w == "link/ether").map(|at| words[at + 1]);
        format!("{} {} {}", words[0], words[1], ether.unwrap_or_default())
    };
    links.lines().map(identity).collect()
}

/// Listens in a namespace, connects from another, and answers with the address that the listener saw.
async fn connect(from: &Path, to: &Path, address: IpAddr) -> IpAddr {
    let (bound, port) = tokio::sync::oneshot::channel();
    let serve = netns::run_in(to, move || {
        let listener = TcpListener::bind((address, 0))?;
        bound.send(listener.local_addr()?.port()).unwrap();
        let (mut stream, peer) = listener.accept()?;
        stream.write_all(b"hello")?;
        Ok(peer.ip())
    });
    let ask = async {
        let port = port.await.unwrap();
        let answer = netns::run_in(from, move || {
            let limit = Duration::from_secs(5);
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), limit)?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        assert_eq!(answer.await.unwrap(), "hello");
    };
    let both = async { tokio::join!(serve, ask) };
    let (peer, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    peer.unwrap()
}

#[test]
fn pods_reach_each_other_and_themselves() {
    Node::run(async |node: Node| {
        let network = node.network().await;
        network.ready().await.unwrap();
        let a = network.attach("a", "default", "one").await.unwrap();
        let b = network.attach("b", "default", "two").await.unwrap();
        assert_eq!(a.netns, node.netns("a"));
        assert_eq!(a.addresses[0].to_string(), "10.77.1.2");
        assert_eq!(b.addresses[0].to_string(), "10.77.1.3");
        assert_eq!(connect(&a.netns, &b.netns, b.addresses[0]).await, a.addresses[0]);
        assert_eq!(connect(&a.netns, &a.netns, "127.0.0.1".parse().unwrap()).await.to_string(), "127.0.0.1");
        assert_eq!(connect(&a.netns, &a.netns, a.addresses[0]).await, a.addresses[0]);
        let inside = "ip -o addr show dev eth0; ip route; ip link show eth0";
        let shown = output(&format!("nsenter --net={} sh -c '{inside}'", a.netns.display()));
        assert!(shown.contains("10.77.1.2/24") && shown.contains("default via 10.77.1.1"), "{shown}");
        assert!(shown.contains("mtu 1400"), "{shown}");
        let port = output("bridge -d link show");
        assert_eq!(port.matches("hairpin on").count(), 2, "{port}");
        assert!(output("ip link show type veth").contains("alias default/one"));
        node.finish(network).await;
    });
}

#[test]
fn what_is_there_stays_and_what_is_missing_is_made() {
    Node::run(async |node: Node| {
        let network = node.network().await;
        let first = network.attach("a", "default", "one").await.unwrap();
        let before = devices();
        assert_eq!(network.attach("a", "default", "one").await.unwrap(), first);
        assert_eq!(devices(), before, "nothing was made anew");
        // A new agent finds it all.
        drop(network);
        let network = node.network().await;
        assert_eq!(network.list(), ["a"]);
        assert_eq!(network.attach("a", "default", "one").await.unwrap(), first);
        assert_eq!(devices(), before);
        // Somebody takes away one thing after another.
        let b = network.attach("b", "default", "two").await.unwrap();
        for damage in [
            format!("ip link del {}", ports()[0]),
            "ip link del mk8s0".to_owned(),
            format!("umount {0} && rm {0}", first.netns.display()),
            format!("umount {}", first.netns.display()),
        ] {
            output(&damage);
            assert_eq!(network.attach("a", "default", "one").await.unwrap(), first, "after {damage}");
            let b_now = network.attach("b", "default", "two").await.unwrap();
            let peer = connect(&b_now.netns, &first.netns, first.addresses[0]).await;
            assert_eq!(peer, b_now.addresses[0], "after {damage}");
        }
        assert_eq!(b.netns, node.netns("b"));
        node.finish(network).await;
    });
}

#[test]
fn detaching_is_complete_and_can_be_done_twice() {
    Node::run(async |node: Node| {
        let network = node.network().await;
        let a = network.attach("a", "default", "one").await.unwrap();
        network.detach("a").await.unwrap();
        network.detach("a").await.unwrap();
        network.detach("never").await.unwrap();
        assert!(network.list().is_empty() && ports().is_empty() && !a.netns.exists());
        let again = network.attach("a", "default", "one").await.unwrap();
        assert_ne!(again.addresses, a.addresses, "an address is not given out again at once");
        assert!(matches!(network.attach("../x", "default", "x").await, Err(Error::InvalidUid(_))));
        // A port whose pod has no address, as an interrupted removal would leave it.
        output(
            "ip link add mk0123456789ab type veth peer name x0 && ip link set mk0123456789ab master mk8s0",
        );
        drop(network);
        let network = node.network().await;
        assert_eq!(ports().len(), 1);
        node.finish(network).await;
    });
}

#[test]
fn what_leaves_the_pods_network_does_so_in_the_nodes_name() {
    Node::run(async |node: Node| {
        let network = node.network().await;
        let a = network.attach("a", "default", "one").await.unwrap();
        let netns_dir = node.config().netns_dir;
        let outside = netns::create(&netns_dir, "outside").await.unwrap();
        let far: IpAddr = "192.168.77.2".parse().unwrap();
        output(&format!(
            "ip link set lo up; ip link add up0 type veth peer name eth0 netns {0} &&
             ip addr add 192.168.77.1/24 dev up0 && ip link set up0 up &&
             nsenter --net={0} sh -c 'ip addr add 192.168.77.2/24 dev eth0 && ip link set eth0 up'",
            outside.display()
        ));
        // It has no way back to the pod's own address.
        assert_eq!(connect(&a.netns, &outside, far).await.to_string(), "192.168.77.1");
        // Opening again replaces the table, and only ours.
        output("nft add table ip others");
        drop(network);
        let network = node.network().await;
        let rules = output("nft list ruleset");
        assert_eq!(rules.matches("masquerade").count(), 1, "{rules}");
        assert!(rules.contains("table ip others"), "{rules}");
        assert_eq!(connect(&a.netns, &outside, far).await.to_string(), "192.168.77.1");
        output("ip link del up0");
        netns::delete(&netns_dir, "outside").await.unwrap();
        node.finish(network).await;
    });
}

#[test]
fn thirty_pods_at_once() {
    Node::run(async |node: Node| {
        let network = node.network().await;
        let mut alone = Vec::new();
        for n in 0..5 {
            let from = Instant::now();
            network.attach(&format!("alone-{n}"), "default", "x").await.unwrap();
            alone.push(from.elapsed());
        }
        alone.sort();
        let uids: Vec<String> = (0..30).map(|n| format!("pod-{n}")).collect();
        let from = Instant::now();
        let all = futures::future::join_all(uids.iter().map(|uid| network.attach(uid, "default", "x"))).await;
        let took = from.elapsed();
        let addresses: std::collections::BTreeSet<IpAddr> =
            all.into_iter().flat_map(|attachment| attachment.unwrap().addresses).collect();
        assert_eq!(addresses.len(), 30);
        assert_eq!(ports().len(), 35);
        let from = Instant::now();
        for done in futures::future::join_all(network.list().iter().map(|uid| network.detach(uid))).await {
            done.unwrap();
        }
        let summary = format!(
            "alone: median {:?}; 30 at once: {took:?}; 35 detached: {:?}\n",
            alone[2],
            from.elapsed()
        );
        std::io::stdout().write_all(summary.as_bytes()).unwrap();
        assert!(took < Duration::from_secs(10), "{summary}");
        node.finish(network).await;
    });
}

#[test]
fn a_node_that_is_given_another_subnet_has_nothing_of_the_old_one() {
    Node::run(async |node: Node| {
        let network = node.network().await;
        network.attach("a", "default", "one").await.unwrap();
        network.detach("a").await.unwrap();
        drop(network);
        let config = BridgeConfig { subnet: "10.77.2.0/24".parse().unwrap(), ..node.config() };
        let network = BridgeNetwork::open(config).await.unwrap();
        let shown = output("ip -o addr show dev mk8s0; ip route");
        assert!(shown.contains("10.77.2.1/24") && !shown.contains("10.77.1."), "{shown}");
        assert_eq!(
            network.attach("a", "default", "one").await.unwrap().addresses[0].to_string(),
            "10.77.2.2"
        );
        // Whatever is taken away comes back, and only then is anything done.
        let cluster = ["10.77.0.0/16".parse().unwrap()];
        network.keep(&cluster).await.unwrap();
        assert!(output("nft list ruleset").contains("10.77.0.0/16"));
        for damage in ["nft delete table ip minik8s_pods", "ip link del mk8s0"] {
            output(damage);
            network.keep(&cluster).await.unwrap();
            let shown = output("ip -o addr show dev mk8s0; nft list ruleset");
            assert!(
                shown.contains("10.77.2.1/24") && shown.contains("masquerade"),
                "after {damage}: {shown}"
            );
        }
        node.finish(network).await;
    });
}

/// Sees whether somebody gets through, as `expected`. Who is not let through hears nothing, so one is patient only where
/// something is to be heard.
async fn passes(expected: bool, from: &Path, to: &Path, address: IpAddr, port: u16) -> bool {
    let (bound, listening) = tokio::sync::oneshot::channel();
    let (over, ended) = std::sync::mpsc::channel::<()>();
    let serve = netns::run_in(to, move || {
        let _listener = TcpListener::bind((address, port))?;
        let _ = bound.send(());
        let _ = ended.recv();
        Ok(())
    });
    let ask = async {
        listening.await.unwrap();
        let target = SocketAddr::new(address, port);
        let answer = netns::run_in(from, move || {
            let patience = if expected { Duration::from_secs(20) } else { Duration::from_millis(1500) };
            Ok(TcpStream::connect_timeout(&target, patience).is_ok() == expected)
        });
        let through = answer.await.unwrap();
        drop(over);
        through
    };
    let (served, through) = tokio::join!(serve, ask);
    served.unwrap();
    through
}

#[test]
fn policies_hold_between_pods_of_one_node() {
    Node::run(async |node: Node| {
        let network = node.network().await;
        let a = network.attach("a", "default", "one").await.unwrap();
        let b = network.attach("b", "default", "two").await.unwrap();
        let c = network.attach("c", "default", "three").await.unwrap();
        let (own, peer) = (a.addresses[0], b.addresses[0]);
        let port = Ports { protocol: Protocol::Tcp, range: Some((80, 81)) };
        let allow = Allow { peers: Peers::Addresses([peer].into()), ports: Some([port].into()) };
        let table = Table { ingress: [(own, [allow].into())].into(), ..Table::default() };
        let nft = node.config().nft;
        assert!(passes(true, &c.netns, &a.netns, own, 80).await, "nothing is ruled yet");
        policy::apply(&nft, &table).await.unwrap();
        policy::apply(&nft, &table).await.unwrap();
        assert!(passes(true, &b.netns, &a.netns, own, 80).await);
        assert!(passes(true, &b.netns, &a.netns, own, 81).await);
        assert!(passes(false, &b.netns, &a.netns, own, 82).await);
        assert!(passes(false, &c.netns, &a.netns, own, 80).await);
        assert!(passes(true, &a.netns, &c.netns, c.addresses[0], 80).await, "answers come back");
        // The node reaches its pods, as probes do.
        let here = PathBuf::from("/proc/thread-self/ns/net");
        assert!(passes(true, &here, &a.netns, own, 82).await);
        // What goes is ruled, too: to pods and to the node.
        let closed = Table { egress: [(own, std::collections::BTreeSet::new())].into(), ..Table::default() };
        policy::apply(&nft, &closed).await.unwrap();
        assert!(passes(false, &a.netns, &b.netns, peer, 80).await);
        assert!(passes(false, &a.netns, &here, "10.77.1.1".parse().unwrap(), 80).await);
        assert!(passes(true, &b.netns, &a.netns, own, 80).await);
        policy::remove(&nft).await.unwrap();
        policy::remove(&nft).await.unwrap();
        assert!(passes(true, &a.netns, &b.netns, peer, 80).await);
        assert!(!output("nft list tables").contains("policy"));
        node.finish(network).await;
    });
}
