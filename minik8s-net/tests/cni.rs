//! CNI plugins, ours and those of others, in a network namespace that each test makes for itself. Needs root, `ip` and
//! `nft`; those of others are in Debian's `containernetworking-plugins`. Without the right to make namespaces, or without
//! those plugins, the tests here that need them pass without doing anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use minik8s_net::bridge::BridgeConfig;
use minik8s_net::cni::chain::{Attach, Chain};
use minik8s_net::cni::{ChainConfig, ChainNetwork, CniError, Pod, code, plugin};
use minik8s_net::{BridgeNetwork, netns};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node that exists for one test.
struct Node {
    folder: tempfile::TempDir,
}

fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
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
            // What is told of interfaces there is that of this namespace.
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
            output("ip link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(Node { folder: tempfile::tempdir().unwrap() }));
        });
        if let Err(panic) = node.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn netns_dir(&self) -> PathBuf {
        self.folder.path().join("netns")
    }

    async fn container(&self, name: &str) -> PathBuf {
        netns::create(&self.netns_dir(), name).await.unwrap()
    }

    /// Removes what would keep the folder from being removed.
    async fn finish(self) {
        for name in netns::list(&self.netns_dir()).unwrap() {
            netns::delete(&self.netns_dir(), &name).await.unwrap();
        }
        nix::mount::umount(&self.netns_dir()).unwrap();
    }

    fn config(&self, more: Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "minik8s-cni", "dataDir": self.folder.path(),
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }

    /// Calls our plugin.
    async fn call(
        &self,
        command: &str,
        container: &str,
        netns: Option<&Path>,
        more: Value,
    ) -> Result<Value, CniError> {
        let mut environment = BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
        ]);
        environment.extend(netns.map(|path| ("CNI_NETNS", path.display().to_string())));
        let input = self.config(more).to_string();
        let answer = plugin::run(|name| environment.get(name).cloned(), input.as_bytes()).await?;
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_str(&answer).unwrap() })
    }

    fn addresses(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("network")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        names.sort();
        names
    }
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

/// Connects from one namespace to a listener in another, by way of `by`.
fn connect(from: &Path, to: &Path, listen: SocketAddr, by: SocketAddr) {
    let listener = in_netns(to, move || TcpListener::bind(listen).unwrap());
    let accepted = std::thread::spawn(move || listener.accept().unwrap());
    in_netns(from, move || TcpStream::connect_timeout(&by, PATIENCE).unwrap());
    accepted.join().unwrap();
}

fn address_of(result: &Value) -> IpAddr {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()
}

#[test]
fn containers_come_and_go_by_our_plugin() {
    Node::run(async |node: Node| {
        let (a, b) = (node.container("a").await, node.container("b").await);
        // The node's agent has not been given anything yet.
        let error = node.call("ADD", "a", Some(&a), json!({})).await.unwrap_err();
        assert_eq!((error.code, error.cni_version.as_str()), (code::LATER, "1.1.0"));
        node.call("DEL", "a", Some(&a), json!({})).await.unwrap();
        std::fs::write(
            node.folder.path().join("pod-network.json"),
            json!({ "subnet": "10.77.5.0/24", "cluster": ["10.77.0.0/16"] }).to_string(),
        )
        .unwrap();
        assert_eq!(node.call("STATUS", "", None, json!({})).await.unwrap_err().code, code::UNAVAILABLE);
        let first = node.call("ADD", "a", Some(&a), json!({})).await.unwrap();
        node.call("STATUS", "", None, json!({})).await.unwrap();
        assert_eq!(first["cniVersion"], "1.1.0");
        assert_eq!(first["interfaces"][2]["sandbox"], a.to_str().unwrap());
        assert_eq!(first["ips"][0]["address"], "10.77.5.2/24");
        assert_eq!(first["routes"][0], json!({ "dst": "0.0.0.0/0", "gw": "10.77.5.1" }));
        assert_eq!(node.call("ADD", "a", Some(&a), json!({})).await.unwrap(), first, "again");
        let old = node.call("ADD", "b", Some(&b), json!({ "cniVersion": "0.4.0" })).await.unwrap();
        assert_eq!((&old["ips"][0]["version"], &old["cniVersion"]), (&json!("4"), &json!("0.4.0")));
        let by = SocketAddr::new(address_of(&old), 80);
        connect(&a, &b, by, by);
        // The agent's own pods and those of the plugin do not get in each other's way.
        let config = BridgeConfig {
            netns_dir: node.netns_dir(),
            ..BridgeConfig::new("10.77.5.0/24".parse().unwrap(), node.folder.path().join("network"))
        };
        let agent = BridgeNetwork::open(config).await.unwrap();
        assert!(agent.list().is_empty() && agent.owners().await.unwrap().len() == 2);
        let pod = agent.attach("pod", "default", "pod").await.unwrap();
        assert_eq!(pod.addresses[0].to_string(), "10.77.5.4");
        let by = SocketAddr::new(pod.addresses[0], 80);
        connect(&a, &pod.netns, by, by);
        // Whether it is as it was.
        let with = |result: &Value| json!({ "prevResult": result });
        node.call("CHECK", "a", Some(&a), with(&first)).await.unwrap();
        assert_eq!(node.call("CHECK", "a", Some(&a), json!({})).await.unwrap_err().code, code::CONFIG);
        assert_eq!(node.call("CHECK", "a", Some(&a), with(&old)).await.unwrap_err().code, code::CHANGED);
        output(&format!("nsenter --net={} ip addr flush dev eth0", a.display()));
        let error = node.call("CHECK", "a", Some(&a), with(&first)).await.unwrap_err();
        assert!(error.msg.contains("has lost 10.77.5.2/24"), "{error}");
        // Those that the runtime knows nothing of go.
        let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "b", "ifname": "eth0" }] });
        node.call("GC", "", None, valid).await.unwrap();
        assert_eq!(node.addresses(), ["10.77.5.3", "10.77.5.4"]);
        // A namespace that is gone is no reason to keep an address.
        netns::delete(&node.netns_dir(), "b").await.unwrap();
        node.call("DEL", "b", None, json!({})).await.unwrap();
        node.call("DEL", "b", None, json!({})).await.unwrap();
        assert_eq!(node.addresses(), ["10.77.5.4"]);
        let gone = node.call("ADD", "c", Some(Path::new("/no/such")), json!({})).await.unwrap_err();
        assert_eq!((gone.code, node.addresses().len()), (code::ENVIRONMENT, 1));
        agent.detach("pod").await.unwrap();
        assert_eq!(output("ip -o link show type veth"), "");
        node.finish().await;
    });
}

#[test]
fn containers_come_and_go_by_plugins_of_others() {
    if !Path::new("/usr/lib/cni/bridge").exists() {
        return;
    }
    Node::run(async |node: Node| {
        let (a, b) = (node.container("a").await, node.container("b").await);
        let list = json!({ "cniVersion": "1.0.0", "name": "others", "plugins": [
            { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
              "ipam": { "type": "host-local", "subnet": "10.78.0.0/24", "dataDir": node.folder.path().join("ipam"),
                        "routes": [{ "dst": "0.0.0.0/0" }] } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ] });
        let folder = node.folder.path().join("net.d");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("10-others.conflist"), list.to_string()).unwrap();
        let chain = Chain::load(&folder, &[]).unwrap().unwrap();
        assert!(chain.missing().is_empty());
        let attach = |name: &str, netns: &Path| Attach {
            container: name.to_owned(),
            netns: Some(netns.to_owned()),
            interface: "eth0".to_owned(),
            args: vec![("IgnoreUnknown".to_owned(), "1".to_owned())],
            ..Attach::default()
        };
        let mut first = attach("a", &a);
        let mapping = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
        first.capabilities.insert("portMappings".to_owned(), mapping);
        let result = chain.add(&first).unwrap();
        let other = chain.add(&attach("b", &b)).unwrap();
        let target = SocketAddr::new(address_of(&result), 80);
        connect(&b, &a, target, target);
        // The port of the node, from a pod.
        let by = SocketAddr::new("10.78.0.1".parse().unwrap(), 8080);
        connect(&b, &a, target, by);
        // That of this portmap, asked about a port, looks for rules of IPv6 that it has not made.
        chain.check(&attach("b", &b), &other).unwrap();
        chain.del(&first, Some(&result)).unwrap();
        chain.del(&first, Some(&result)).unwrap();
        chain.del(&attach("b", &b), Some(&other)).unwrap();
        // The same, for pods.
        let config = ChainConfig {
            netns_dir: node.netns_dir(),
            ..ChainConfig::new(&folder, node.folder.path().join("pods"))
        };
        let pods = ChainNetwork::open(config.clone()).unwrap();
        pods.ready().unwrap();
        let mut pod =
            Pod { uid: "u-1".into(), namespace: "default".into(), name: "web".into(), ..Pod::default() };
        pod.capabilities = first.capabilities.clone();
        let one = pods.attach(&pod).await.unwrap();
        let two = pods.attach(&Pod { uid: "u-2".into(), ..Pod::default() }).await.unwrap();
        connect(&two.netns, &one.netns, SocketAddr::new(one.addresses[0], 80), by);
        // A new agent finds them.
        let pods = ChainNetwork::open(config).unwrap();
        assert_eq!(pods.list().unwrap(), ["u-1", "u-2"]);
        assert_eq!(pods.attach(&pod).await.unwrap(), one);
        // The configuration is gone by the time that they go.
        std::fs::remove_file(folder.join("10-others.conflist")).unwrap();
        assert_eq!(pods.ready().unwrap_err().code, code::UNAVAILABLE);
        netns::delete(&node.netns_dir(), "u-2").await.unwrap();
        for uid in ["u-1", "u-2", "u-2", "never"] {
            pods.detach(uid).await.unwrap();
        }
        assert!(pods.list().unwrap().is_empty() && !one.netns.exists());
        let left = std::fs::read_dir(node.folder.path().join("ipam/others")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!left.iter().any(|name| name.starts_with("10.78.")), "{left:?}");
        // The kernel takes down what was in a namespace in its own time.
        let gone = async {
            while !output("ip -o link show type veth").is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
        node.finish().await;
    });
}
