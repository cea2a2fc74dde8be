//! The first process of a node. It makes the node's own mounts, keeps the node's programs running as systemd would on
//! a real machine, and buries orphans.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{cgroup, etcd};
use crate::workspace::{command, quiet};

/// How long programs have to end by themselves.
const GRACE: Duration = Duration::from_secs(8);
/// The least time between two starts of a program.
const RESTART: Duration = Duration::from_millis(500);

/// Arguments of the first process.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The node's name.
    #[arg(long)]
    node: String,
    /// The node's address.
    #[arg(long)]
    address: String,
    /// A socket for the API server that this process has inherited; without one the node is a worker.
    #[arg(long)]
    socket: Option<i32>,
    /// How a worker joins: options of `minik8s node join`.
    #[arg(long, allow_hyphen_values = true)]
    join: Option<String>,
    /// How long pods stay on a node that is down, where they do not say.
    #[arg(long, default_value_t = 300)]
    toleration_seconds: u32,
    /// The node's folder on the machine.
    #[arg(long)]
    dir: PathBuf,
    /// The minik8s program.
    #[arg(long)]
    program: PathBuf,
    /// Server and agent in one process.
    #[arg(long)]
    all_in_one: bool,
    /// The members of the etcd that objects are in; one of them runs here.
    #[arg(long)]
    etcd: Option<String>,
    /// An option of the node's agent.
    #[arg(long = "agent-option", allow_hyphen_values = true)]
    agent_options: Vec<String>,
}

/// Moves into the control group and becomes `words`.
pub fn enter(group: &str, words: &[OsString]) -> anyhow::Result<()> {
    cgroup::join(group)?;
    let (program, args) = words.split_first().context("no program")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("cannot run {}", program.display()))
}

/// Runs until SIGTERM.
pub fn init(args: &InitArgs) -> anyhow::Result<()> {
    nix::unistd::sethostname(&args.node)?;
    mounts(args).context("cannot make the node's mounts")?;
    for (key, value) in [("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/rp_filter", "0")] {
        fs::write(Path::new("/proc/sys").join(key), value).with_context(|| format!("cannot set {key}"))?;
    }
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGALRM].into_iter().collect();
    signals.thread_block()?;
    let mut programs = vec![Program::new("containerd", containerd(args))];
    if let Some(members) = &args.etcd {
        programs.push(Program::new("etcd", etcd::member(&args.node, &args.address, members)));
    }
    if let Some(socket) = args.socket {
        credentials(args).context("cannot make the node's kubeconfig")?;
        if args.all_in_one {
            programs.push(Program::new("minik8s-up", up(args, socket)));
        } else {
            programs.push(Program::new("minik8s-server", server(args, socket)));
            programs.push(Program::new("minik8s-node", node(args)));
        }
    } else {
        programs.push(Program::new("minik8s-node", worker(args)));
    }
    for program in &mut programs {
        program.start(args)?;
    }
    loop {
        let wait = programs.iter().filter_map(|p| p.restart_at).min();
        if let Some(at) = wait {
            nix::unistd::alarm::set(at.saturating_duration_since(Instant::now()).as_secs() as u32 + 1);
        }
        match signals.wait()? {
            Signal::SIGTERM => return stop(&mut programs),
            _ => {
                reap(&mut programs);
                for program in
                    programs.iter_mut().filter(|p| p.restart_at.is_some_and(|at| at <= Instant::now()))
                {
                    program.start(args)?;
                }
            }
        }
    }
}

fn mounts(args: &InitArgs) -> anyhow::Result<()> {
    let none: Option<&str> = None;
    let fs_mount = |kind: &str, at: &str, data: Option<&str>| {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), data)
            .with_context(|| format!("cannot mount {kind} on {at}"))
    };
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    fs_mount("proc", "/proc", None)?;
    fs_mount("tmpfs", "/run", None)?;
    let hierarchies = cgroup::hierarchies();
    // The machine's view of the control groups goes; the node gets one that begins at its own.
    let _ = umount2(cgroup::ROOT, MntFlags::MNT_DETACH);
    let _ = umount2("/sys", MntFlags::MNT_DETACH);
    fs_mount("sysfs", "/sys", None)?;
    if hierarchies == [Path::new(cgroup::ROOT)] {
        fs_mount("cgroup2", cgroup::ROOT, None)?;
    } else {
        fs_mount("tmpfs", cgroup::ROOT, None)?;
        for hierarchy in &hierarchies {
            let name = hierarchy.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let at = format!("{}/{name}", cgroup::ROOT);
            match name.as_str() {
                "unified" => fs_mount("cgroup2", &at, None)?,
                "systemd" => fs_mount("cgroup", &at, Some("none,name=systemd"))?,
                controller => fs_mount("cgroup", &at, Some(controller))?,
            }
        }
        if !hierarchies.iter().any(|h| h.ends_with("systemd")) {
            let at = format!("{}/systemd", cgroup::ROOT);
            fs_mount("cgroup", &at, Some("none,name=systemd"))?;
        }
    }
    for (own, at) in
        [("containerd", "/var/lib/containerd"), ("minik8s", "/var/lib/minik8s"), ("pods", "/var/log/pods")]
    {
        fs::create_dir_all(at)?;
        mount(Some(&args.dir.join(own)), at, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("cannot mount {at}"))?;
    }
    fs::create_dir_all("/run/netns")?;
    fs::create_dir_all("/run/minik8s")?;
    // Volumes and namespaces of pods are mounted below these and have to be seen by containers.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    Ok(())
}

/// Writes the kubeconfig with which the node's agent shows who it is.
fn credentials(args: &InitArgs) -> anyhow::Result<()> {
    fs::create_dir_all(SERVER_DATA)?;
    let mut command = Command::new(&args.program);
    command.args(["kubeconfig", "--data-dir", SERVER_DATA, "--user", &format!("system:node:{}", args.node)]);
    command.args(["--group", "system:nodes", "--host", &args.node, "--host", &args.address]);
    let made = quiet(&mut command)?;
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(KUBECONFIG)?;
    file.write_all(&made.stdout)?;
    Ok(())
}

fn containerd(args: &InitArgs) -> Command {
    let config = args.dir.join("containerd.toml");
    let mut containerd = Command::new("containerd");
    containerd.arg("--config").arg(config);
    containerd
}

/// The agent pulls through containerd's CRI plugin, which wants to know that it may not lower OOM scores here.
const CONTAINERD: &str = r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
"#;

/// Where the API server keeps its data.
const SERVER_DATA: &str = "/var/lib/minik8s/server";

/// How the node's own programs reach the API server.
const KUBECONFIG: &str = "/run/minik8s/kubeconfig";

/// What a worker is to be.
const MANIFEST: &str = "/var/lib/minik8s/node.yaml";

/// One of minik8s' long-running commands, with the socket that users reach.
fn with_socket(args: &InitArgs, socket: i32, command: &str) -> Command {
    // The shell puts the socket where the protocol of LISTEN_FDS wants it.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "fd=$1; shift; eval \"exec \\\"\\$@\\\" 3<&$fd $([ $fd = 3 ] || echo $fd'<&-')\"", "sh"])
        .arg(socket.to_string())
        .args([args.program.as_os_str(), command.as_ref()])
        .args(["--listen", &format!("{}:6443", args.address), "--listen", "127.0.0.1:6443"])
        .args(["--default-not-ready-toleration-seconds", &args.toleration_seconds.to_string()])
        .args(["--default-unreachable-toleration-seconds", &args.toleration_seconds.to_string()])
        .env("LISTEN_FDS", "1");
    shell
}

fn server(args: &InitArgs, socket: i32) -> Command {
    let mut server = with_socket(args, socket, "server");
    server.args(args.etcd.iter().flat_map(|members| etcd::server_options(members)));
    server
}

fn node(args: &InitArgs) -> Command {
    let mut node = Command::new(&args.program);
    node.args(["node", "--name", &args.node, "--address", &args.address]);
    node.args(["--server-kubeconfig", KUBECONFIG]).args(&args.agent_options);
    node
}

/// The agent of a node that joins, or has joined.
fn worker(args: &InitArgs) -> Command {
    let mut node = Command::new(&args.program);
    node.arg("node");
    if let Some(words) = &args.join {
        node.args(["join", "-f", MANIFEST]).args(words.split_whitespace());
    }
    node.args(["--address", &args.address]).args(&args.agent_options);
    node
}

fn up(args: &InitArgs, socket: i32) -> Command {
    let mut up = with_socket(args, socket, "up");
    up.args(["--name", &args.node, "--address", &args.address]).args(&args.agent_options);
    up
}

/// A program that is to run all the time.
struct Program {
    name: &'static str,
    command: Command,
    pid: Option<Pid>,
    started: Instant,
    restart_at: Option<Instant>,
}

impl Program {
    fn new(name: &'static str, mut command: Command) -> Self {
        unblock_signals(&mut command);
        Self { name, command, pid: None, started: Instant::now(), restart_at: None }
    }

    fn start(&mut self, args: &InitArgs) -> anyhow::Result<()> {
        if self.name == "containerd" {
            fs::write(args.dir.join("containerd.toml"), CONTAINERD)?;
        }
        self.command.env("KUBECONFIG", KUBECONFIG);
        let log = args.dir.join("log").join(format!("{}.log", self.name));
        let log = fs::File::options().create(true).append(true).open(log)?;
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.name))?;
        self.pid = Some(Pid::from_raw(i32::try_from(child.id())?));
        self.started = Instant::now();
        self.restart_at = None;
        Ok(())
    }
}

/// Has the program start with no signal blocked: it would inherit what this process blocks, and hand it on.
#[allow(unsafe_code)]
fn unblock_signals(command: &mut Command) {
    // SAFETY: setting the mask is safe between fork and exec; nothing is allocated, no lock taken.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
}

/// Collects ended processes; programs among them are to be started again.
fn reap(programs: &mut [Program]) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(status) => {
                if let Some(program) = programs.iter_mut().find(|p| p.pid.is_some() && p.pid == status.pid())
                {
                    program.pid = None;
                    program.restart_at = Some(program.started + RESTART);
                }
            }
            Err(_) => return,
        }
    }
}

/// Ends the programs, then everything else: containers end with the node.
fn stop(programs: &mut [Program]) -> anyhow::Result<()> {
    for program in programs.iter().rev() {
        if let Some(pid) = program.pid {
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
    let deadline = Instant::now() + GRACE;
    while programs.iter().any(|p| p.pid.is_some()) && Instant::now() < deadline {
        reap(programs);
        std::thread::sleep(Duration::from_millis(10));
    }
    // Everyone but this process.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let deadline = Instant::now() + GRACE;
    while waitpid(None, Some(WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = quiet(&mut command("umount", &["-a", "-l", "-t", "overlay,tmpfs,nsfs"]));
    Ok(())
}
