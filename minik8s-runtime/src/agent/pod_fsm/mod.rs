//! One pod on this node, as a state machine without IO.
//!
//! [`PodFsm`] is told what happened (the pod changed, a container ended, an action came to its end, a probe spoke)
//! and [`PodFsm::step`] answers with what to do next, the status to publish and when to ask again. Given the same
//! history it gives the same answers, and asking twice changes nothing.
//!
//! What must survive a restart of the agent lives with the containers: their attempt numbers, their ends, and the
//! annotations of [`annotation`]. The published status fills in what the runtime no longer keeps.
//!
//! # Shared namespaces without a pause process
//! The first container to start makes the pod's IPC and UTS namespaces (and the PID namespace, where the pod shares
//! it); every later one joins those of any container that runs. They live as long as one container does, so a
//! restarted container finds them again; when all containers are down at once, the next one makes new ones, and
//! System V IPC objects are lost (the network namespace is separate and stays). With `shareProcessNamespace` the
//! first container is the namespace's init: when it ends the kernel ends all others, and each is then restarted as
//! its policy says.

mod action;
mod active;
mod adopt;
pub(crate) mod backoff;
mod conditions;
mod ending;
pub(crate) mod instance;
mod status;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container as Spec, EphemeralContainer, Pod, PodCondition, PodSpec, PodStatus,
};

pub(crate) use action::{Action, Hook, ImageError, Note, Outcome, Start, StartError};
pub(crate) use adopt::Found;
pub(crate) use conditions::is_own as is_own_condition;
use ending::{Cause, Ending};
use instance::{Attempt, Call, Ended, ImageState, Instance, Phase, Policy, PostStart, PreStop, Role, Stop};

use crate::runtime::{Container, ContainerState, Exit};

/// Keys of what the agent stores with a container.
pub(crate) mod annotation {
    /// Seconds that the next restart has to wait.
    pub(crate) const BACKOFF: &str = "minik8s.io/restart-backoff";
    /// The image as the pod's spec named it.
    pub(crate) const IMAGE: &str = "minik8s.io/spec-image";
    /// The signal that ends the container, if it is not SIGTERM.
    pub(crate) const STOP_SIGNAL: &str = "minik8s.io/stop-signal";
    /// Seconds between the stop signal and SIGKILL.
    pub(crate) const GRACE: &str = "minik8s.io/termination-grace";
    /// The file of the container's last words on this node.
    pub(crate) const TERMINATION_LOG: &str = "minik8s.io/termination-log";
    /// `FallbackToLogsOnError` where that is the container's policy.
    pub(crate) const TERMINATION_POLICY: &str = "minik8s.io/termination-policy";
    /// The file of the container's output on this node.
    pub(crate) const LOG: &str = "minik8s.io/log";
    /// Set for a pod on the node's own network.
    pub(crate) const HOST_NETWORK: &str = "minik8s.io/host-network";
}

/// What to do next.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Things to begin now.
    pub(crate) actions: Vec<Action>,
    /// The pod's status as of now, without what others write into it.
    pub(crate) status: PodStatus,
    /// When to ask again, if nothing happens before.
    pub(crate) wake: Option<Timestamp>,
    /// Nothing of the pod is left on this node: its object may go.
    pub(crate) finished: bool,
    /// What happened since the last step that a user may want to know.
    pub(crate) notes: Vec<Note>,
}

/// A probe that should be running.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProbeTarget {
    /// The container's id.
    pub(crate) id: String,
    /// Which probe.
    pub(crate) kind: ProbeKind,
    /// The container's name.
    pub(crate) container: String,
}

/// The kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    /// Until it passes, the others wait.
    Startup,
    /// Failing, it restarts the container.
    Liveness,
    /// Failing, it takes the pod out of its services.
    Readiness,
}

/// Why a pod reached its end before its containers did.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terminal {
    phase: &'static str,
    reason: String,
    message: String,
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct PodFsm {
    pod: Arc<Pod>,
    host_ips: Vec<IpAddr>,
    /// In the order of the spec: init containers, main ones, ephemeral ones.
    instances: Vec<Instance>,
    prepare: Call,
    attach: Call,
    addresses: Vec<IpAddr>,
    /// All init containers are through.
    initialized: bool,
    /// Init containers that ended before this must run again: the pod's network (and with it everything else that
    /// a reboot takes) was lost.
    sandbox_since: Option<Timestamp>,
    start_time: Timestamp,
    ending: Option<Ending>,
    terminal: Option<Terminal>,
    detach: Call,
    release: Call,
    purge: Call,
    conditions: Vec<PodCondition>,
    notes: Vec<Note>,
}

/// Collects one step.
struct Plan {
    now: Timestamp,
    actions: Vec<Action>,
    wake: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

impl PodFsm {
    /// A pod as the server has it. `host_ips` are the node's addresses, the primary one first.
    pub(crate) fn new(pod: Arc<Pod>, host_ips: Vec<IpAddr>, now: Timestamp) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let mut fsm = Self {
            host_ips,
            instances: instances(&pod),
            prepare: Call::default(),
            attach: Call::default(),
            addresses: Vec::new(),
            initialized: false,
            sandbox_since: None,
            start_time: status.start_time.as_ref().map_or(now, |t| t.0),
            ending: None,
            terminal: None,
            detach: Call::default(),
            release: Call::default(),
            purge: Call::default(),
            conditions: status.conditions.clone().unwrap_or_default(),
            notes: Vec::new(),
            pod,
        };
        fsm.restore_terminal(&status, now);
        fsm.update(fsm.pod.clone(), now);
        fsm
    }

    /// The pod as last seen.
    pub(crate) fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// Its containers.
    pub(crate) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Its addresses, the primary one first; the node's for a pod on the node's network.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        if self.host_network() { &self.host_ips } else { &self.addresses }
    }

    /// Whether all that is left to do is to forget it.
    pub(crate) fn is_removed(&self) -> bool {
        self.ending.as_ref().is_some_and(|e| e.cause >= Cause::Deleted)
    }

    /// Changed as the server says.
    pub(crate) fn update(&mut self, pod: Arc<Pod>, now: Timestamp) {
        let fresh = instances(&pod);
        for new in fresh {
            match self.instances.iter_mut().find(|i| i.name() == new.name()) {
                Some(known) => {
                    known.spec = new.spec;
                    known.policy = new.policy;
                }
                None => self.instances.push(new),
            }
        }
        // Conditions that others set are theirs to change.
        if let Some(published) = pod.status.as_ref().and_then(|s| s.conditions.as_ref()) {
            for condition in published {
                if !conditions::OWN.contains(&condition.type_.as_str()) {
                    self.conditions.retain(|c| c.type_ != condition.type_);
                    self.conditions.push(condition.clone());
                }
            }
        }
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| grace(spec(&pod)));
        self.pod = pod;
        if deleted {
            self.end(Cause::Deleted, grace, now);
        }
    }

    /// The object is gone from the server.
    pub(crate) fn gone(&mut self, now: Timestamp) {
        self.end(Cause::Gone, 1, now);
    }

    /// The node will not run it.
    pub(crate) fn reject(&mut self, reason: &str, message: &str, now: Timestamp) {
        self.terminal =
            Some(Terminal { phase: "Failed", reason: reason.to_owned(), message: message.to_owned() });
        self.end(Cause::Completed, 0, now);
    }

    /// A container's process ended. `message` is what it left behind to say why.
    pub(crate) fn exited(&mut self, id: &str, exit: &Exit, message: String) {
        let ended = Ended::of(exit, message);
        for instance in &mut self.instances {
            if let Some(attempt) = instance.current.as_mut().filter(|a| a.id == id) {
                if attempt.is_running() {
                    attempt.phase = Phase::Ended(ended);
                }
                return;
            }
            if instance.starting.as_ref().is_some_and(|(starting, ..)| starting == id) {
                // Over before we heard that it had begun.
                let attempt = instance.begin(id, Phase::Ended(ended));
                instance.push(attempt);
                return;
            }
        }
    }

    /// A probe crossed one of its thresholds.
    pub(crate) fn probed(&mut self, id: &str, kind: ProbeKind, healthy: bool, now: Timestamp) {
        let pod_grace = grace(spec(&self.pod));
        let Some(instance) = self
            .instances
            .iter_mut()
            .find(|i| i.current.as_ref().is_some_and(|a| a.id == id && a.is_running()))
        else {
            return;
        };
        let name = instance.name().to_owned();
        let probe = match kind {
            ProbeKind::Startup => &instance.spec.startup_probe,
            ProbeKind::Liveness => &instance.spec.liveness_probe,
            ProbeKind::Readiness => &instance.spec.readiness_probe,
        };
        let grace =
            probe.as_ref().and_then(|p| p.termination_grace_period_seconds).unwrap_or(pod_grace).max(1);
        let Some(attempt) = instance.current.as_mut() else {
            return;
        };
        match (kind, healthy) {
            (ProbeKind::Readiness, ready) => attempt.probe_ready = ready,
            (ProbeKind::Startup, true) => attempt.startup_passed = true,
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                if attempt.stop.is_none() && self.ending.is_none() {
                    attempt.begin_stop(now + SignedDuration::from_secs(grace), false);
                    let which = if kind == ProbeKind::Startup { "startup" } else { "liveness" };
                    let message = format!("Container {name} failed {which} probe, will be restarted");
                    self.note(false, "Killing", message, Some(name));
                }
            }
        }
    }

    /// Which probes should be running.
    pub(crate) fn probes(&self) -> Vec<ProbeTarget> {
        let mut out = Vec::new();
        for instance in self.instances.iter().filter(|i| matches!(i.role, Role::Main | Role::Sidecar)) {
            let Some(attempt) = instance.current.as_ref() else {
                continue;
            };
            if !attempt.is_running() || attempt.post_start != PostStart::Done {
                continue;
            }
            let mut add = |kind| {
                out.push(ProbeTarget { id: attempt.id.clone(), kind, container: instance.name().to_owned() });
            };
            let alive = attempt.stop.is_none() && self.ending.is_none();
            if !attempt.startup_passed {
                if alive {
                    add(ProbeKind::Startup);
                }
                continue;
            }
            if alive && instance.spec.liveness_probe.is_some() {
                add(ProbeKind::Liveness);
            }
            // A pod on its way out still says whether it can take requests.
            if instance.spec.readiness_probe.is_some() && (alive || self.ending.is_some()) {
                add(ProbeKind::Readiness);
            }
        }
        out
    }

    /// An action came to its end.
    pub(crate) fn done(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Prepared(result) => {
                self.prepare.finish(&result, now);
                if let Err(message) = result {
                    self.note(true, "FailedMount", message, None);
                }
            }
            Outcome::Attached(result) => {
                match &result {
                    Ok(attachment) => self.addresses = attachment.addresses.clone(),
                    Err(message) => {
                        let message = format!("Failed to create pod sandbox: {message}");
                        self.note(true, "FailedCreatePodSandBox", message, None);
                    }
                }
                self.attach.finish(&result.map(drop), now);
            }
            Outcome::Image { container, result } => self.image_done(&container, result, now),
            Outcome::Started { container, id, result } => self.start_done(&container, &id, result, now),
            Outcome::Hook { id, hook, result } => self.hook_done(&id, hook, result, now),
            Outcome::Signalled { id, signal, result } => {
                if result.is_err()
                    && let Some(stop) = self.attempt_mut(&id).and_then(|a| a.stop.as_mut())
                {
                    if signal == nix::libc::SIGKILL {
                        stop.next_kill = Some(now + SignedDuration::from_secs(1));
                    } else {
                        // The stop signal is due again; SIGKILL comes at its own time.
                        stop.signalled = now >= stop.kill_at;
                    }
                }
            }
            Outcome::Inspected { id, result, message } => self.inspected(&id, result, message, now),
            Outcome::Removed { id, result } => {
                for instance in &mut self.instances {
                    if let Some(call) = instance.stale.get_mut(&id) {
                        call.finish(&result, now);
                        if call.done {
                            instance.stale.remove(&id);
                        }
                    }
                }
            }
            Outcome::Detached(result) => self.detach.finish(&result, now),
            Outcome::Released(result) => self.release.finish(&result, now),
            Outcome::Purged(result) => self.purge.finish(&result, now),
        }
    }

    fn image_done(
        &mut self,
        container: &str,
        result: Result<(Arc<crate::runtime::Image>, bool), ImageError>,
        now: Timestamp,
    ) {
        let Some(instance) = self.instances.iter_mut().find(|i| i.name() == container) else {
            return;
        };
        let wanted = instance.spec.image.clone().unwrap_or_default();
        let (warning, reason, message) = match result {
            Ok((image, pulled)) => {
                instance.image = ImageState::Here(image);
                instance.pull.reset();
                instance.waiting = None;
                if pulled {
                    (false, "Pulled", format!("Successfully pulled image \"{wanted}\""))
                } else {
                    (false, "Pulled", format!("Container image \"{wanted}\" already present on machine"))
                }
            }
            Err(error) => {
                instance.image = ImageState::Unknown;
                instance.pull.fail(now);
                let (reason, message) = match error {
                    ImageError::Pull(message) => ("ErrImagePull", message),
                    ImageError::NeverPull(message) => ("ErrImageNeverPull", message),
                    ImageError::InvalidName(message) => ("InvalidImageName", message),
                };
                instance.wait(reason, message.clone());
                (true, "Failed", format!("Failed to pull image \"{wanted}\": {message}"))
            }
        };
        self.note(warning, reason, message, Some(container.to_owned()));
    }

    fn start_done(
        &mut self,
        container: &str,
        id: &str,
        result: Result<(u32, Timestamp), StartError>,
        now: Timestamp,
    ) {
        let Some(index) = self.instances.iter().position(|i| i.name() == container) else {
            return;
        };
        let starting = self.instances[index].starting.take_if(|(starting, ..)| starting == id);
        let Some((_, _, joined)) = starting else {
            return;
        };
        let mut attempts = self.instances.iter_mut().filter_map(|i| i.current.as_mut());
        let host = attempts.find(|a| joined.is_some() && a.pid() == joined);
        let orphaned = joined.is_some() && host.is_none();
        if let (Err(StartError::Vanished), Some(host)) = (&result, host) {
            host.gone = true;
        }
        let instance = &mut self.instances[index];
        let (warning, reason, message) = match result {
            Ok((pid, started_at)) => {
                // Its end may have been reported already.
                if instance.current.as_ref().is_none_or(|a| a.id != id || a.phase == Phase::Created) {
                    let attempt = instance.begin(id, Phase::Running { pid, started_at });
                    instance.push(attempt);
                }
                instance.waiting = None;
                instance.create.reset();
                (false, "Started", format!("Started container {container}"))
            }
            // The process whose namespaces it was to join has ended meanwhile: not the container's fault.
            Err(StartError::Vanished) => return,
            Err(_) if orphaned => return,
            Err(StartError::Config(message)) => {
                instance.wait("CreateContainerConfigError", message.clone());
                instance.create.fail(now);
                (true, "Failed", format!("Error: {message}"))
            }
            Err(StartError::Create(message)) => {
                instance.wait("CreateContainerError", message.clone());
                instance.create.fail(now);
                (true, "Failed", format!("Error: {message}"))
            }
            Err(StartError::Start(message)) => {
                let ended = Ended {
                    code: 128,
                    reason: "StartError".to_owned(),
                    message: message.clone(),
                    started_at: None,
                    finished_at: now,
                };
                let attempt = instance.begin(id, Phase::Ended(ended));
                instance.push(attempt);
                instance.wait("RunContainerError", message.clone());
                (true, "Failed", format!("Error: {message}"))
            }
        };
        // The next attempt looks for its image anew, as its pull policy may demand.
        instance.image = match std::mem::replace(&mut instance.image, ImageState::Unknown) {
            image @ ImageState::Here(_) if instance.create.due().is_some() => image,
            _ => ImageState::Unknown,
        };
        self.note(warning, reason, message, Some(container.to_owned()));
    }

    fn hook_done(&mut self, id: &str, hook: Hook, result: Result<(), String>, now: Timestamp) {
        let grace = grace(spec(&self.pod)).max(1);
        let ending = self.ending.is_some();
        let Some(attempt) = self.attempt_mut(id) else {
            return;
        };
        match hook {
            Hook::PostStart => {
                attempt.post_start = PostStart::Done;
                if result.is_err() && attempt.is_running() && attempt.stop.is_none() && !ending {
                    attempt.begin_stop(now + SignedDuration::from_secs(grace), false);
                }
            }
            Hook::PreStop => {
                if let Some(stop) = attempt.stop.as_mut()
                    && stop.pre_stop == PreStop::Running
                {
                    stop.pre_stop = PreStop::Done;
                    stop.not_before = Some(now + instance::LEAST_GRACE);
                }
            }
        }
        if let Err(message) = result {
            let reason = if hook == Hook::PostStart { "FailedPostStartHook" } else { "FailedPreStopHook" };
            self.note(true, reason, message, None);
        }
    }

    fn inspected(
        &mut self,
        id: &str,
        result: Result<Option<Box<Container>>, String>,
        message: String,
        now: Timestamp,
    ) {
        let Ok(found) = result else { return };
        let Some(attempt) = self.attempt_mut(id).filter(|a| a.is_running()) else {
            return;
        };
        let started = match attempt.phase {
            Phase::Running { started_at, .. } => Some(started_at),
            _ => None,
        };
        match found.map(|c| c.state) {
            Some(ContainerState::Running { .. }) => {}
            Some(ContainerState::Exited(exit)) => attempt.phase = Phase::Ended(Ended::of(&exit, message)),
            // A container that had run and is no longer even made has been tampered with; its process is gone.
            Some(ContainerState::Created) => attempt.phase = Phase::Ended(Ended::lost(started, now)),
            None => {
                attempt.phase = Phase::Ended(Ended::lost(started, now));
                attempt.present = false;
            }
        }
    }

    /// Decides what to do now.
    pub(crate) fn step(&mut self, now: Timestamp) -> Step {
        let mut plan = Plan { now, actions: Vec::new(), wake: None };
        if self.ending.is_none() {
            self.plan_active(&mut plan);
        }
        if self.ending.is_some() {
            self.plan_ending(&mut plan);
        }
        self.collect_stale(&mut plan);
        let status = self.status(&mut plan);
        Step {
            finished: self.is_removed() && self.purge.done,
            actions: plan.actions,
            status,
            wake: plan.wake,
            notes: std::mem::take(&mut self.notes),
        }
    }

    /// The container and number of the attempt `id`, and whether its output may stand in for its last words.
    pub(crate) fn attempt_of(&self, id: &str) -> Option<(String, u32, bool)> {
        self.instances.iter().find_map(|i| {
            let known = i.current.as_ref().filter(|a| a.id == id).map(|a| a.number);
            let starting = i.starting.as_ref().filter(|(s, ..)| s == id).map(|(_, n, _)| *n);
            let number = known.or(starting)?;
            let fallback = i.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
            Some((i.name().to_owned(), number, fallback))
        })
    }

    /// Containers that runs are believed of, for a check against the runtime.
    pub(crate) fn running_ids(&self) -> Vec<String> {
        self.instances
            .iter()
            .filter_map(|i| i.current.as_ref().filter(|a| a.is_running()))
            .map(|a| a.id.clone())
            .collect()
    }

    fn collect_stale(&mut self, plan: &mut Plan) {
        let now = plan.now;
        for instance in &mut self.instances {
            for (id, call) in &mut instance.stale {
                let mut wake = None;
                if call.start(now, &mut |at| wake = Some(at)) {
                    plan.actions.push(Action::Remove { id: id.clone() });
                }
                if let Some(at) = wake {
                    plan.wake(at);
                }
            }
        }
    }

    fn attempt_mut(&mut self, id: &str) -> Option<&mut Attempt> {
        self.instances.iter_mut().filter_map(|i| i.current.as_mut()).find(|a| a.id == id)
    }

    fn host_network(&self) -> bool {
        spec(&self.pod).host_network == Some(true)
    }

    fn note(&mut self, warning: bool, reason: &'static str, message: String, container: Option<String>) {
        self.notes.push(Note { warning, reason, message, container });
    }
}

impl Instance {
    /// A new attempt in the given phase.
    fn begin(&self, id: &str, phase: Phase) -> Attempt {
        let (image_id, stop_signal) = match &self.image {
            ImageState::Here(image) => (image.id.clone(), image.stop_signal.clone()),
            _ => (String::new(), String::new()),
        };
        let hook = self.spec.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        Attempt {
            id: id.to_owned(),
            number: self.starting.as_ref().map_or_else(|| self.next_attempt(), |(_, n, _)| *n),
            image_id,
            spec_image: self.spec.image.clone().unwrap_or_default(),
            stop_signal,
            phase,
            post_start: if hook { PostStart::Due } else { PostStart::Done },
            startup_passed: self.spec.startup_probe.is_none(),
            probe_ready: false,
            stop: None,
            present: true,
            gone: false,
        }
    }
}

impl Attempt {
    fn begin_stop(&mut self, kill_at: Timestamp, redefine: bool) {
        match &mut self.stop {
            Some(stop) => stop.kill_at = stop.kill_at.min(kill_at),
            None => {
                self.stop = Some(Stop {
                    kill_at,
                    not_before: None,
                    pre_stop: PreStop::Due,
                    signalled: false,
                    next_kill: None,
                    redefine,
                });
            }
        }
    }
}

/// The pod's spec; a pod without one has no containers and cannot exist on a server.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Seconds between the stop signal and SIGKILL.
pub(crate) fn grace(spec: &PodSpec) -> i64 {
    spec.termination_grace_period_seconds.unwrap_or(30).max(0)
}

fn instances(pod: &Pod) -> Vec<Instance> {
    let spec = spec(pod);
    let policy = Policy::parse(spec.restart_policy.as_deref().unwrap_or_default());
    let mut out = Vec::new();
    for container in spec.init_containers.iter().flatten() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        let role = if sidecar { Role::Sidecar } else { Role::Init };
        out.push(Instance::new(role, Arc::new(container.clone()), policy));
    }
    for container in &spec.containers {
        out.push(Instance::new(Role::Main, Arc::new(container.clone()), policy));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        let mut instance = Instance::new(Role::Ephemeral, Arc::new(ordinary(container)), policy);
        instance.target = container.target_container_name.clone().filter(|t| !t.is_empty());
        out.push(instance);
    }
    out
}

/// An ephemeral container as an ordinary one.
fn ordinary(container: &EphemeralContainer) -> Spec {
    let c = container.clone();
    Spec {
        name: c.name,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        command: c.command,
        args: c.args,
        working_dir: c.working_dir,
        env: c.env,
        env_from: c.env_from,
        resources: c.resources,
        volume_mounts: c.volume_mounts,
        security_context: c.security_context,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        tty: c.tty,
        ..Spec::default()
    }
}
