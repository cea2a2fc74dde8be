//! The network of pods: how fast a container is attached to it, beside the plugins of others; and how much of what nodes
//! carry between them pods get.
//!
//! `cargo bench -p minik8s-benches --bench network -- cni` needs root and Debian's `containernetworking-plugins`.
//! `… -- throughput` needs a cluster of two nodes or more (`cargo xtask cluster-up --release --name bench`), its KUBECONFIG,
//! and `iperf3`.
#![allow(clippy::print_stdout)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use minik8s_benches::numbers::percentile;
use minik8s_benches::report::{self, Figures};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// Containers that are attached one after the other.
const CONTAINERS: usize = 200;
/// How often each path is measured, by turns.
const ROUNDS: usize = 5;
/// Seconds of each measurement.
const SECONDS: &str = "3";
/// Where Debian puts plugins.
const THEIRS: &str = "/usr/lib/cni";

fn main() -> anyhow::Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|arg| arg == name);
    if wanted("cni") {
        // Nothing of this is seen outside: its networks and mounts end with the thread.
        std::thread::spawn(cni).join().map_err(|_| anyhow::anyhow!("the measurement panicked"))??;
    }
    if wanted("throughput") {
        throughput()?;
    }
    Ok(())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

fn run(words: &[&str]) -> anyhow::Result<String> {
    let (program, args) = words.split_first().context("no program")?;
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Calls a plugin as a container runtime does.
fn call(
    plugin: &Path,
    command: &str,
    container: &str,
    netns: &Path,
    config: &Value,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", THEIRS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", plugin.display()))?;
    child.stdin.take().context("its input")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let took = began.elapsed();
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(took)
}

fn cni() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("this needs root")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    // The bridge plugin of others asks it about interfaces.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    run(&["ip", "link", "set", "lo", "up"])?;
    let own = workspace().join("target/release/minik8s-cni");
    ensure!(own.exists(), "build it first: cargo build --release -p minik8s-bins --bin minik8s-cni");
    std::fs::create_dir_all("/run/ours")?;
    std::fs::write(
        "/run/ours/pod-network.json",
        json!({ "subnet": "10.77.4.0/22", "cluster": ["10.77.0.0/16"] }).to_string(),
    )?;
    let ours =
        json!({ "cniVersion": "1.0.0", "name": "ours", "type": "minik8s-cni", "dataDir": "/run/ours" });
    let theirs = json!({
        "cniVersion": "1.0.0", "name": "theirs", "type": "bridge", "bridge": "theirs0", "isGateway": true,
        "ipMasq": true, "hairpinMode": true,
        "ipam": { "type": "host-local", "subnet": "10.78.4.0/22", "dataDir": "/run/theirs",
                  "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    let (mut ours_figures, mut theirs_figures) = (Figures::default(), Figures::default());
    let bridge = Path::new(THEIRS).join("bridge");
    let (mut our_times, mut their_times) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for n in 0..CONTAINERS {
        let measure =
            |prefix: &str, plugin: &Path, config: &Value, times: &mut (Vec<Duration>, Vec<Duration>)| {
                let name = format!("{prefix}{n}");
                run(&["ip", "netns", "add", &name])?;
                let netns = PathBuf::from(format!("/run/netns/{name}"));
                times.0.push(call(plugin, "ADD", &name, &netns, config)?);
                // Every other one stays, so that it is not only the first that is measured.
                if n % 2 == 0 {
                    times.1.push(call(plugin, "DEL", &name, &netns, config)?);
                    run(&["ip", "netns", "del", &name])?;
                }
                anyhow::Ok(())
            };
        measure("o", &own, &ours, &mut our_times)?;
        measure("t", &bridge, &theirs, &mut their_times)?;
    }
    for (figures, (mut add, mut del)) in [(&mut ours_figures, our_times), (&mut theirs_figures, their_times)]
    {
        figures.time(format!("CNI ADD, p50 of {}", add.len()), percentile(&mut add, 50.0));
        figures.time("CNI ADD, p99", percentile(&mut add, 99.0));
        figures.time("CNI DEL, p50", percentile(&mut del, 50.0));
        figures.time("CNI DEL, p99", percentile(&mut del, 99.0));
    }
    report::print(&ours_figures, Some(("bridge+host-local", &theirs_figures)));
    Ok(())
}

/// A command in a node of the cluster.
fn on(node: &str, words: &[&str]) -> Command {
    let cluster = std::env::var("CLUSTER").unwrap_or_else(|_| "bench".to_owned());
    let mut command = Command::new(workspace().join("target/debug/xtask"));
    command.args(["node", node, "--name", &cluster, "--"]).args(words);
    command
}

/// Where something listens or asks: a node, or a pod on it.
struct Place {
    node: &'static str,
    uid: Option<String>,
    ip: String,
}

impl Place {
    fn command(&self, words: &[&str]) -> Command {
        match &self.uid {
            Some(uid) => {
                on(self.node, &[&["nsenter", &format!("--net=/run/netns/{uid}"), "--"], words].concat())
            }
            None => on(self.node, words),
        }
    }
}

/// A server that answers one client, and ends.
fn server(at: &Place) -> anyhow::Result<Child> {
    let child = at.command(&["iperf3", "-s", "-1", "-p", "5999"]).stdout(Stdio::null()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let listens = || at.command(&["sh", "-c", "ss -Hltn 'sport = :5999' | grep -q ."]).status();
    while !listens()?.success() {
        ensure!(Instant::now() < deadline, "iperf3 does not listen");
    }
    Ok(child)
}

/// Bits a second from one place to another, by one connection.
fn bits(from: &Place, to: &Place) -> anyhow::Result<f64> {
    let mut server = server(to)?;
    let output =
        from.command(&["iperf3", "-J", "-c", &to.ip, "-p", "5999", "-t", SECONDS, "-O", "1"]).output()?;
    server.wait()?;
    let result: Value = serde_json::from_slice(&output.stdout).context("iperf3 prints no JSON")?;
    result["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .with_context(|| format!("iperf3: {}", result["error"]))
}

fn kubectl(words: &[&str]) -> anyhow::Result<String> {
    run(&[&["kubectl"], words].concat())
}

fn pod(name: &str, node: &'static str) -> anyhow::Result<Place> {
    let spec = json!({
        "nodeName": node, "terminationGracePeriodSeconds": 0,
        "containers": [{ "name": "main", "image": "localhost/busybox:1", "command": ["sleep", "3600"] }],
    });
    let manifest = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec });
    let file = std::env::temp_dir().join(format!("{name}-{}.json", std::process::id()));
    std::fs::write(&file, manifest.to_string())?;
    let applied = kubectl(&["apply", "-f", &file.display().to_string()]);
    std::fs::remove_file(&file)?;
    applied?;
    kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"])?;
    let found: Value = serde_json::from_str(&kubectl(&["get", "pod", name, "-o", "json"])?)?;
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let (uid, ip) = (text(&found["metadata"]["uid"]), text(&found["status"]["podIP"]));
    Ok(Place { node, uid, ip: ip.context("an address")? })
}

fn node(name: &'static str) -> anyhow::Result<Place> {
    let path = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    Ok(Place { node: name, uid: None, ip: kubectl(&["get", "node", name, "-o", path])? })
}

fn throughput() -> anyhow::Result<()> {
    if std::env::var_os("KUBECONFIG").is_none() {
        bail!("set KUBECONFIG to a cluster's; see cargo xtask cluster-up");
    }
    let (one, other) = (node("n1")?, node("n2")?);
    let (inner, outer) = (pod("iperf-1", "n1")?, pod("iperf-2", "n2")?);
    let (mut nodes, mut pods) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        nodes.push(bits(&one, &other)?);
        pods.push(bits(&inner, &outer)?);
    }
    kubectl(&["delete", "pod", "iperf-1", "iperf-2", "--now"])?;
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (node, pod) = (median(&mut nodes), median(&mut pods));
    let gbit = |bits: f64| format!("{:.2} Gbit/s", bits / 1e9);
    let path = "jsonpath={.metadata.annotations.minik8s\\.io/network-backend}";
    let backend = kubectl(&["get", "node", "n1", "-o", path])?;
    println!("node to node, median of {ROUNDS}: {}", gbit(node));
    println!("pod to pod by {backend}: {} = {:.0} %", gbit(pod), 100.0 * pod / node);
    let each =
        |values: &[f64]| values.iter().map(|bits| format!("{:.1}", bits / 1e9)).collect::<Vec<_>>().join(" ");
    println!("each, in Gbit/s: nodes {}; pods {}", each(&nodes), each(&pods));
    Ok(())
}
