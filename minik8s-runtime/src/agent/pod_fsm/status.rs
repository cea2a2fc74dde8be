//! The status that a pod shows.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, HostIP, PodIP, PodStatus,
};

use super::instance::{Attempt, Instance, Phase, Policy, PostStart, Role, public_id, seconds};
use super::{Plan, PodFsm, conditions, spec};
use crate::agent::qos;

impl PodFsm {
    pub(super) fn status(&mut self, plan: &mut Plan) -> PodStatus {
        let phase = self.phase();
        self.conditions = self.next_conditions(phase, plan.now);
        let statuses = |role: fn(Role) -> bool| -> Option<Vec<ContainerStatus>> {
            let list: Vec<_> =
                self.instances.iter().filter(|i| role(i.role)).map(|i| self.container_status(i)).collect();
            (!list.is_empty()).then_some(list)
        };
        let rejected = self.terminal.is_some() && self.instances.iter().all(|i| i.current.is_none());
        let ips: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        let host_ips: Vec<String> = self.host_ips.iter().map(ToString::to_string).collect();
        // A pod on the node's network has the node's addresses once something runs there.
        let show_ips =
            !self.host_network() || self.prepare.done || self.instances.iter().any(|i| i.current.is_some());
        let mut status = PodStatus {
            phase: Some(phase.to_owned()),
            conditions: Some(self.conditions.clone()),
            host_ip: host_ips.first().cloned(),
            host_ips: (!host_ips.is_empty())
                .then(|| host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
            start_time: Some(seconds(self.start_time)),
            qos_class: Some(qos::class(spec(&self.pod)).name().to_owned()),
            observed_generation: self.pod.metadata.generation,
            ..PodStatus::default()
        };
        if show_ips && !ips.is_empty() {
            status.pod_ip = ips.first().cloned();
            status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
        }
        if !rejected {
            status.init_container_statuses = statuses(|r| matches!(r, Role::Init | Role::Sidecar));
            status.container_statuses = statuses(|r| r == Role::Main);
            status.ephemeral_container_statuses = statuses(|r| r == Role::Ephemeral);
        }
        if let Some(terminal) = self.terminal.as_ref().filter(|t| t.phase == phase) {
            status.reason = (!terminal.reason.is_empty()).then(|| terminal.reason.clone());
            status.message = (!terminal.message.is_empty()).then(|| terminal.message.clone());
        }
        status
    }

    /// `Succeeded` and `Failed` only once nothing runs any more.
    pub(super) fn phase(&self) -> &'static str {
        let up = self.instances.iter().any(|i| i.is_running() || i.starting.is_some());
        if let Some(terminal) = self.terminal.as_ref().filter(|_| !up) {
            return terminal.phase;
        }
        let inits_done = self.initialized
            || self.instances.iter().all(|i| match i.role {
                Role::Init => i.is_ready(),
                Role::Sidecar => i.is_started(),
                _ => true,
            });
        let failed_init =
            self.instances.iter().any(|i| i.role == Role::Init && i.is_finished() && !i.is_ready());
        if failed_init && !self.initialized && !up {
            return "Failed";
        }
        let mains = || self.instances.iter().filter(|i| i.role == Role::Main);
        let never_ran =
            mains().filter(|i| i.current.as_ref().is_none_or(|a| a.phase == Phase::Created)).count();
        let ended: Vec<i32> = mains().filter_map(|i| i.ended().map(|e| e.code)).collect();
        let total = mains().count();
        if self.ending.is_some() && !up && never_ran < total {
            // Nothing will run again, whatever the policy would have said.
            let good = never_ran == 0 && ended.iter().all(|code| *code == 0);
            return if good { "Succeeded" } else { "Failed" };
        }
        if !inits_done || never_ran > 0 {
            return "Pending";
        }
        if mains().any(Instance::is_running) || up {
            return "Running";
        }
        let policy = Policy::parse(spec(&self.pod).restart_policy.as_deref().unwrap_or_default());
        match policy {
            _ if !mains().all(Instance::is_finished) => "Running",
            Policy::Always => "Running",
            _ if ended.iter().all(|code| *code == 0) => "Succeeded",
            _ => "Failed",
        }
    }

    fn container_status(&self, instance: &Instance) -> ContainerStatus {
        let current = instance.current.as_ref().filter(|a| a.phase != Phase::Created);
        let previous = if current.is_some() { instance.previous.as_ref() } else { None };
        let last = |a: Option<&Attempt>| a.and_then(|a| a.ended().map(|e| e.state(&a.id)));
        let waiting =
            instance.waiting.as_ref().filter(|_| !instance.is_finished() && self.terminal.is_none());
        let (state, last_state) = match (current, waiting) {
            (Some(a), _) if a.is_running() && a.post_start == PostStart::Done => {
                let started_at = match a.phase {
                    Phase::Running { started_at, .. } => Some(seconds(started_at)),
                    _ => None,
                };
                let running = Some(ContainerStateRunning { started_at });
                (ContainerState { running, ..ContainerState::default() }, last(previous))
            }
            // Its postStart hook has yet to return.
            (Some(a), _) if a.is_running() => (self.creating(instance), last(previous)),
            (current, Some(waiting)) => {
                let waiting = Some(ContainerStateWaiting {
                    reason: Some(waiting.reason.to_owned()),
                    message: (!waiting.message.is_empty()).then(|| waiting.message.clone()),
                });
                (ContainerState { waiting, ..ContainerState::default() }, last(current))
            }
            (Some(a), None) => (last(Some(a)).unwrap_or_default(), last(previous)),
            (None, None) => (self.creating(instance), None),
        };
        ContainerStatus {
            name: instance.name().to_owned(),
            image: instance.spec.image.clone().unwrap_or_default(),
            image_id: current.map(|a| a.image_id.clone()).unwrap_or_default(),
            container_id: current.map(|a| public_id(&a.id)),
            restart_count: current.map_or(0, |a| i32::try_from(a.number).unwrap_or(i32::MAX)),
            ready: instance.is_ready(),
            started: Some(instance.is_started()),
            state: Some(state),
            last_state,
            ..ContainerStatus::default()
        }
    }

    fn creating(&self, instance: &Instance) -> ContainerState {
        let has_inits = self.instances.iter().any(|i| matches!(i.role, Role::Init | Role::Sidecar));
        let next_up = matches!(instance.role, Role::Init | Role::Sidecar)
            && self
                .instances
                .iter()
                .filter(|i| matches!(i.role, Role::Init | Role::Sidecar))
                .find(|i| !(if i.role == Role::Init { i.is_ready() } else { i.is_started() }))
                .is_some_and(|first| first.name() == instance.name());
        let initializing = has_inits && !self.initialized && !(next_up && self.is_set_up());
        let reason = if initializing { "PodInitializing" } else { "ContainerCreating" };
        ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message: None }),
            ..ContainerState::default()
        }
    }

    /// Volumes and network are there, and nobody is taking them away. What runs needs them, so they are.
    pub(super) fn is_set_up(&self) -> bool {
        if self.instances.iter().any(Instance::is_running) {
            return true;
        }
        let network = self.host_network() || (self.attach.done && !self.detach.running && !self.detach.done);
        self.prepare.done && network && !self.release.done
    }

    fn next_conditions(
        &self,
        phase: &str,
        now: jiff::Timestamp,
    ) -> Vec<k8s_openapi::api::core::v1::PodCondition> {
        conditions::update(&self.conditions, self.condition_facts(phase), now)
    }
}
