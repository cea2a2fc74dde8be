//! Clusters on one machine. A node is a set of namespaces with its own containerd; nodes hang on a bridge in a
//! network namespace of the cluster, so nothing of the machine's own network changes. What a user reaches is a port on
//! 127.0.0.1: its socket is made on the machine and handed into the first node.

mod cgroup;
mod etcd;
mod init;
mod network;
mod node;
mod state;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::progress::{say, step};
use crate::workspace::{cargo, loud, quiet, target};
use crate::{images, packages};
use node::Node;
use state::Cluster;

pub use init::{InitArgs, enter, init};

/// The name of the cluster when none is given.
pub const DEFAULT_NAME: &str = "dev";
/// How long a node may take to become Ready, and a pod to run.
const PATIENCE: Duration = Duration::from_secs(60);

/// `cluster-up`
#[derive(Debug, Args)]
pub struct UpArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 1, value_name = "N")]
    nodes: usize,
    /// The cluster's name.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Where the API server keeps its objects.
    #[arg(long, value_enum, default_value_t = Storage::Embedded)]
    storage: Storage,
    /// How many nodes run an API server and a member of etcd.
    #[arg(long, default_value_t = 1, value_name = "N")]
    control_planes: usize,
    /// Build and run optimised programs.
    #[arg(long)]
    release: bool,
    /// No demo pod.
    #[arg(long)]
    no_demo: bool,
    /// Run server and agent as one process (`minik8s up`).
    #[arg(long)]
    all_in_one: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Storage {
    Embedded,
    Etcd,
}

/// Brings a cluster up; one that is up already stays as it is.
pub fn up(args: &UpArgs) -> anyhow::Result<()> {
    if args.nodes != 1 {
        bail!("--nodes {}: a cluster has one node as yet; nodes cannot join one another so far", args.nodes);
    }
    if args.control_planes == 0 {
        bail!("--control-planes 0: a cluster has an API server");
    }
    if args.control_planes > 1 && args.storage == Storage::Embedded {
        bail!(
            "--control-planes {}: several API servers share an etcd; add --storage etcd",
            args.control_planes
        );
    }
    if args.storage == Storage::Etcd && args.all_in_one {
        bail!("--all-in-one: server and agent in one process have the embedded storage");
    }
    require_root()?;
    let cluster = Cluster::open(&args.name)?;
    let _lock = cluster.lock()?;
    say(&format!("Cluster {}", args.name));
    packages::ensure()?;
    let program = build(args.release)?;
    let image = images::busybox()?;
    let nodes: Vec<_> = (1..=args.control_planes).map(|number| Node::new(&cluster, number)).collect();
    let node = nodes[0].clone();
    let names = nodes.iter().map(Node::name).collect::<Vec<_>>().join(", ");
    let of_them = if nodes.len() == 1 { "node" } else { "nodes" };
    let running = nodes.iter().filter(|n| n.is_running()).count();
    if running == nodes.len() {
        say(&format!("  ✓ {of_them} {names} running already"));
    } else if running > 0 {
        bail!(
            "some nodes of cluster {0} run and others do not; try: cargo xtask cluster-down --name {0}",
            args.name
        );
    } else {
        step(&format!("{of_them} {names}"), || start(args, &cluster, &nodes, &program))?;
    }
    write_kubeconfig(&cluster, &node)?;
    for node in &nodes {
        step(
            &format!("image {} in {}", image.file_name().unwrap_or_default().display(), node.name()),
            || {
                node.wait_for_containerd(PATIENCE)?;
                node.load_image(&image)
            },
        )?;
    }
    let cli = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(args);
        command
    };
    for node in &nodes {
        step(&format!("{} is Ready", node.name()), || {
            until(node, "minik8s-node", || {
                let out = quiet(&mut cli(&["get", "node", &node.name(), "--no-headers"]))?;
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                Ok(text.split_whitespace().nth(1) == Some("Ready"))
            })
        })?;
    }
    if !args.no_demo {
        step("demo pod hello is Running", || {
            let manifest = crate::workspace::root().join("examples/hello.yaml");
            quiet(cli(&["apply", "-f"]).arg(manifest))?;
            until(&node, "minik8s-node", || {
                let out = quiet(&mut cli(&["get", "pod", "hello", "--no-headers"]))?;
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                let mut words = text.split_whitespace();
                Ok((words.nth(1), words.next()) == (Some("1/1"), Some("Running")))
            })
        })?;
    }
    hints(&cluster, &program);
    Ok(())
}

/// Starts the nodes of the control plane.
fn start(args: &UpArgs, cluster: &Cluster, nodes: &[Node], program: &Path) -> anyhow::Result<()> {
    network::switch_up(cluster)?;
    // All API servers accept from one socket: as long as one of them runs, somebody answers.
    let socket = listen(cluster)?;
    let members = (args.storage == Storage::Etcd).then(|| etcd::members(nodes));
    if members.is_some() {
        etcd::share_keys(program, cluster, nodes)?;
    }
    for node in nodes {
        network::node_up(cluster, node)?;
        // The one of a cluster that was here before may name another port.
        let _ = fs::remove_file(node.admin_kubeconfig());
        node.start(program, &socket, args.all_in_one, members.as_deref())?;
    }
    Ok(())
}

/// Takes a cluster down. What is gone already is no error.
pub fn down(name: &str) -> anyhow::Result<()> {
    require_root()?;
    let cluster = Cluster::open(name)?;
    let lock = cluster.lock()?;
    step(&format!("cluster {name} is down"), || {
        for node in cluster.nodes() {
            node.stop()?;
        }
        network::down(&cluster)?;
        cgroup::remove(&cluster.cgroup())?;
        drop(lock);
        cluster.remove()
    })
}

/// Runs a command in a node, with this terminal.
pub fn exec(name: &str, node: &str, command: &[OsString]) -> anyhow::Result<ExitCode> {
    require_root()?;
    let cluster = Cluster::open(name)?;
    let Some(node) = cluster.nodes().into_iter().find(|n| n.name() == node && n.is_running()) else {
        let known: Vec<_> = cluster.nodes().iter().filter(|n| n.is_running()).map(Node::name).collect();
        if known.is_empty() {
            bail!("cluster {name} is not up; try: cargo xtask cluster-up --name {name}");
        }
        bail!("cluster {name} has no node {node}; it has {}", known.join(", "));
    };
    let status = node.command(command)?.status().context("cannot run nsenter")?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
}

/// Loads an image archive into all nodes.
pub fn load_image(name: &str, tar: &Path) -> anyhow::Result<()> {
    require_root()?;
    let cluster = Cluster::open(name)?;
    let nodes: Vec<_> = cluster.nodes().into_iter().filter(Node::is_running).collect();
    if nodes.is_empty() {
        bail!("cluster {name} is not up; try: cargo xtask cluster-up --name {name}");
    }
    let tar = fs::canonicalize(tar).with_context(|| format!("cannot find {}", tar.display()))?;
    for node in nodes {
        step(&format!("{} in {}", tar.display(), node.name()), || node.load_image(&tar))?;
    }
    Ok(())
}

fn require_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("nodes are made of namespaces and mounts, which needs root; try: sudo -E cargo xtask …");
    }
    Ok(())
}

fn build(release: bool) -> anyhow::Result<std::path::PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", "minik8s-bins"]);
    if release {
        command.arg("--release");
    }
    say("  … building minik8s (a few minutes the first time)");
    step("minik8s", || loud(&mut command))?;
    Ok(target().join(if release { "release" } else { "debug" }).join("minik8s"))
}

/// The socket that users talk to; on the same port each time the cluster comes up.
fn listen(cluster: &Cluster) -> anyhow::Result<TcpListener> {
    let port = cluster.port().unwrap_or(0);
    let socket = TcpListener::bind(("127.0.0.1", port))
        .or_else(|_| TcpListener::bind(("127.0.0.1", 0)))
        .context("cannot listen on 127.0.0.1")?;
    cluster.set_port(socket.local_addr()?.port())?;
    Ok(socket)
}

/// Hands the kubeconfig that the server has made for its administrator to the user.
fn write_kubeconfig(cluster: &Cluster, node: &Node) -> anyhow::Result<()> {
    let made = node.admin_kubeconfig();
    until(node, "minik8s-server", || Ok(made.exists()))?;
    let text = fs::read_to_string(&made)?;
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(cluster.kubeconfig())?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// Asks until the answer is yes. An error is an answer too, until the patience is over or the node is.
fn until(node: &Node, log: &str, mut ask: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = match ask() {
            Ok(true) => return Ok(()),
            Ok(false) => "it did not happen in time".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if !node.is_running() || Instant::now() > deadline {
            bail!("{last}\nsee {}", node.log(log).display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn hints(cluster: &Cluster, program: &Path) {
    let name = match cluster.name() {
        DEFAULT_NAME => String::new(),
        other => format!(" --name {other}"),
    };
    say(&format!(
        "\nThe cluster is up. Now try:\n\n  \
         export KUBECONFIG={}\n  \
         alias minik8s={}\n  \
         minik8s get pods -A\n  \
         minik8s logs -f hello\n  \
         minik8s exec -it hello -- sh\n  \
         kubectl get nodes -o wide\n  \
         cargo xtask node n1{name} -- ctr -n k8s.io containers ls\n  \
         cargo xtask cluster-down{name}\n",
        cluster.kubeconfig().display(),
        program.display(),
    ));
}
