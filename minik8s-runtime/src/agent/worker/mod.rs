//! One task for each pod: drives its state machine.
//!
//! The task itself never waits for anything but the next thing to happen: whatever takes time runs beside it.

mod perform;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::container_spec::log_dir;
use super::context::Context;
use super::directory::{AttemptInfo, ContainerInfo, PodInfo};
use super::pod_fsm::instance::Attempt;
use super::pod_fsm::{Action, Found, Note, Outcome, PodFsm, ProbeKind, ProbeTarget, spec};
use super::probe::{self, Asked, Verdict};
use super::status::{Publisher, Written, send};
use super::termination;
use super::volumes::{PodDir, Volumes};
use crate::runtime::Exit;
use perform::{Job, Tokens};

/// What a worker hears.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The pod changed.
    Pod(Arc<Pod>),
    /// The object is gone from the server.
    Gone,
    /// A container's process ended.
    Exited(String, Exit),
    /// Events may have been lost: compare with the runtime.
    Resync,
    /// Bring files up to date, from objects no older than this.
    Refresh(Timestamp),
    /// A probe has a verdict.
    Probed { id: String, kind: ProbeKind, healthy: bool },
    /// Something to tell.
    Note(Note),
}

/// The rest of the agent's end of a worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerHandle(UnboundedSender<Input>);

impl WorkerHandle {
    /// Tells the worker; one that has ended does not mind.
    pub(crate) fn tell(&self, input: Input) {
        let _ = self.0.send(input);
    }
}

/// What a worker starts from.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    pub(crate) pod: Arc<Pod>,
    /// What an earlier agent left.
    pub(crate) found: Vec<Found>,
    /// Whether the pod's network is there.
    pub(crate) attached: bool,
    /// Why the node will not run it.
    pub(crate) refused: Option<(String, String)>,
    /// The object is gone: all there is to do is to clean up.
    pub(crate) gone: bool,
}

/// What came of something that ran beside the worker.
pub(super) enum Done {
    Outcome(Outcome),
    Prepared(Result<Volumes, String>),
    Attached(Result<crate::runtime::Attachment, String>),
    Written(Written),
    Refreshed,
}

/// A probe that ends when it is dropped.
struct Probing(AbortHandle);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) struct Worker {
    ctx: Arc<Context>,
    fsm: PodFsm,
    publisher: Publisher,
    inbox: UnboundedReceiver<Input>,
    own: WeakUnboundedSender<Input>,
    jobs: JoinSet<Done>,
    running: BTreeMap<Id, Action>,
    probes: BTreeMap<ProbeTarget, Probing>,
    probing: JoinSet<()>,
    dir: PodDir,
    volumes: Arc<Volumes>,
    /// Held by whoever changes what is on the disk.
    disk: Arc<tokio::sync::Mutex<()>>,
    tokens: Tokens,
    netns: Option<PathBuf>,
    asked_to_delete: bool,
    /// Notes are about what happens, not about what was found.
    quiet: bool,
}

impl Worker {
    /// A worker and the handle on it.
    pub(crate) fn new(ctx: Arc<Context>, begin: Begin) -> (Self, WorkerHandle) {
        let now = ctx.config.clock.now();
        let (sender, inbox) = tokio::sync::mpsc::unbounded_channel();
        let mut fsm = PodFsm::new(begin.pod.clone(), ctx.config.addresses.clone(), now);
        fsm.adopt(begin.found, begin.attached, now);
        if let Some((reason, message)) = &begin.refused {
            fsm.reject(reason, message, now);
        }
        let mut publisher = Publisher::new(begin.pod.clone());
        if begin.gone {
            fsm.gone(now);
            publisher.gone();
        }
        let uid = begin.pod.metadata.uid.clone().unwrap_or_default();
        let worker = Self {
            dir: PodDir::new(&ctx.config.pods_dir, &uid),
            quiet: begin.gone,
            ctx,
            fsm,
            publisher,
            inbox,
            own: sender.downgrade(),
            jobs: JoinSet::new(),
            running: BTreeMap::new(),
            probes: BTreeMap::new(),
            probing: JoinSet::new(),
            volumes: Arc::default(),
            disk: Arc::default(),
            tokens: Arc::default(),
            netns: None,
            asked_to_delete: false,
        };
        (worker, WorkerHandle(sender))
    }

    /// Runs until nothing of the pod is left, here and on the server, or until nobody holds the handle any more.
    pub(crate) async fn run(mut self) {
        loop {
            let now = self.ctx.config.clock.now();
            let step = self.fsm.step(now);
            for note in step.notes {
                if !self.quiet {
                    self.ctx.events.note(self.fsm.pod(), note, now);
                }
            }
            for action in step.actions {
                self.begin(action);
            }
            self.sync_probes(now);
            self.publisher.want(step.status);
            if step.finished && !std::mem::replace(&mut self.asked_to_delete, true) {
                self.publisher.want_deleted();
            }
            if let Some(write) = self.publisher.next(now) {
                let ctx = self.ctx.clone();
                self.jobs.spawn(async move {
                    let _slot = ctx.writes.acquire().await.expect("never closed");
                    Done::Written(send(&ctx.client, write).await)
                });
            }
            if step.finished && self.publisher.is_gone() {
                self.ctx.directory.remove(self.uid());
                return;
            }
            self.show();
            let wake = [step.wake, self.publisher.wake()].into_iter().flatten().min();
            let clock = self.ctx.config.clock.clone();
            tokio::select! {
                biased;
                input = self.inbox.recv() => match input {
                    Some(input) => self.hear(input),
                    None => return,
                },
                Some(done) = self.jobs.join_next_with_id() => self.finish(done),
                Some(_) = self.probing.join_next() => {}
                () = async {
                    match wake {
                        Some(at) => tokio::time::sleep(clock.until(at)).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    fn uid(&self) -> &str {
        self.fsm.pod().metadata.uid.as_deref().unwrap_or_default()
    }

    fn hear(&mut self, input: Input) {
        let now = self.ctx.config.clock.now();
        match input {
            Input::Pod(pod) => {
                self.publisher.observe(pod.clone());
                self.fsm.update(pod, now);
            }
            Input::Gone => {
                self.publisher.gone();
                self.fsm.gone(now);
            }
            Input::Exited(id, exit) => {
                let message = self.last_words(&id, exit.code);
                self.fsm.exited(&id, &exit, message);
            }
            Input::Resync => {
                for id in self.fsm.running_ids() {
                    self.begin(Action::Inspect { id });
                }
            }
            Input::Refresh(since) => self.refresh(since),
            Input::Probed { id, kind, healthy } => self.fsm.probed(&id, kind, healthy, now),
            Input::Note(note) => self.ctx.events.note(self.fsm.pod(), note, now),
        }
    }

    fn finish(&mut self, done: Result<(Id, Done), JoinError>) {
        let now = self.ctx.config.clock.now();
        let done = match done {
            Ok((id, done)) => {
                self.running.remove(&id);
                done
            }
            Err(error) => {
                tracing::error!(pod = self.uid(), "a task of the pod failed: {error}");
                match self.running.remove(&error.id()) {
                    Some(action) => Done::Outcome(perform::failed(action, &error.to_string())),
                    None => Done::Written(Written::Failed(error.to_string())),
                }
            }
        };
        match done {
            Done::Outcome(Outcome::Inspected { id, result, .. }) => {
                let code = match &result {
                    Ok(Some(c)) => match &c.state {
                        crate::runtime::ContainerState::Exited(exit) => Some(exit.code),
                        _ => None,
                    },
                    _ => None,
                };
                let message = code.map(|code| self.last_words(&id, code)).unwrap_or_default();
                self.fsm.done(Outcome::Inspected { id, result, message }, now);
            }
            Done::Outcome(outcome) => self.fsm.done(outcome, now),
            Done::Prepared(result) => {
                let result = result.map(|volumes| self.volumes = Arc::new(volumes));
                self.fsm.done(Outcome::Prepared(result), now);
            }
            Done::Attached(result) => {
                if let Ok(attachment) = &result {
                    self.netns = Some(attachment.netns.clone());
                }
                self.fsm.done(Outcome::Attached(result), now);
            }
            Done::Written(written) => {
                if let Written::Behind(pod) = &written {
                    self.fsm.update(pod.clone(), now);
                }
                if let Written::Failed(why) = &written {
                    tracing::warn!(pod = self.uid(), "the pod's status could not be written: {why}");
                }
                self.publisher.done(written, now);
                if self.publisher.is_gone() {
                    self.fsm.gone(now);
                }
            }
            Done::Refreshed => {}
        }
    }

    /// What the container left to say why it ended.
    fn last_words(&self, id: &str, code: i32) -> String {
        let Some((name, attempt, fallback)) = self.fsm.attempt_of(id) else {
            return String::new();
        };
        let output = self.log_path(&name, attempt);
        let output = (fallback && code != 0).then_some(output.as_path());
        termination::message(&self.dir.termination_log(&name, attempt), output)
    }

    fn log_path(&self, container: &str, attempt: u32) -> PathBuf {
        log_dir(&self.ctx.config.logs_dir, self.fsm.pod()).join(container).join(format!("{attempt}.log"))
    }

    fn job(&self) -> Job {
        Job {
            ctx: self.ctx.clone(),
            pod: self.fsm.pod().clone(),
            dir: self.dir.clone(),
            disk: self.disk.clone(),
            tokens: self.tokens.clone(),
            volumes: self.volumes.clone(),
            netns: self.netns.clone(),
            addresses: self.fsm.addresses().to_vec(),
        }
    }

    fn begin(&mut self, action: Action) {
        let facts = match &action {
            Action::EnsureImage { container } | Action::Hook { container, .. } => self.container(container),
            Action::Start(start) => self.container(&start.container),
            _ => None,
        };
        let log = match &action {
            Action::Start(start) => self.log_path(&start.container, start.attempt),
            _ => PathBuf::new(),
        };
        let job = self.job();
        let handle = self.jobs.spawn(perform::perform(job, action.clone(), facts, log));
        self.running.insert(handle.id(), action);
    }

    fn container(&self, name: &str) -> Option<perform::Target> {
        let instance = self.fsm.instances().iter().find(|i| i.name() == name)?;
        Some(perform::Target { spec: instance.spec.clone(), shares_target: instance.target.is_some() })
    }

    fn refresh(&mut self, since: Timestamp) {
        if !self.volumes.is_empty() && !self.fsm.is_removed() && super::volumes::refreshable(self.fsm.pod()) {
            let job = self.job();
            self.jobs.spawn(async move {
                job.refresh(since).await;
                Done::Refreshed
            });
        }
    }

    /// Runs the probes that should be running, and no others.
    fn sync_probes(&mut self, now: Timestamp) {
        let wanted = self.fsm.probes();
        self.probes.retain(|target, _| wanted.contains(target));
        for target in wanted {
            if self.probes.contains_key(&target) {
                continue;
            }
            let Some(instance) = self.fsm.instances().iter().find(|i| i.name() == target.container) else {
                continue;
            };
            let probe = match target.kind {
                ProbeKind::Startup => instance.spec.startup_probe.clone(),
                ProbeKind::Liveness => instance.spec.liveness_probe.clone(),
                ProbeKind::Readiness => instance.spec.readiness_probe.clone(),
            };
            let (Some(probe), Some(own)) = (probe, self.own.upgrade()) else {
                continue;
            };
            let asked = Asked {
                runtime: self.ctx.runtime.clone(),
                id: target.id.clone(),
                container: instance.spec.clone(),
                address: self.address(),
            };
            let waited = instance.current.as_ref().and_then(|a| match a.phase {
                super::pod_fsm::instance::Phase::Running { started_at, .. } => {
                    now.duration_since(started_at).try_into().ok()
                }
                _ => None,
            });
            let own = own.downgrade();
            let heard = target.clone();
            let mut last = None;
            let tell = move |answer: Result<Option<Verdict>, (Option<Verdict>, String)>| {
                let Some(own) = own.upgrade() else { return };
                let verdict = match answer {
                    Ok(verdict) => verdict,
                    Err((verdict, message)) => {
                        let word = match heard.kind {
                            ProbeKind::Startup => "Startup",
                            ProbeKind::Liveness => "Liveness",
                            ProbeKind::Readiness => "Readiness",
                        };
                        let _ = own.send(Input::Note(Note {
                            warning: true,
                            reason: "Unhealthy",
                            message: format!("{word} probe failed: {message}"),
                            container: Some(heard.container.clone()),
                        }));
                        verdict
                    }
                };
                if verdict.is_some() && verdict != last {
                    last = verdict;
                    let healthy = verdict == Some(Verdict::Healthy);
                    let _ = own.send(Input::Probed { id: heard.id.clone(), kind: heard.kind, healthy });
                }
            };
            let task = probe::watch(asked, probe, waited.unwrap_or_default(), tell);
            self.probes.insert(target, Probing(self.probing.spawn(task)));
        }
    }

    /// Where to knock: the pod's address, or the node's own.
    fn address(&self) -> Option<std::net::IpAddr> {
        let host = spec(self.fsm.pod()).host_network == Some(true);
        let loopback = || host.then_some(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        self.fsm.addresses().first().copied().or_else(loopback)
    }

    /// Shows the pod as it is now to whoever reads the directory.
    fn show(&self) {
        let meta = &self.fsm.pod().metadata;
        let attempt = |name: &str, attempt: &Option<Attempt>| {
            attempt.as_ref().filter(|a| a.present).map(|a| AttemptInfo {
                id: a.id.clone(),
                attempt: a.number,
                running: a.is_running(),
                log_path: self.log_path(name, a.number),
            })
        };
        self.ctx.directory.put(PodInfo {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: self.uid().to_owned(),
            pod: Some(self.fsm.pod().clone()),
            containers: self
                .fsm
                .instances()
                .iter()
                .map(|i| ContainerInfo {
                    name: i.name().to_owned(),
                    current: attempt(i.name(), &i.current),
                    previous: attempt(i.name(), &i.previous),
                    waiting: i.waiting.as_ref().map(|w| w.reason.to_owned()).unwrap_or_default(),
                })
                .collect(),
            addresses: self.fsm.addresses().to_vec(),
            netns: self.netns.clone(),
        });
    }
}
