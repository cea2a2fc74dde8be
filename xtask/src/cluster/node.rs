//! A node: namespaces, control groups, and a first process that keeps containerd and minik8s running.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::state::{Cluster, Settings};
use super::{cgroup, network};
use crate::workspace::quiet;

/// How long a node's processes have to end by themselves.
const GRACE: Duration = Duration::from_secs(10);

/// What a node is to the cluster.
#[derive(Debug)]
pub(super) enum Role {
    /// It runs an API server, which accepts from this socket, beside its agent.
    ControlPlane(TcpListener),
    /// It runs an agent, and joins with these words if it has not yet.
    Worker(Option<String>),
}

/// A node of a cluster, running or not.
#[derive(Clone, Debug)]
pub(super) struct Node {
    cluster: Cluster,
    number: usize,
}

impl Node {
    pub(super) fn new(cluster: &Cluster, number: usize) -> Self {
        Self { cluster: cluster.clone(), number }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn name(&self) -> String {
        format!("n{}", self.number)
    }

    pub(super) fn network_namespace(&self) -> String {
        format!("mk8s-{}-n{}", self.cluster.name(), self.number)
    }

    fn dir(&self) -> PathBuf {
        self.cluster.dir().join("nodes").join(self.name())
    }

    /// The log of one of the node's programs.
    pub(super) fn log(&self, program: &str) -> PathBuf {
        self.dir().join("log").join(format!("{program}.log"))
    }

    fn cgroup(&self) -> String {
        format!("{}/{}", self.cluster.cgroup(), self.name())
    }

    /// The node's first process, as the machine numbers it; `None` if it does not run.
    fn init_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.dir().join("pid")).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        // A number that was given to another process since then does not have the same start time.
        let pid: i32 = pid.parse().ok()?;
        (start_time(pid).as_deref() == Some(started)).then_some(pid)
    }

    /// What is /var/lib/minik8s in the node.
    pub(super) fn data(&self) -> PathBuf {
        self.dir().join("minik8s")
    }

    /// The administrator's kubeconfig, which the API server writes when it starts.
    pub(super) fn admin_kubeconfig(&self) -> PathBuf {
        self.dir().join("minik8s/server/admin.kubeconfig")
    }

    pub(super) fn is_running(&self) -> bool {
        self.init_pid().is_some()
    }

    /// The node's manifest, with which it joins.
    fn manifest(&self) -> PathBuf {
        self.data().join("node.yaml")
    }

    /// Whether the node has joined the cluster, in this life or an earlier one.
    pub(super) fn has_joined(&self) -> bool {
        self.data().join("node/kubeconfig").exists()
    }

    /// Whether the node runs an API server, or did when it ran.
    pub(super) fn is_control_plane(&self) -> bool {
        self.dir().join("socket").exists()
    }

    /// The socket that the node's API server accepts from, if the node runs.
    pub(super) fn socket(&self) -> anyhow::Result<Option<TcpListener>> {
        let (Some(pid), Ok(fd)) = (self.init_pid(), fs::read_to_string(self.dir().join("socket"))) else {
            return Ok(None);
        };
        let pid = rustix::process::Pid::from_raw(pid).context("a process has a number")?;
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let socket = rustix::process::pidfd_getfd(process, fd.trim().parse()?, flags)
            .with_context(|| format!("cannot share the socket of {}", self.name()))?;
        Ok(Some(TcpListener::from(socket)))
    }

    /// Starts the node.
    pub(super) fn start(&self, settings: &Settings, role: &Role) -> anyhow::Result<()> {
        for dir in ["log", "containerd", "minik8s", "pods"] {
            fs::create_dir_all(self.dir().join(dir))?;
        }
        let log = fs::File::create(self.log("init"))?;
        let xtask = std::env::current_exe()?;
        let mut command = Command::new("setsid");
        command
            .arg(&xtask)
            .args(["__enter", "--cgroup", &self.cgroup(), "--"])
            .args(["nsenter", &format!("--net=/run/netns/{}", self.network_namespace()), "--"])
            .args([
                "unshare",
                "--mount",
                "--uts",
                "--ipc",
                "--cgroup",
                "--pid",
                "--fork",
                "--kill-child",
                "--",
            ])
            .arg(&xtask)
            .args(["__init", "--node", &self.name(), "--address", &network::address(self)])
            .arg("--dir")
            .arg(self.dir())
            .arg("--program")
            .arg(&settings.program)
            .args(settings.agent_options.iter().map(|option| format!("--agent-option={option}")));
        match role {
            Role::ControlPlane(socket) => {
                let fd = socket.as_raw_fd().to_string();
                fs::write(self.dir().join("socket"), &fd)?;
                command
                    .args(["--socket", &fd])
                    .args(["--toleration-seconds", &settings.toleration_seconds.to_string()])
                    .args(settings.all_in_one.then_some("--all-in-one"))
                    .args(settings.etcd.iter().flat_map(|members| ["--etcd", members]));
                // The socket stays open through all the programs that lead to the node's init.
                fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Role::Worker(join) => {
                let manifest = format!("apiVersion: v1\nkind: Node\nmetadata: {{ name: {} }}\n", self.name());
                fs::write(self.manifest(), manifest)?;
                command.args(join.iter().flat_map(|words| ["--join", words]));
            }
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        if let Role::ControlPlane(socket) = role {
            fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let child = child.context("cannot start the node")?;
        let init = self.find_init(i32::try_from(child.id())?)?;
        let started = start_time(init).context("the node ended at once")?;
        fs::write(self.dir().join("pid"), format!("{init} {started}"))?;
        Ok(())
    }

    /// Waits for the process that `unshare` makes: the first one in the node's own process namespace.
    fn find_init(&self, parent: i32) -> anyhow::Result<i32> {
        let deadline = Instant::now() + GRACE;
        loop {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            for child in children.unwrap_or_default().split_whitespace() {
                let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
                let inner = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
                if inner.is_some_and(|pids| pids.split_whitespace().count() > 1) {
                    return Ok(child.parse()?);
                }
            }
            if start_time(parent).is_none() || Instant::now() > deadline {
                let log = fs::read_to_string(self.log("init")).unwrap_or_default();
                bail!("the node did not start: {}", log.trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A command in the node.
    pub(super) fn command(&self, words: &[OsString]) -> anyhow::Result<Command> {
        let pid = self.init_pid().with_context(|| format!("node {} does not run", self.name()))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        command.args(words);
        Ok(command)
    }

    pub(super) fn wait_for_containerd(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let words = ["ctr", "version"].map(OsString::from);
        loop {
            match quiet(&mut self.command(&words)?) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Brings an image archive into the node's containerd.
    pub(super) fn load_image(&self, tar: &Path) -> anyhow::Result<()> {
        let words = ["ctr", "-n", "k8s.io", "images", "import"].map(OsString::from);
        quiet(self.command(&words)?.arg(tar)).map(drop)
    }

    /// Stops all of the node's processes and removes what is left of them.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        if let Some(pid) = self.init_pid() {
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            if !self.ends_within(GRACE) {
                return self.kill();
            }
        }
        cgroup::remove(&self.cgroup())
    }

    /// Kills all of the node's processes at once, and removes what is left of them but the disk.
    pub(super) fn kill(&self) -> anyhow::Result<()> {
        if let Some(pid) = self.init_pid() {
            // The kernel kills what is in a process namespace with its first process.
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            if !self.ends_within(GRACE) {
                bail!("node {} (process {pid}) does not end", self.name());
            }
        }
        cgroup::remove(&self.cgroup())
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        !self.is_running()
    }
}

/// When the process started, in the kernel's ticks; `None` if there is none (or only its remains).
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).map(|&s| s.to_owned()))?
}
