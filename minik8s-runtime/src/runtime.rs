//! The three seams between the node agent and the operating system.
//!
//! The agent decides; what is behind these traits acts. Every call may be repeated: after a crash the agent lists
//! what there is and goes on from there, so each implementation treats "already so" as success.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Why the operating system did not do as it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no such container, image or network.
    #[error("{0} not found")]
    NotFound(String),
    /// The image does not exist at its registry, or may not be read.
    #[error("failed to pull image \"{image}\": {message}")]
    ImagePull {
        /// The image's reference.
        image: String,
        /// What the puller says.
        message: String,
    },
    /// The reference is not one.
    #[error("invalid image name \"{0}\"")]
    InvalidImageName(String),
    /// The container could not be made from its spec.
    #[error("{0}")]
    CreateContainer(String),
    /// The container's process could not be started, for example because there is no such file.
    #[error("{0}")]
    StartContainer(String),
    /// The runtime cannot be reached; try again.
    #[error("the container runtime is unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The answer of every call at these seams.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// What an image says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The reference it was asked for by, normalised: `docker.io/library/busybox:latest`.
    pub reference: String,
    /// The digest of its manifest: `sha256:…`.
    pub digest: String,
    /// `NAME@DIGEST`: what a pod's status shows as the image's id.
    pub id: String,
    /// Its size in bytes, compressed.
    pub size: u64,
    /// The image's `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// The image's `CMD`.
    pub cmd: Vec<String>,
    /// The image's environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// The image's `USER`: a name or number, perhaps with `:GROUP`; empty for root.
    pub user: String,
    /// The image's `WORKDIR`; empty for `/`.
    pub working_dir: String,
    /// The signal that ends it, such as `SIGQUIT`; empty for SIGTERM.
    pub stop_signal: String,
}

/// A name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// The user's name.
    pub username: String,
    /// The user's password or token.
    pub password: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryAuth({}, …)", self.username)
    }
}

/// Where images are.
#[async_trait]
pub trait ImageStore: Send + Sync + 'static {
    /// The image, if it is on this node and ready to run.
    async fn find(&self, reference: &str) -> Result<Option<Image>>;
    /// Fetches the image from its registry, even if it is here already.
    ///
    /// # Errors
    /// [`RuntimeError::ImagePull`] with the registry's words, [`RuntimeError::InvalidImageName`].
    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Image>;
    /// All images that are here.
    async fn list(&self) -> Result<Vec<Image>>;
    /// Forgets the image; containers made from it live on.
    async fn remove(&self, reference: &str) -> Result<()>;
}

/// Whose container it is. Stored with the container, so that an agent that knows nothing can adopt it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerLabels {
    /// The pod's uid.
    pub pod_uid: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The container's name in the pod.
    pub container: String,
    /// How often it had been restarted before: 0 for the first attempt.
    pub attempt: u32,
    /// Whatever else the agent wants to find again, such as a hash of the spec it was made from.
    pub annotations: BTreeMap<String, String>,
}

/// A directory or file of the node seen inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the node.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// Without the right to write.
    pub read_only: bool,
    /// Whether mounts made on one side appear on the other.
    pub propagation: Propagation,
}

/// Whether mounts made below a mount appear on the other side of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way.
    #[default]
    Private,
    /// Those of the node appear in the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// The shares of the node that a container may use. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Weight against others, 2 to 262144 (cgroup v1's `cpu.shares`); converted where the host has cgroup v2.
    pub cpu_shares: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_limit_milli: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids_limit: Option<u64>,
    /// From -1000 (never) to 1000 (first) in line for the kernel's OOM killer. A host that does not allow the value
    /// keeps the inherited one.
    pub oom_score_adj: i32,
}

/// Namespaces that a container shares with its pod or its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The pod's network namespace; `None` for the node's.
    pub network: Option<PathBuf>,
    /// The node's processes are visible.
    pub host_pid: bool,
    /// The node's System V IPC and POSIX queues are visible.
    pub host_ipc: bool,
    /// A process whose IPC, UTS and (where [`Self::share_pid`]) PID namespaces to join: the pod's first container.
    pub join_pid: Option<u32>,
    /// Join the PID namespace of [`Self::join_pid`] too.
    pub share_pid: bool,
}

/// Who the process is and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// The user id; `None` for the image's `USER`.
    pub run_as_user: Option<i64>,
    /// The group id; `None` for the user's own group in the image.
    pub run_as_group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// Refuse to run as uid 0.
    pub run_as_non_root: bool,
    /// All devices, all capabilities, no confinement.
    pub privileged: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// The root filesystem cannot be written.
    pub read_only_root: bool,
    /// Capabilities on top of the usual ones, such as `NET_ADMIN` or `ALL`.
    pub add_capabilities: Vec<String>,
    /// Capabilities less than the usual ones.
    pub drop_capabilities: Vec<String>,
    /// The usual seccomp filter; without it there is none.
    pub seccomp_default: bool,
}

/// All that is needed to make a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its id: letters, digits and `-`, unique on the node.
    pub id: String,
    /// Whose it is.
    pub labels: ContainerLabels,
    /// The image, which must be here.
    pub image: String,
    /// In place of the image's entrypoint, if not empty.
    pub command: Vec<String>,
    /// In place of the image's cmd, if not empty (and the image's cmd is dropped when `command` is given).
    pub args: Vec<String>,
    /// In place of the image's, if not empty.
    pub working_dir: String,
    /// On top of the image's, in order; later ones win.
    pub env: Vec<(String, String)>,
    /// What it sees of the node.
    pub mounts: Vec<Mount>,
    /// Its hostname, where it makes the UTS namespace.
    pub hostname: String,
    /// Limits.
    pub resources: Resources,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Rights.
    pub security: Security,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Below this cgroup, such as `/kubepods/burstable/podUID`; the container's own is `PARENT/ID`.
    pub cgroup_parent: String,
    /// The file that receives its output in CRI format (`TIME stdout F LINE`).
    pub log_path: PathBuf,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input stays open for [`ContainerRuntime::attach`].
    pub stdin: bool,
    /// Standard input closes when the first attached client leaves.
    pub stdin_once: bool,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running {
        /// The process, as the node numbers it.
        pid: u32,
        /// Since when.
        started_at: Timestamp,
    },
    /// Its process has ended.
    Exited(Exit),
}

/// How a container's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 + N after signal N.
    pub code: i32,
    /// Since when it had run.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
}

/// A container as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub labels: ContainerLabels,
    /// The image it was made from.
    pub image: String,
    /// `NAME@DIGEST` of that image.
    pub image_id: String,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// Something that happened to a container. Events can be lost while the runtime restarts; whoever needs the truth
/// lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// Its process ended.
    Exited {
        /// Which.
        id: String,
        /// How.
        exit: Exit,
    },
    /// Events may have been lost: list again.
    Resync,
}

/// Numbers of one container at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes that cannot be reclaimed: what Kubernetes calls the working set.
    pub memory_working_set: u64,
    /// Bytes in use, caches included.
    pub memory_usage: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// A process to run inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// With a terminal (then there is no separate stderr).
    pub tty: bool,
    /// With standard input.
    pub stdin: bool,
    /// Further environment.
    pub env: Vec<(String, String)>,
}

/// The ends of a process's pipes, or of its terminal.
pub struct Streams {
    /// Its standard input, where asked for; dropping it closes it.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error; none with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Sizes of the terminal (columns, rows) go in here.
    pub resize: mpsc::Sender<(u16, u16)>,
    /// Resolves to the exit code when the process has ended.
    pub exit: Pin<Box<dyn Future<Output = Result<i32>> + Send>>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams")
    }
}

/// What runs containers.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    /// The runtime's name and version, such as `containerd://1.6.20`.
    async fn version(&self) -> Result<String>;
    /// Makes the container, without starting it. One that exists already under that id is left as it is.
    async fn create(&self, spec: &ContainerSpec) -> Result<()>;
    /// Starts its process and answers with its pid; one that runs already is left running.
    ///
    /// # Errors
    /// [`RuntimeError::StartContainer`] with the kernel's words if the program cannot be run.
    async fn start(&self, id: &str) -> Result<u32>;
    /// Sends its first process a signal (all processes, for SIGKILL). One that has ended is fine.
    async fn kill(&self, id: &str, signal: i32) -> Result<()>;
    /// Removes the container, its filesystem and what is left of its process. One that is gone already is fine.
    async fn remove(&self, id: &str) -> Result<()>;
    /// The containers that this runtime keeps for pods, ordered by id.
    async fn list(&self) -> Result<Vec<Container>>;
    /// One container.
    async fn inspect(&self, id: &str) -> Result<Option<Container>>;
    /// What happens from now on. The first event is a [`ContainerEvent::Resync`], when nothing can be missed any more. The
    /// stream never ends; it says [`ContainerEvent::Resync`] after every gap.
    fn events(&self) -> Pin<Box<dyn Stream<Item = ContainerEvent> + Send>>;
    /// Runs another process in the container.
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Streams>;
    /// Connects to the container's own process: output from now on and, where the spec keeps it open, input.
    async fn attach(&self, id: &str) -> Result<Streams>;
    /// What it uses.
    async fn stats(&self, id: &str) -> Result<Stats>;
    /// Closes the current log file of a running container under its old name and goes on in a new one, after the
    /// agent has renamed it.
    async fn reopen_log(&self, id: &str) -> Result<()>;
    /// Removes what no container needs: empty pod cgroups below `parent`.
    async fn remove_cgroup(&self, parent: &str) -> Result<()>;
}

/// A pod, as its network sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodSandbox {
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The node's ports that lead to the pod, for networks that see to that.
    pub ports: Vec<HostPort>,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The node's port.
    pub host_port: u16,
    /// The pod's.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The node's address; all of them by default.
    pub host_ip: Option<IpAddr>,
}

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's network namespace, to run containers in.
    pub netns: PathBuf,
    /// The pod's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
}

/// What gives pods their network namespace and addresses.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Whether pods can be attached now; the error says what is missing.
    async fn ready(&self) -> Result<()>;
    /// Waits until what [`Self::ready`] says may have changed. By default it is asked now and then, and never waited for.
    ///
    /// # Cancel safety
    /// Safe.
    async fn changed(&self) {
        std::future::pending().await
    }
    /// Makes the pod's network namespace and gives it an address. A pod that has one keeps it.
    async fn attach(&self, pod: &PodSandbox) -> Result<Attachment>;
    /// Takes both away. A pod that has none is fine.
    async fn detach(&self, pod_uid: &str) -> Result<()>;
    /// The uids of the pods that have one.
    async fn list(&self) -> Result<Vec<String>>;
}
