//! One container of a pod through its attempts.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, ContainerState, ContainerStateTerminated};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{CrashBackoff, Retry};
use crate::runtime::{Exit, Image};

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container that keeps running beside the main ones.
    Sidecar,
    /// An ordinary container.
    Main,
    /// Added to a running pod to look around; never started twice.
    Ephemeral,
}

/// When a container that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Never" => Self::Never,
            "OnFailure" => Self::OnFailure,
            _ => Self::Always,
        }
    }

    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
}

impl Ended {
    pub(crate) fn of(exit: &Exit, message: String) -> Self {
        let reason = match exit {
            Exit { oom_killed: true, .. } => "OOMKilled",
            Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        Self {
            code: exit.code,
            reason: reason.to_owned(),
            message,
            started_at: Some(exit.started_at),
            finished_at: exit.finished_at,
        }
    }

    /// Of a container that the runtime knows nothing of any more.
    pub(crate) fn lost(started_at: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when the pod was terminated".to_owned(),
            started_at,
            finished_at: now,
        }
    }

    pub(crate) fn state(&self, id: &str) -> ContainerState {
        ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(public_id(id)),
                exit_code: self.code,
                reason: Some(self.reason.clone()),
                message: (!self.message.is_empty()).then(|| self.message.clone()),
                started_at: self.started_at.map(seconds),
                finished_at: Some(seconds(self.finished_at)),
                signal: None,
            }),
            ..ContainerState::default()
        }
    }

    pub(crate) fn from_state(state: &ContainerStateTerminated) -> Self {
        Self {
            code: state.exit_code,
            reason: state.reason.clone().unwrap_or_default(),
            message: state.message.clone().unwrap_or_default(),
            started_at: state.started_at.as_ref().map(|t| t.0),
            finished_at: state.finished_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        }
    }
}

/// The id as a pod's status shows it.
pub(crate) fn public_id(id: &str) -> String {
    format!("containerd://{id}")
}

/// A time as the API keeps it: whole seconds.
pub(crate) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Where an attempt is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Made by an earlier agent and never started.
    Created,
    Running {
        pid: u32,
        started_at: Timestamp,
    },
    Ended(Ended),
}

/// Where the postStart hook of an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostStart {
    Due,
    Running,
    /// Done, or there is none.
    Done,
}

/// A container being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When patience ends.
    pub(crate) kill_at: Timestamp,
    /// SIGKILL comes no earlier: a hook used up the grace.
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) pre_stop: PreStop,
    /// Whether the stop signal was sent.
    pub(crate) signalled: bool,
    /// When the next SIGKILL is due, once one has been sent.
    pub(crate) next_kill: Option<Timestamp>,
    /// Whether its end counts as a reason to start it again whatever the restart policy says.
    pub(crate) redefine: bool,
}

/// Where the preStop hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreStop {
    Due,
    Running,
    Done,
}

/// One attempt at running a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) number: u32,
    pub(crate) image_id: String,
    /// The image as the spec named it when this attempt was made.
    pub(crate) spec_image: String,
    /// The signal that ends it, as the image wants it.
    pub(crate) stop_signal: String,
    pub(crate) phase: Phase,
    pub(crate) post_start: PostStart,
    /// Its startup probe has passed, or it has none.
    pub(crate) startup_passed: bool,
    /// What its readiness probe says.
    pub(crate) probe_ready: bool,
    pub(crate) stop: Option<Stop>,
    /// Whether the runtime still has it.
    pub(crate) present: bool,
    /// Its process has ended, though the news of how has not come yet.
    pub(crate) gone: bool,
}

impl Attempt {
    /// Its process, if it has namespaces to join.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { pid, .. } => Some(pid).filter(|_| !self.gone),
            _ => None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        match &self.phase {
            Phase::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Up, hook done and startup probe passed.
    pub(crate) fn is_started(&self) -> bool {
        self.is_running() && self.post_start == PostStart::Done && self.startup_passed
    }
}

/// Where the image for the next attempt is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageState {
    Unknown,
    Pending,
    Here(Arc<Image>),
}

/// Why nothing runs, as the status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// One container of the pod.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) role: Role,
    pub(crate) spec: Arc<Spec>,
    /// The container to share the process namespace with (ephemeral containers).
    pub(crate) target: Option<String>,
    pub(crate) policy: Policy,
    /// The newest attempt.
    pub(crate) current: Option<Attempt>,
    /// The one before, kept for its logs and for `lastState`.
    pub(crate) previous: Option<Attempt>,
    /// Older ones, to be removed: whether that is in progress, and its retries.
    pub(crate) stale: BTreeMap<String, Call>,
    pub(crate) crash: CrashBackoff,
    /// The attempt whose end `crash` has counted.
    pub(crate) counted: Option<u32>,
    pub(crate) image: ImageState,
    pub(crate) pull: Retry,
    pub(crate) create: Retry,
    pub(crate) waiting: Option<Waiting>,
    /// The attempt being started, with the process whose namespaces it joins.
    pub(crate) starting: Option<(String, u32, Option<u32>)>,
}

impl Instance {
    pub(crate) fn new(role: Role, spec: Arc<Spec>, pod_policy: Policy) -> Self {
        let own = spec.restart_policy.as_deref().map(Policy::parse);
        let policy = match role {
            Role::Sidecar => Policy::Always,
            Role::Ephemeral => Policy::Never,
            Role::Main => own.unwrap_or(pod_policy),
            // An init container has nothing left to do once it succeeded.
            Role::Init => match own.unwrap_or(pod_policy) {
                Policy::Never => Policy::Never,
                _ => Policy::OnFailure,
            },
        };
        Self {
            role,
            spec,
            target: None,
            policy,
            current: None,
            previous: None,
            stale: BTreeMap::new(),
            crash: CrashBackoff::default(),
            counted: None,
            image: ImageState::Unknown,
            pull: Retry::pull(),
            create: Retry::call(),
            waiting: None,
            starting: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn is_running(&self) -> bool {
        self.current.as_ref().is_some_and(Attempt::is_running)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.current.as_ref().is_some_and(Attempt::is_started)
    }

    /// How the newest attempt ended, if it has.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.current.as_ref().and_then(Attempt::ended)
    }

    /// Whether it has ended for good.
    pub(crate) fn is_finished(&self) -> bool {
        self.starting.is_none()
            && self.current.as_ref().is_some_and(|attempt| match attempt.ended() {
                Some(ended) => !attempt.stop.is_some_and(|s| s.redefine) && !self.policy.restarts(ended.code),
                None => false,
            })
    }

    /// The number of the next attempt.
    pub(crate) fn next_attempt(&self) -> u32 {
        self.current.as_ref().map_or(0, |a| match a.phase {
            Phase::Created => a.number,
            _ => a.number + 1,
        })
    }

    /// Ready for traffic.
    pub(crate) fn is_ready(&self) -> bool {
        match self.role {
            Role::Init => self.ended().is_some_and(|e| e.code == 0),
            Role::Ephemeral => false,
            Role::Main | Role::Sidecar => {
                self.is_started()
                    && (self.spec.readiness_probe.is_none()
                        || self.current.as_ref().is_some_and(|a| a.probe_ready))
            }
        }
    }

    /// Puts a new attempt on top.
    pub(crate) fn push(&mut self, attempt: Attempt) {
        if let Some(old) = self.current.take()
            && old.id != attempt.id
            && let Some(older) = self.previous.replace(old)
            && older.present
        {
            self.stale.insert(older.id, Call::default());
        }
        self.current = Some(attempt);
    }

    pub(crate) fn wait(&mut self, reason: &'static str, message: impl Into<String>) {
        self.waiting = Some(Waiting { reason, message: message.into() });
    }
}

/// A repeatable call to the operating system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) running: bool,
    pub(crate) done: bool,
    pub(crate) retry: Retry,
}

impl Default for Call {
    fn default() -> Self {
        Self { running: false, done: false, retry: Retry::call() }
    }
}

impl Call {
    /// Whether to make the call now; if it waits for its retry, `wake` hears when.
    pub(crate) fn start(&mut self, now: Timestamp, wake: &mut dyn FnMut(Timestamp)) -> bool {
        if self.running || self.done {
            return false;
        }
        match self.retry.due() {
            Some(due) if due > now => {
                wake(due);
                false
            }
            _ => {
                self.running = true;
                true
            }
        }
    }

    pub(crate) fn finish<E>(&mut self, result: &Result<(), E>, now: Timestamp) {
        self.running = false;
        match result {
            Ok(()) => {
                self.done = true;
                self.retry.reset();
            }
            Err(_) => self.retry.fail(now),
        }
    }
}

/// The least that a container is given between its stop signal and SIGKILL when a hook took all of its grace.
pub(crate) const LEAST_GRACE: SignedDuration = SignedDuration::from_secs(2);
/// Between one SIGKILL and the next.
pub(crate) const KILL_AGAIN: SignedDuration = SignedDuration::from_secs(5);
