//! A node that exists only in memory: a deterministic [`ContainerRuntime`], [`ImageStore`] and [`PodNetwork`].
//!
//! Nothing happens in it by itself: a container runs until the test ends it, an image is here or at the registry
//! because the test put it there, and time is what the test's clock says. Two runs that make the same calls see
//! the same answers.
//!
//! ```
//! # use minik8s_runtime::{ContainerRuntime, fake::Fake, runtime::ContainerSpec};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let node = Fake::new();
//! node.add_image("docker.io/library/busybox:latest");
//! let spec = ContainerSpec { id: "c1".into(), image: "docker.io/library/busybox:latest".into(), ..Default::default() };
//! node.create(&spec).await.unwrap();
//! node.start("c1").await.unwrap();
//! node.exit("c1", 3);
//! assert_eq!(node.calls(), ["create c1", "start c1"]);
//! # });
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};

use crate::runtime::{
    Attachment, Container, ContainerEvent, ContainerSpec, ContainerState, ExecSpec, Exit, Image, PodSandbox,
    RegistryAuth, Result, RuntimeError, Stats,
};

mod images;
mod network;
mod process;
mod runtime;
#[cfg(test)]
mod tests;

#[cfg(doc)]
use crate::runtime::{ContainerRuntime, ImageStore, PodNetwork};

/// A call at one of the three seams, for [`Fake::fail`], [`Fake::hold`] and the log of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Op {
    /// [`ContainerRuntime::create`], with the container's id.
    Create,
    /// [`ContainerRuntime::start`], with the container's id.
    Start,
    /// [`ContainerRuntime::kill`], with the container's id.
    Kill,
    /// [`ContainerRuntime::remove`], with the container's id.
    Remove,
    /// [`ContainerRuntime::list`].
    List,
    /// [`ContainerRuntime::inspect`], with the container's id.
    Inspect,
    /// [`ContainerRuntime::exec`], with the container's id.
    Exec,
    /// [`ContainerRuntime::attach`], with the container's id.
    Attach,
    /// [`ContainerRuntime::stats`], with the container's id.
    Stats,
    /// [`ContainerRuntime::reopen_log`], with the container's id.
    ReopenLog,
    /// [`ContainerRuntime::remove_cgroup`], with the cgroup.
    RemoveCgroup,
    /// [`ContainerRuntime::version`].
    Version,
    /// [`ImageStore::find`], with the image's reference.
    FindImage,
    /// [`ImageStore::pull`], with the image's reference.
    Pull,
    /// [`ImageStore::list`].
    ListImages,
    /// [`ImageStore::remove`], with the image's reference.
    RemoveImage,
    /// [`PodNetwork::ready`].
    NetworkReady,
    /// [`PodNetwork::attach`], with the pod's uid.
    AttachNetwork,
    /// [`PodNetwork::detach`], with the pod's uid.
    DetachNetwork,
    /// [`PodNetwork::list`].
    ListNetworks,
}

impl Op {
    /// The word that stands for it in [`Fake::calls`].
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Create => "create",
            Op::Start => "start",
            Op::Kill => "kill",
            Op::Remove => "remove",
            Op::List => "list",
            Op::Inspect => "inspect",
            Op::Exec => "exec",
            Op::Attach => "attach",
            Op::Stats => "stats",
            Op::ReopenLog => "reopen-log",
            Op::RemoveCgroup => "remove-cgroup",
            Op::Version => "version",
            Op::FindImage => "find-image",
            Op::Pull => "pull",
            Op::ListImages => "list-images",
            Op::RemoveImage => "remove-image",
            Op::NetworkReady => "network-ready",
            Op::AttachNetwork => "attach-network",
            Op::DetachNetwork => "detach-network",
            Op::ListNetworks => "list-networks",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When an injected failure strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Instead of the call: nothing has happened.
    Before,
    /// After the call: it has happened, and the caller is told that it failed.
    After,
}

/// What the process of an image's containers does on its own and when it is signalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Exits with this code as soon as it starts; `None`: it runs on.
    pub exits: Option<i32>,
    /// Cannot be started, for this reason.
    pub fails_to_start: Option<String>,
    /// What it does on a signal other than SIGKILL: exit with this code, or (`None`) take no notice.
    pub on_signal: Option<i32>,
}

impl Default for Program {
    /// Runs until it is signalled, and then exits with 0.
    fn default() -> Self {
        Self { exits: None, fails_to_start: None, on_signal: Some(0) }
    }
}

/// What a command run by exec does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecResult {
    /// What it writes to its standard output.
    pub stdout: Vec<u8>,
    /// What it writes to its standard error; with a terminal, after its standard output.
    pub stderr: Vec<u8>,
    /// Then copies its standard input to its standard output until that is closed, where it has one.
    pub echo: bool,
    /// Its exit code.
    pub code: i32,
}

type ExecScript = dyn Fn(&str, &ExecSpec) -> ExecResult + Send + Sync;
type Clock = dyn Fn() -> Timestamp + Send + Sync;

#[derive(Clone, Debug)]
struct Held {
    spec: ContainerSpec,
    image_id: String,
    state: ContainerState,
    stats: Stats,
    attached: Vec<mpsc::UnboundedSender<(Output, Vec<u8>)>>,
}

/// One of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

struct Fault {
    op: Op,
    target: String,
    strike: Strike,
    error: RuntimeError,
}

struct State {
    clock: Arc<Clock>,
    containers: BTreeMap<String, Held>,
    images: BTreeMap<String, Image>,
    registry: BTreeMap<String, (Image, Option<RegistryAuth>)>,
    programs: BTreeMap<String, Program>,
    exec: Arc<ExecScript>,
    networks: BTreeMap<String, (PodSandbox, Attachment)>,
    subnet: (u32, u32),
    next_address: u32,
    next_pid: u32,
    subscribers: Vec<mpsc::UnboundedSender<ContainerEvent>>,
    faults: VecDeque<Fault>,
    gates: BTreeMap<Op, Arc<Notify>>,
    calls: Vec<String>,
}

/// A node in memory. Clones are the same node.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Fake").field("containers", &state.containers).finish_non_exhaustive()
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

/// The moment at which a [`Fake`] without a clock stands: 2030-01-01T00:00:00Z.
const EPOCH: Timestamp = Timestamp::constant(1_893_456_000, 0);

impl Fake {
    /// An empty node whose clock stands still, with the pod network 10.244.0.0/24.
    pub fn new() -> Self {
        Self::with_clock(|| EPOCH)
    }

    /// An empty node that asks `clock` for the time.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                clock: Arc::new(clock),
                containers: BTreeMap::new(),
                images: BTreeMap::new(),
                registry: BTreeMap::new(),
                programs: BTreeMap::new(),
                exec: Arc::new(|_, _| ExecResult::default()),
                networks: BTreeMap::new(),
                subnet: (u32::from(Ipv4Addr::new(10, 244, 0, 0)), 256),
                next_address: 2,
                next_pid: 1000,
                subscribers: Vec::new(),
                faults: VecDeque::new(),
                gates: BTreeMap::new(),
                calls: Vec::new(),
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked under the lock has failed already; others may still look.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Pods get their addresses from here.
    ///
    /// # Panics
    /// If `prefix` is not within 8..=30.
    pub fn set_pod_subnet(&self, network: Ipv4Addr, prefix: u8) {
        assert!((8..=30).contains(&prefix), "a pod subnet of /{prefix}");
        self.lock().subnet = (u32::from(network), 1 << (32 - prefix));
    }

    /// Puts an image without entrypoint or command onto the node.
    pub fn add_image(&self, reference: &str) {
        self.put_image(images::made_up(reference));
    }

    /// Puts this image onto the node.
    pub fn put_image(&self, image: Image) {
        self.lock().images.insert(image.reference.clone(), image);
    }

    /// Puts this image into the registry, where only who knows `auth` (if given) can pull it.
    pub fn put_registry(&self, image: Image, auth: Option<RegistryAuth>) {
        self.lock().registry.insert(image.reference.clone(), (image, auth));
    }

    /// Puts an image without entrypoint or command into the registry, for everyone.
    pub fn add_to_registry(&self, reference: &str) {
        self.put_registry(images::made_up(reference), None);
    }

    /// From now on the containers of this image behave so.
    pub fn set_program(&self, image: &str, program: Program) {
        self.lock().programs.insert(image.to_owned(), program);
    }

    /// From now on a command run in a container (by its id) does what this says. At first every command exits with 0.
    pub fn on_exec(&self, script: impl Fn(&str, &ExecSpec) -> ExecResult + Send + Sync + 'static) {
        self.lock().exec = Arc::new(script);
    }

    /// The next call of `op` on `target` (an empty `target`: on anything) fails so. Several faults strike in the order
    /// in which they were given.
    pub fn fail(&self, op: Op, target: &str, strike: Strike, error: RuntimeError) {
        self.lock().faults.push_back(Fault { op, target: target.to_owned(), strike, error });
    }

    /// Calls of `op` wait, before anything happens, until [`Self::release`].
    pub fn hold(&self, op: Op) {
        self.lock().gates.entry(op).or_default();
    }

    /// Lets the calls of `op` go on that [`Self::hold`] stopped, and all later ones.
    pub fn release(&self, op: Op) {
        if let Some(gate) = self.lock().gates.remove(&op) {
            gate.notify_waiters();
        }
    }

    /// Ends a running container's process with this code. Says whether there was one.
    pub fn exit(&self, id: &str, code: i32) -> bool {
        self.lock().end(id, code, false)
    }

    /// The kernel kills a container's process for want of memory. Says whether there was one.
    pub fn oom(&self, id: &str) -> bool {
        self.lock().end(id, 137, true)
    }

    /// The node loses its power and starts again: every process is gone without an event, containers and images stay.
    pub fn reboot(&self) {
        let mut state = self.lock();
        let now = (state.clock)();
        for held in state.containers.values_mut() {
            if let ContainerState::Running { started_at, .. } = held.state {
                held.state = ContainerState::Exited(Exit {
                    code: 255,
                    started_at,
                    finished_at: now,
                    oom_killed: false,
                });
                held.attached.clear();
            }
        }
        state.networks.clear();
        state.emit(&ContainerEvent::Resync);
    }

    /// Tells whoever follows events that some may have been lost.
    pub fn resync(&self) {
        self.lock().emit(&ContainerEvent::Resync);
    }

    /// What [`ContainerRuntime::stats`] says of this container from now on.
    ///
    /// # Panics
    /// If there is no such container.
    pub fn set_stats(&self, id: &str, stats: Stats) {
        self.lock().containers.get_mut(id).expect("a container of the fake").stats = stats;
    }

    /// All calls so far, as `OP TARGET`, in order.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Like [`Self::calls`], and forgets them.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    /// The containers, ordered by id. This is no call.
    pub fn containers(&self) -> Vec<Container> {
        self.lock().containers.values().map(Held::container).collect()
    }

    /// What a container was made from. This is no call.
    pub fn spec(&self, id: &str) -> Option<ContainerSpec> {
        self.lock().containers.get(id).map(|held| held.spec.clone())
    }

    /// The pods that have a network, ordered by uid. This is no call.
    pub fn attachments(&self) -> Vec<(PodSandbox, Attachment)> {
        self.lock().networks.values().cloned().collect()
    }

    /// Notes the call, waits at its gate and says whether a fault strikes before or after it.
    async fn call(&self, op: Op, target: &str) -> Result<After> {
        let entry = if target.is_empty() { op.to_string() } else { format!("{op} {target}") };
        self.lock().calls.push(entry);
        loop {
            let Some(gate) = self.lock().gates.get(&op).cloned() else {
                break;
            };
            let mut opened = std::pin::pin!(gate.notified());
            opened.as_mut().enable();
            // Released between the look and the wait: there is nothing left to wait for.
            if !self.lock().gates.get(&op).is_some_and(|now| Arc::ptr_eq(now, &gate)) {
                continue;
            }
            opened.await;
        }
        let mut state = self.lock();
        let hit = state
            .faults
            .iter()
            .position(|fault| fault.op == op && (fault.target.is_empty() || fault.target == target));
        match hit.and_then(|at| state.faults.remove(at)) {
            Some(Fault { strike: Strike::Before, error, .. }) => Err(error),
            Some(Fault { strike: Strike::After, error, .. }) => Ok(After(Some(error))),
            None => Ok(After(None)),
        }
    }
}

/// What becomes of the answer once the call is done.
struct After(Option<RuntimeError>);

impl After {
    fn answer<T>(self, answer: Result<T>) -> Result<T> {
        match self.0 {
            Some(error) => answer.and(Err(error)),
            None => answer,
        }
    }
}

impl Held {
    fn container(&self) -> Container {
        Container {
            id: self.spec.id.clone(),
            labels: self.spec.labels.clone(),
            image: self.spec.image.clone(),
            image_id: self.image_id.clone(),
            state: self.state.clone(),
        }
    }
}

impl State {
    fn emit(&mut self, event: &ContainerEvent) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    fn end(&mut self, id: &str, code: i32, oom_killed: bool) -> bool {
        let finished_at = (self.clock)();
        let Some(held) = self.containers.get_mut(id) else {
            return false;
        };
        let ContainerState::Running { started_at, .. } = held.state else {
            return false;
        };
        let exit = Exit { code, started_at, finished_at, oom_killed };
        held.state = ContainerState::Exited(exit.clone());
        held.attached.clear();
        self.emit(&ContainerEvent::Exited { id: id.to_owned(), exit });
        true
    }
}
