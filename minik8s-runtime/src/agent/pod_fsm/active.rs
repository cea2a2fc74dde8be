//! Bringing a pod up and keeping it up.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::ending::Cause;
use super::instance::{Attempt, Ended, ImageState, Instance, Phase, PostStart, Role};
use super::{Action, Hook, Plan, PodFsm, Start, Terminal, grace, spec};

/// How long a failed pull is called that before it is called a back-off.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);

impl PodFsm {
    pub(super) fn plan_active(&mut self, plan: &mut Plan) {
        if self.past_deadline(plan) {
            let grace = grace(spec(&self.pod));
            self.terminal = Some(Terminal {
                phase: "Failed",
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
            });
            self.note(true, "DeadlineExceeded", "Pod was active longer than its deadline".to_owned(), None);
            self.end(Cause::Deadline, grace, plan.now);
            return;
        }
        if self.is_complete() {
            self.end(Cause::Completed, grace(spec(&self.pod)), plan.now);
            return;
        }
        for index in 0..self.instances.len() {
            self.tend(index, plan);
        }
        if !self.set_up(plan) {
            return;
        }
        if !self.initialized && !self.run_inits(plan) {
            return;
        }
        self.initialized = true;
        for index in 0..self.instances.len() {
            if self.instances[index].role != Role::Init {
                self.keep_running(index, plan);
            }
        }
    }

    fn past_deadline(&self, plan: &mut Plan) -> bool {
        let Some(seconds) = spec(&self.pod).active_deadline_seconds else {
            return false;
        };
        let end = self.start_time + SignedDuration::from_secs(seconds.clamp(0, 1 << 32));
        if end > plan.now {
            plan.wake(end);
        }
        end <= plan.now
    }

    /// Whether no container will ever be started again.
    fn is_complete(&self) -> bool {
        let failed_init = self.instances.iter().any(|i| {
            i.role == Role::Init && !self.must_repeat(i.ended()) && i.is_finished() && !i.is_ready()
        });
        let mut mains = self.instances.iter().filter(|i| i.role == Role::Main).peekable();
        failed_init || (mains.peek().is_some() && mains.all(Instance::is_finished))
    }

    /// Directories, volumes and network; whether they are there.
    fn set_up(&mut self, plan: &mut Plan) -> bool {
        let now = plan.now;
        let mut wakes = Vec::new();
        if self.prepare.start(now, &mut |at| wakes.push(at)) {
            plan.actions.push(Action::Prepare);
        }
        let network = self.host_network() || self.attach.done;
        if !network && self.attach.start(now, &mut |at| wakes.push(at)) {
            plan.actions.push(Action::Attach);
        }
        wakes.into_iter().for_each(|at| plan.wake(at));
        self.prepare.done && network
    }

    /// What a running container needs, whatever the pod as a whole is at.
    fn tend(&mut self, index: usize, plan: &mut Plan) {
        let now = plan.now;
        let pod_grace = grace(spec(&self.pod)).max(1);
        let instance = &mut self.instances[index];
        let name = instance.name().to_owned();
        let wanted = instance.spec.image.clone().unwrap_or_default();
        let fixed = matches!(instance.role, Role::Ephemeral);
        let mut redefined = false;
        let Some(attempt) = instance.current.as_mut().filter(|a| a.is_running()) else {
            return;
        };
        if attempt.post_start == PostStart::Due && attempt.stop.is_none() {
            attempt.post_start = PostStart::Running;
            plan.actions.push(Action::Hook {
                container: name.clone(),
                id: attempt.id.clone(),
                hook: Hook::PostStart,
            });
        }
        let changed = !attempt.spec_image.is_empty() && attempt.spec_image != wanted && !fixed;
        if changed && attempt.stop.is_none() {
            attempt.begin_stop(now + SignedDuration::from_secs(pod_grace), true);
            redefined = true;
        }
        if redefined {
            let message = format!("Container {name} definition changed, will be restarted");
            self.note(false, "Killing", message, Some(name));
        }
        self.drive_stop(index, plan);
    }

    /// Init containers one after the other; whether all are through.
    fn run_inits(&mut self, plan: &mut Plan) -> bool {
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            let passed = match instance.role {
                Role::Init => {
                    !instance.is_running()
                        && instance.starting.is_none()
                        && instance.ended().is_some_and(|e| e.code == 0)
                        && !self.must_repeat(instance.ended())
                }
                Role::Sidecar => instance.is_started(),
                Role::Main | Role::Ephemeral => continue,
            };
            if !passed || instance.role == Role::Sidecar {
                self.keep_running(index, plan);
            }
            if !passed {
                return false;
            }
        }
        true
    }

    /// Whether what this init container did has been lost since.
    fn must_repeat(&self, ended: Option<&Ended>) -> bool {
        match (ended, self.sandbox_since) {
            (Some(ended), Some(since)) => ended.finished_at < since,
            _ => false,
        }
    }

    /// Starts the container if it is not running and should be.
    fn keep_running(&mut self, index: usize, plan: &mut Plan) {
        let now = plan.now;
        let repeat =
            self.instances[index].role == Role::Init && self.must_repeat(self.instances[index].ended());
        if self.instances[index].is_running()
            || self.instances[index].starting.is_some()
            || (self.instances[index].is_finished() && !repeat)
        {
            return;
        }
        if !repeat && self.backs_off(index, plan) {
            return;
        }
        let instance = &mut self.instances[index];
        match instance.image.clone() {
            ImageState::Pending => {}
            ImageState::Unknown => {
                if let (Some(due), Some(failed)) = (instance.pull.due(), instance.pull.failed_at())
                    && due > now
                {
                    plan.wake(due);
                    if let Some(waiting) = instance.waiting.as_mut().filter(|w| w.reason == "ErrImagePull") {
                        let shown = failed + PULL_ERROR_SHOWN;
                        if now < shown {
                            plan.wake(shown);
                        } else {
                            let image = instance.spec.image.as_deref().unwrap_or_default();
                            waiting.message = format!(
                                "Back-off pulling image \"{image}\": ErrImagePull: {}",
                                waiting.message
                            );
                            waiting.reason = "ImagePullBackOff";
                        }
                    }
                    return;
                }
                instance.image = ImageState::Pending;
                instance.waiting = None;
                plan.actions.push(Action::EnsureImage { container: instance.name().to_owned() });
            }
            ImageState::Here(image) => {
                if let Some(due) = instance.create.due()
                    && due > now
                {
                    plan.wake(due);
                    return;
                }
                let Some(join_pid) = self.namespaces(index) else {
                    return;
                };
                let uid = self.pod.metadata.uid.clone().unwrap_or_default();
                let instance = &mut self.instances[index];
                let attempt = instance.next_attempt();
                let id = container_id(&uid, instance.name(), attempt);
                instance.count_restart(now);
                instance.starting = Some((id.clone(), attempt, join_pid));
                plan.actions.push(Action::Start(Box::new(Start {
                    container: instance.name().to_owned(),
                    attempt,
                    id,
                    join_pid,
                    image,
                    backoff_s: instance.crash.stored_s(),
                })));
            }
        }
    }

    /// Whether the container must wait out its restart delay.
    fn backs_off(&mut self, index: usize, plan: &mut Plan) -> bool {
        let pod = &self.pod.metadata;
        let place = format!(
            "{}_{}({})",
            pod.name.as_deref().unwrap_or_default(),
            pod.namespace.as_deref().unwrap_or_default(),
            pod.uid.as_deref().unwrap_or_default()
        );
        let instance = &mut self.instances[index];
        if instance.current.as_ref().is_some_and(|a| a.stop.is_some_and(|s| s.redefine)) {
            return false;
        }
        // Once its image is being fetched or its start retried, the delay is behind it.
        if instance.image != ImageState::Unknown || instance.pull.due().is_some() {
            return false;
        }
        let Some(finished) = instance.ended().map(|e| e.finished_at) else {
            return false;
        };
        let Some(delay) = instance.crash.delay(finished) else {
            return false;
        };
        let due = finished + delay;
        if due <= plan.now {
            return false;
        }
        plan.wake(due);
        let message = format!(
            "back-off {} restarting failed container={} pod={place}",
            go_duration(delay.as_secs()),
            instance.name()
        );
        let fresh = instance.waiting.as_ref().is_none_or(|w| w.reason != "CrashLoopBackOff");
        instance.wait("CrashLoopBackOff", message.clone());
        if fresh {
            let name = instance.name().to_owned();
            let message = format!("Back-off restarting failed container {name}");
            self.note(true, "BackOff", message, Some(name));
        }
        true
    }

    /// The process whose namespaces the container is to join (`Some(None)`: it makes them), or `None` if it has to
    /// wait until the container that makes them is up.
    fn namespaces(&self, index: usize) -> Option<Option<u32>> {
        if let Some(target) = &self.instances[index].target {
            let target = self.instances.iter().find(|i| i.name() == target)?;
            return target.current.as_ref().and_then(Attempt::pid).map(Some);
        }
        let running = |stopping: bool| {
            self.instances
                .iter()
                .filter(|i| i.target.is_none())
                .filter_map(|i| i.current.as_ref())
                .filter(|a| a.stop.is_some() == stopping)
                .find_map(Attempt::pid)
        };
        if let Some(pid) = running(false).or_else(|| running(true)) {
            return Some(Some(pid));
        }
        self.instances.iter().all(|i| i.starting.is_none()).then_some(None)
    }
}

/// The id of a container: the same for the same attempt, so that making it twice makes one.
pub(crate) fn container_id(pod_uid: &str, name: &str, attempt: u32) -> String {
    let digest = Sha256::digest(format!("{pod_uid}/{name}/{attempt}"));
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// `10s`, `2m40s`, `5m0s`.
fn go_duration(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

impl Instance {
    /// Notes that the newest attempt is being followed by another one; once each.
    fn count_restart(&mut self, now: Timestamp) {
        let Some(current) = &self.current else { return };
        if let Phase::Ended(ended) = &current.phase
            && self.counted != Some(current.number)
        {
            self.counted = Some(current.number);
            self.crash.restarted(ended.finished_at, now);
        }
    }
}
