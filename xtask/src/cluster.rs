//! Clusters on one machine. A node is a set of namespaces with its own containerd; nodes hang on a bridge in a
//! network namespace of the cluster, so nothing of the machine's own network changes. What a user reaches is a port on
//! 127.0.0.1: its socket is made on the machine and handed into the first node.

mod cgroup;
mod etcd;
mod init;
mod members;
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
use node::{Node, Role};
use state::{Cluster, Settings};

pub use init::{InitArgs, enter, init};
pub use members::{add_node, start_node, stop_node};

/// The name of the cluster when none is given.
pub const DEFAULT_NAME: &str = "dev";
/// How long a node may take to become Ready, and a pod to run.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most nodes.
const MOST: usize = 240;

/// `cluster-up`
#[derive(Debug, Args)]
pub struct UpArgs {
    /// How many nodes, those of the control plane among them [default: two more than those].
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
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
    /// How long pods stay on a node that is down, where they do not say. Kubernetes has 300, which is long to watch.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    toleration_seconds: u32,
    /// An option of every node's agent, as `minik8s node --help` lists them; may be given several times.
    #[arg(long = "agent-option", value_name = "OPTION", allow_hyphen_values = true)]
    agent_options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Storage {
    Embedded,
    Etcd,
}

/// Brings a cluster up; what is up already stays as it is.
pub fn up(args: &UpArgs) -> anyhow::Result<()> {
    check(args)?;
    require_root()?;
    let cluster = Cluster::open(&args.name)?;
    let _lock = cluster.lock()?;
    say(&format!("Cluster {}", args.name));
    packages::ensure()?;
    let program = build(args.release)?;
    let image = images::busybox()?;
    let known = cluster.nodes();
    let count = args.nodes.unwrap_or(args.control_planes + 2).max(known.len());
    let all: Vec<_> = (1..=count).map(|number| Node::new(&cluster, number)).collect();
    let (planes, workers) = if known.is_empty() {
        let (planes, workers) = all.split_at(args.control_planes);
        let members = (args.storage == Storage::Etcd).then(|| etcd::members(planes));
        let all_in_one = args.all_in_one;
        let toleration_seconds = args.toleration_seconds;
        cluster.set_settings(&Settings {
            program: program.clone(),
            all_in_one,
            etcd: members,
            toleration_seconds,
            agent_options: args.agent_options.clone(),
        })?;
        (planes.to_vec(), workers.to_vec())
    } else {
        all.iter().cloned().partition(Node::is_control_plane)
    };
    if planes.is_empty() {
        bail!("cluster {0} has no API server; try: cargo xtask cluster-down --name {0}", args.name);
    }
    let settings = Settings { program, ..cluster.settings()? };
    start_planes(&cluster, &settings, &planes)?;
    join(&cluster, &settings, &workers)?;
    let running = all.iter().filter(|n| n.is_running()).cloned().collect::<Vec<_>>();
    load(&image, &running)?;
    members::until_ready(&cluster, &settings, &planes, "control-plane")?;
    members::until_ready(&cluster, &settings, &workers, "worker")?;
    if !args.no_demo {
        step("demo pod hello is Running", || {
            let manifest = crate::workspace::root().join("examples/hello.yaml");
            quiet(cli(&cluster, &settings, &["apply", "-f"]).arg(manifest))?;
            until(&planes[0], "minik8s-server", || {
                let out = quiet(&mut cli(&cluster, &settings, &["get", "pod", "hello", "--no-headers"]))?;
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                let mut words = text.split_whitespace();
                Ok((words.nth(1), words.next()) == (Some("1/1"), Some("Running")))
            })
        })?;
    }
    hints(&cluster, &settings);
    Ok(())
}

fn check(args: &UpArgs) -> anyhow::Result<()> {
    if args.control_planes == 0 {
        bail!("--control-planes 0: a cluster has an API server");
    }
    if let Some(nodes) = args.nodes
        && nodes < args.control_planes
    {
        bail!(
            "--nodes {nodes}: those of the control plane are among them, which are {}",
            args.control_planes
        );
    }
    if args.nodes > Some(MOST) {
        bail!("--nodes {}: the network of a cluster has addresses for {MOST}", args.nodes.unwrap_or(0));
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
    Ok(())
}

/// Starts those nodes of the control plane that do not run.
fn start_planes(cluster: &Cluster, settings: &Settings, planes: &[Node]) -> anyhow::Result<()> {
    let down: Vec<_> = planes.iter().filter(|n| !n.is_running()).cloned().collect();
    if down.is_empty() {
        say(&format!("  ✓ {} running already", names(planes)));
    } else {
        let them = names(&down);
        step(&format!("{them} with an API server"), || {
            network::switch_up(cluster)?;
            if settings.etcd.is_some() {
                etcd::share_keys(&settings.program, cluster, planes)?;
            }
            down.iter().try_for_each(|node| start_plane(cluster, settings, node))
        })?;
    }
    write_kubeconfig(cluster, &planes[0])
}

/// Starts a node of the control plane. All API servers accept from one socket: as long as one of them runs, somebody
/// answers.
fn start_plane(cluster: &Cluster, settings: &Settings, node: &Node) -> anyhow::Result<()> {
    network::node_up(cluster, node)?;
    // The one of a cluster that was here before may name another port.
    let _ = fs::remove_file(node.admin_kubeconfig());
    let shared = cluster.nodes().iter().find_map(|n| n.socket().transpose()).transpose()?;
    node.start(settings, &Role::ControlPlane(shared.map_or_else(|| listen(cluster), Ok)?))
}

/// Starts those workers that do not run; they join if they have not.
fn join(cluster: &Cluster, settings: &Settings, workers: &[Node]) -> anyhow::Result<()> {
    let down: Vec<_> = workers.iter().filter(|n| !n.is_running()).cloned().collect();
    if down.is_empty() {
        return Ok(());
    }
    let them = names(&down);
    step(&format!("{them} join"), || {
        let words = members::join_words(cluster, settings, &down)?;
        down.iter().try_for_each(|node| {
            network::node_up(cluster, node)?;
            node.start(settings, &Role::Worker(words.clone().filter(|_| !node.has_joined())))
        })
    })
}

/// `n1, n2`
fn names(nodes: &[Node]) -> String {
    nodes.iter().map(Node::name).collect::<Vec<_>>().join(", ")
}

/// Loads an image into all these nodes at once.
fn load(image: &Path, nodes: &[Node]) -> anyhow::Result<()> {
    let file = image.file_name().unwrap_or_default().display();
    step(&format!("image {file} in {}", names(nodes)), || {
        std::thread::scope(|scope| {
            let loading: Vec<_> = nodes
                .iter()
                .map(|node| {
                    scope.spawn(|| {
                        node.wait_for_containerd(PATIENCE)?;
                        node.load_image(image)
                    })
                })
                .collect();
            loading.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a thread panicked")))
        })
    })
}

/// The minik8s command line, on the cluster.
fn cli(cluster: &Cluster, settings: &Settings, args: &[&str]) -> Command {
    let mut command = Command::new(&settings.program);
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(args);
    command
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
    let node = cluster.node(node)?;
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
    load(&tar, &nodes)
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

fn hints(cluster: &Cluster, settings: &Settings) {
    let name = match cluster.name() {
        DEFAULT_NAME => String::new(),
        other => format!(" --name {other}"),
    };
    if let Ok(table) = quiet(&mut cli(cluster, settings, &["get", "nodes"])) {
        say(&format!("\n{}", String::from_utf8_lossy(&table.stdout).trim_end()));
    }
    say(&format!(
        "\nThe cluster is up. Now try:\n\n  \
         export KUBECONFIG={}\n  \
         alias minik8s={}\n  \
         minik8s get pods -A\n  \
         minik8s logs -f hello\n  \
         minik8s exec -it hello -- sh\n  \
         kubectl get nodes -o wide\n  \
         cargo xtask cluster-stop-node n2{name}     # and cluster-start-node, cluster-add-node\n  \
         cargo xtask node n1{name} -- ctr -n k8s.io containers ls\n  \
         cargo xtask cluster-down{name}\n",
        cluster.kubeconfig().display(),
        settings.program.display(),
    ));
}
