//! A runtime of a few lines: it obeys, and containers end when the test says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use super::super::adopt::Found;
use super::super::{Action, ImageError, Outcome, PodFsm, Start, StartError, Step, annotation};
use crate::runtime::{Attachment, Container, ContainerLabels, ContainerState, Exit, Image};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A pod with this spec and the metadata that any pod has.
pub(super) fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

pub(super) struct World {
    pub(super) pod: Pod,
    pub(super) fsm: PodFsm,
    pub(super) now: Timestamp,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) attached: bool,
    pub(super) volumes: bool,
    pub(super) pending: VecDeque<Action>,
    /// Containers in the order in which they were started.
    pub(super) started: Vec<(String, u32)>,
    /// Signals in the order in which they were sent, as `NAME SIGNAL`.
    pub(super) signals: Vec<String>,
    /// Containers that end on these signals only.
    pub(super) stubborn: Vec<String>,
    pub(super) image_error: Option<ImageError>,
    pub(super) start_errors: BTreeMap<String, StartError>,
    /// Actions that are left undone.
    pub(super) hold: fn(&Action) -> bool,
    pub(super) last: Option<Step>,
    next_pid: u32,
}

impl World {
    pub(super) fn new(pod: Pod) -> Self {
        let fsm = PodFsm::new(Arc::new(pod.clone()), vec!["10.0.0.1".parse().unwrap()], at(0));
        Self {
            pod,
            fsm,
            now: at(0),
            containers: BTreeMap::new(),
            attached: false,
            volumes: false,
            pending: VecDeque::new(),
            started: Vec::new(),
            signals: Vec::new(),
            stubborn: Vec::new(),
            image_error: None,
            start_errors: BTreeMap::new(),
            hold: |_| false,
            last: None,
            next_pid: 100,
        }
    }

    /// Steps once, and checks that a second step has nothing to add.
    pub(super) fn step(&mut self) -> Step {
        let step = self.fsm.step(self.now);
        self.pending.extend(step.actions.iter().cloned());
        let again = self.fsm.step(self.now);
        assert!(again.actions.is_empty(), "asked twice: {:?}", again.actions);
        assert_eq!(again.status, step.status, "a second step changed the status");
        assert!(again.notes.is_empty(), "said twice: {:?}", again.notes);
        self.pod.status = Some(step.status.clone());
        self.last = Some(step.clone());
        step
    }

    /// Steps and obeys until nothing is asked for any more.
    pub(super) fn settle(&mut self) -> Step {
        for _ in 0..1000 {
            let step = self.step();
            let Some(index) = self.pending.iter().position(|a| !(self.hold)(a)) else {
                return step;
            };
            let action = self.pending.remove(index).unwrap();
            self.obey(action);
        }
        panic!("the pod does not come to rest: {:?}", self.last);
    }

    /// Lets time pass until the machine wants to be asked; whether it wanted to.
    pub(super) fn sleep(&mut self) -> bool {
        match self.last.as_ref().and_then(|s| s.wake) {
            Some(wake) => {
                self.now = self.now.max(wake);
                true
            }
            None => false,
        }
    }

    pub(super) fn pass(&mut self, seconds: i64) -> Step {
        self.now += SignedDuration::from_secs(seconds);
        self.settle()
    }

    pub(super) fn obey(&mut self, action: Action) {
        let outcome = match action {
            Action::Prepare => {
                self.volumes = true;
                Outcome::Prepared(Ok(()))
            }
            Action::Attach => {
                self.attached = true;
                Outcome::Attached(Ok(Attachment {
                    netns: "/run/netns/p".into(),
                    addresses: vec!["10.244.0.5".parse().unwrap()],
                }))
            }
            Action::EnsureImage { container } => {
                let image = Image { id: "img@sha256:1".into(), ..Image::default() };
                let result = match self.image_error.clone() {
                    Some(error) => Err(error),
                    None => Ok((Arc::new(image), true)),
                };
                Outcome::Image { container, result }
            }
            Action::Start(start) => self.start(*start),
            Action::Hook { id, hook, .. } => Outcome::Hook { id, hook, result: Ok(()) },
            Action::Signal { id, signal } => {
                let Some(container) = self.containers.get(&id) else {
                    return self.fsm.done(Outcome::Signalled { id, signal, result: Ok(()) }, self.now);
                };
                let name = container.labels.container.clone();
                self.signals.push(format!("{name} {signal}"));
                if signal == 9 || !self.stubborn.contains(&name) {
                    self.end(&id, 128 + signal);
                }
                Outcome::Signalled { id, signal, result: Ok(()) }
            }
            Action::Inspect { id } => Outcome::Inspected {
                result: Ok(self.containers.get(&id).cloned().map(Box::new)),
                id,
                message: String::new(),
            },
            Action::Remove { id } => {
                if let Some(container) = self.containers.remove(&id) {
                    assert!(
                        !matches!(container.state, ContainerState::Running { .. }),
                        "removed a running container"
                    );
                }
                Outcome::Removed { id, result: Ok(()) }
            }
            Action::Detach => {
                self.attached = false;
                Outcome::Detached(Ok(()))
            }
            Action::ReleaseVolumes => {
                self.volumes = false;
                Outcome::Released(Ok(()))
            }
            Action::Purge => {
                assert!(self.containers.is_empty(), "purged with containers left");
                Outcome::Purged(Ok(()))
            }
        };
        self.fsm.done(outcome, self.now);
    }

    fn start(&mut self, start: Start) -> Outcome {
        let (container, id) = (start.container.clone(), start.id.clone());
        let live = |c: &&Container| matches!(c.state, ContainerState::Running { .. });
        assert!(
            !self.containers.values().filter(live).any(|c| c.labels.container == container),
            "two live containers of one name"
        );
        assert!(self.volumes, "started before the volumes were there");
        if let Some(error) = self.start_errors.get(&container) {
            return Outcome::Started { container, id, result: Err(error.clone()) };
        }
        self.next_pid += 1;
        let mut annotations = BTreeMap::new();
        annotations.insert(annotation::BACKOFF.to_owned(), start.backoff_s.to_string());
        let labels = ContainerLabels {
            pod_uid: "u1".into(),
            pod_namespace: "ns".into(),
            pod_name: "p".into(),
            container: container.clone(),
            attempt: start.attempt,
            annotations,
        };
        self.started.push((container.clone(), start.attempt));
        self.containers.insert(
            id.clone(),
            Container {
                id: id.clone(),
                labels,
                image: "img".into(),
                image_id: "img@sha256:1".into(),
                state: ContainerState::Running { pid: self.next_pid, started_at: self.now },
            },
        );
        Outcome::Started { container, id, result: Ok((self.next_pid, self.now)) }
    }

    /// The process of the container `id` ends.
    pub(super) fn end(&mut self, id: &str, code: i32) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let ContainerState::Running { started_at, .. } = container.state else {
            return;
        };
        let exit = Exit { code, started_at, finished_at: self.now, oom_killed: false };
        container.state = ContainerState::Exited(exit.clone());
        self.fsm.exited(id, &exit, String::new());
    }

    /// The running container of that name ends.
    pub(super) fn exit(&mut self, name: &str, code: i32) {
        let id = self.running(name).unwrap_or_else(|| panic!("{name} does not run"));
        self.end(&id, code);
    }

    pub(super) fn running(&self, name: &str) -> Option<String> {
        self.containers
            .values()
            .find(|c| c.labels.container == name && matches!(c.state, ContainerState::Running { .. }))
            .map(|c| c.id.clone())
    }

    pub(super) fn live(&self) -> Vec<String> {
        self.containers
            .values()
            .filter(|c| matches!(c.state, ContainerState::Running { .. }))
            .map(|c| c.labels.container.clone())
            .collect()
    }

    pub(super) fn delete(&mut self, grace: i64) {
        let mut pod = self.pod.clone();
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.pod = pod;
        self.fsm.update(Arc::new(self.pod.clone()), self.now);
    }

    /// A new agent that knows the server's object and the runtime's containers.
    pub(super) fn restart_agent(&mut self) {
        self.pending.clear();
        let host = vec!["10.0.0.1".parse().unwrap()];
        self.fsm = PodFsm::new(Arc::new(self.pod.clone()), host, self.now);
        let found = self
            .containers
            .values()
            .map(|c| Found { container: c.clone(), message: String::new() })
            .collect();
        self.fsm.adopt(found, self.attached, self.now);
    }

    pub(super) fn status(&self) -> &PodStatus {
        &self.last.as_ref().expect("stepped").status
    }

    pub(super) fn container(&self, name: &str) -> &ContainerStatus {
        let status = self.status();
        [&status.init_container_statuses, &status.container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .find(|s| s.name == name)
            .expect("has a status")
    }

    pub(super) fn waiting(&self, name: &str) -> String {
        let state = self.container(name).state.clone().unwrap_or_default();
        state.waiting.and_then(|w| w.reason).unwrap_or_default()
    }

    pub(super) fn phase(&self) -> &str {
        self.status().phase.as_deref().unwrap_or_default()
    }

    pub(super) fn condition(&self, type_: &str) -> String {
        let found = self.status().conditions.iter().flatten().find(|c| c.type_ == type_).cloned();
        found.map(|c| c.status).unwrap_or_default()
    }
}
