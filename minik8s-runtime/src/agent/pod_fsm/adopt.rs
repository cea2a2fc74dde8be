//! Going on where an earlier agent left off.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use super::backoff::CrashBackoff;
use super::ending::Cause;
use super::instance::{Attempt, Ended, Instance, Phase, PostStart, Role, public_id};
use super::{PodFsm, Terminal, annotation, grace, spec};
use crate::runtime::{Container, ContainerState};

/// A container found in the runtime, with its last words if it has ended.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// As the runtime has it.
    pub(crate) container: Container,
    /// Its termination message.
    pub(crate) message: String,
}

impl PodFsm {
    /// Takes over what runs. `attached` says whether the pod's network is still there.
    pub(crate) fn adopt(&mut self, found: Vec<Found>, attached: bool, now: Timestamp) {
        let status = self.pod.status.clone().unwrap_or_default();
        if !found.is_empty() && !attached && !self.host_network() {
            self.sandbox_since = Some(now);
        }
        let statuses = || {
            [
                &status.init_container_statuses,
                &status.container_statuses,
                &status.ephemeral_container_statuses,
            ]
            .into_iter()
            .flatten()
            .flatten()
        };
        let pod_grace = grace(spec(&self.pod)).max(1);
        for instance in &mut self.instances {
            let mut attempts: Vec<&Found> =
                found.iter().filter(|f| f.container.labels.container == instance.name()).collect();
            attempts.sort_by_key(|f| f.container.labels.attempt);
            let published = statuses().find(|s| s.name == instance.name());
            for attempt in attempts {
                instance.adopt(attempt, published);
            }
            if let Some(published) = published {
                instance.recall(published, now);
            }
            if self.sandbox_since.is_some()
                && let Some(attempt) = instance.current.as_mut().filter(|a| a.is_running())
            {
                // It runs in a network that is no longer the pod's.
                attempt.begin_stop(now + jiff::SignedDuration::from_secs(pod_grace), true);
            }
        }
        self.addresses = status
            .pod_ips
            .iter()
            .flatten()
            .filter_map(|ip| ip.ip.parse().ok())
            .chain(status.pod_ip.iter().filter(|_| status.pod_ips.is_none()).filter_map(|ip| ip.parse().ok()))
            .collect();
        let was_initialized =
            status.conditions.iter().flatten().any(|c| c.type_ == "Initialized" && c.status == "True");
        let main_ran = self.instances.iter().any(|i| i.role == Role::Main && i.current.is_some());
        self.initialized = self.sandbox_since.is_none() && (was_initialized || main_ran);
    }

    /// A pod that was at its end stays there.
    pub(super) fn restore_terminal(&mut self, status: &PodStatus, now: Timestamp) {
        let phase = match status.phase.as_deref() {
            Some("Succeeded") => "Succeeded",
            Some("Failed") => "Failed",
            _ => return,
        };
        self.terminal = Some(Terminal {
            phase,
            reason: status.reason.clone().unwrap_or_default(),
            message: status.message.clone().unwrap_or_default(),
        });
        self.end(Cause::Completed, grace(spec(&self.pod)), now);
    }
}

impl Instance {
    fn adopt(&mut self, found: &Found, published: Option<&ContainerStatus>) {
        let container = &found.container;
        let annotations = &container.labels.annotations;
        let text = |key: &str| annotations.get(key).cloned().unwrap_or_default();
        let same = published.filter(|p| p.container_id.as_deref() == Some(&public_id(&container.id)));
        let told = told_end(published, &container.id);
        let phase = match &container.state {
            // One that could not be started looks just like one that was never tried: the status knows.
            ContainerState::Created => told.map_or(Phase::Created, Phase::Ended),
            ContainerState::Running { pid, started_at } => {
                Phase::Running { pid: *pid, started_at: *started_at }
            }
            ContainerState::Exited(exit) => Phase::Ended(Ended::of(exit, found.message.clone())),
        };
        let since = match &phase {
            Phase::Running { started_at, .. } => *started_at,
            Phase::Ended(Ended { started_at: Some(at), .. }) => *at,
            _ => Timestamp::UNIX_EPOCH,
        };
        self.crash = CrashBackoff::resumed(text(annotation::BACKOFF).parse().unwrap_or(0), since);
        let image = text(annotation::IMAGE);
        self.push(Attempt {
            id: container.id.clone(),
            number: container.labels.attempt,
            image_id: container.image_id.clone(),
            spec_image: image,
            stop_signal: text(annotation::STOP_SIGNAL),
            phase,
            // Whether it ran is not known; running it twice is the worse of the two errors.
            post_start: PostStart::Done,
            startup_passed: self.spec.startup_probe.is_none()
                || same.is_some_and(|s| s.started == Some(true)),
            probe_ready: same.is_some_and(|s| s.ready),
            stop: None,
            present: true,
            gone: false,
        });
    }

    /// Fills in from the published status what the runtime has forgotten.
    fn recall(&mut self, published: &ContainerStatus, now: Timestamp) {
        let count = u32::try_from(published.restart_count).unwrap_or(0);
        let state = published.state.as_ref();
        let last = published.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        // Attempts are removed from either end: the status may know of a newer one than the runtime.
        let outdated = self.current.as_ref().is_none_or(|a| a.number < count && !a.is_running());
        if outdated {
            let ended = if let Some(terminated) = state.and_then(|s| s.terminated.as_ref()) {
                Some((Ended::from_state(terminated), terminated.container_id.clone()))
            } else if let Some(running) = state.and_then(|s| s.running.as_ref()) {
                let started = running.started_at.as_ref().map(|t| t.0);
                Some((Ended::lost(started, now), published.container_id.clone()))
            } else {
                last.map(|t| (Ended::from_state(t), t.container_id.clone()))
            };
            let Some((ended, id)) = ended else { return };
            self.push(absent(count, id, ended, published));
        }
        if self.previous.is_none()
            && let Some(last) = last
            && let Some(current) = &self.current
            && current.number > 0
            && current.number == count
            && last.container_id.as_deref() != Some(&public_id(&current.id))
        {
            let ended = Ended::from_state(last);
            self.previous = Some(absent(count - 1, last.container_id.clone(), ended, published));
        }
    }
}

/// The end that the status tells of the container `id`.
fn told_end(published: Option<&ContainerStatus>, id: &str) -> Option<Ended> {
    let published = published?;
    [&published.state, &published.last_state]
        .into_iter()
        .filter_map(|s| s.as_ref()?.terminated.as_ref())
        .find(|t| t.container_id.as_deref() == Some(&public_id(id)))
        .map(Ended::from_state)
}

/// An attempt that only the status remembers.
fn absent(number: u32, id: Option<String>, ended: Ended, published: &ContainerStatus) -> Attempt {
    let id = id.unwrap_or_default();
    Attempt {
        id: id.strip_prefix("containerd://").unwrap_or(&id).to_owned(),
        number,
        image_id: published.image_id.clone(),
        spec_image: String::new(),
        stop_signal: String::new(),
        phase: Phase::Ended(ended),
        post_start: PostStart::Done,
        startup_passed: false,
        probe_ready: false,
        stop: None,
        present: false,
        gone: false,
    }
}
