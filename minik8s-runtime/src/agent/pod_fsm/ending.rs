//! Ending a pod: hooks, signals, sidecars last, then everything that belonged to it.

use jiff::{SignedDuration, Timestamp};

use super::instance::{Attempt, Call, KILL_AGAIN, LEAST_GRACE, PreStop, Role};
use super::{Action, Hook, Plan, PodFsm};

/// Why a pod ends. Later ones override earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// Its containers are through, or the node refused it: the object stays, with its logs.
    Completed,
    /// It ran longer than it may: likewise.
    Deadline,
    /// Its deletion was asked for.
    Deleted,
    /// Its object is gone already.
    Gone,
}

/// A pod on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) cause: Cause,
    /// When patience with its containers ends.
    pub(super) kill_at: Timestamp,
}

impl PodFsm {
    /// Ends the pod within `grace` seconds. A second call can only make it quicker and more final.
    pub(super) fn end(&mut self, cause: Cause, grace: i64, now: Timestamp) {
        let kill_at = now + SignedDuration::from_secs(grace.clamp(1, 1 << 32));
        match &mut self.ending {
            Some(ending) => {
                if cause > ending.cause {
                    ending.cause = cause;
                    ending.kill_at = ending.kill_at.min(kill_at);
                } else if cause == ending.cause && cause == Cause::Deleted && kill_at < ending.kill_at {
                    // Every update of a pod that is being deleted comes here; only a shorter grace may change it.
                    ending.kill_at = kill_at;
                }
            }
            None => self.ending = Some(Ending { cause, kill_at }),
        }
    }

    pub(super) fn plan_ending(&mut self, plan: &mut Plan) {
        let Some(ending) = self.ending else { return };
        self.stop_containers(ending, plan);
        let quiet = self.instances.iter().all(|i| !i.is_running() && i.starting.is_none());
        if !quiet || self.prepare.running || self.attach.running {
            return;
        }
        let removal = ending.cause >= Cause::Deleted;
        if !self.host_network() {
            begin(&mut self.detach, plan, Action::Detach);
        }
        begin(&mut self.release, plan, Action::ReleaseVolumes);
        if !removal {
            return;
        }
        for instance in &mut self.instances {
            for attempt in [&mut instance.current, &mut instance.previous].into_iter().flatten() {
                if attempt.present {
                    attempt.present = false;
                    instance.stale.insert(attempt.id.clone(), Call::default());
                }
            }
        }
        let removed = self.instances.iter().all(|i| i.stale.is_empty());
        if removed && self.release.done && (self.detach.done || self.host_network()) {
            begin(&mut self.purge, plan, Action::Purge);
        }
    }

    fn stop_containers(&mut self, ending: Ending, plan: &mut Plan) {
        let now = plan.now;
        // Mains, plain init containers and ephemeral ones go first, then sidecars from the last to the first; each
        // waits for the ones before it, but not longer than the pod's grace.
        let mut others_up = self
            .instances
            .iter()
            .any(|i| i.role != Role::Sidecar && (i.is_running() || i.starting.is_some()));
        for index in 0..self.instances.len() {
            if self.instances[index].role != Role::Sidecar {
                self.stop(index, ending.kill_at, plan);
            }
        }
        for index in (0..self.instances.len()).rev() {
            let instance = &self.instances[index];
            if instance.role != Role::Sidecar {
                continue;
            }
            let up = instance.is_running() || instance.starting.is_some();
            if !others_up || now >= ending.kill_at {
                // A stop in progress keeps its earlier end.
                self.stop(index, ending.kill_at.max(now + LEAST_GRACE), plan);
            } else if up {
                plan.wake(ending.kill_at);
            }
            others_up |= up;
        }
    }

    /// Stops one container, and goes on with stopping it.
    fn stop(&mut self, index: usize, kill_at: Timestamp, plan: &mut Plan) {
        let name = self.instances[index].name().to_owned();
        let Some(attempt) = self.instances[index].current.as_mut().filter(|a| a.is_running()) else {
            return;
        };
        let first = attempt.stop.is_none();
        attempt.begin_stop(kill_at, false);
        if first {
            self.note(false, "Killing", format!("Stopping container {name}"), Some(name));
        }
        self.drive_stop(index, plan);
    }

    /// The next step of a stop in progress.
    pub(super) fn drive_stop(&mut self, index: usize, plan: &mut Plan) {
        let now = plan.now;
        let instance = &mut self.instances[index];
        let lifecycle = instance.spec.lifecycle.clone();
        let name = instance.name().to_owned();
        let Some(attempt) = instance.current.as_mut().filter(|a| a.is_running()) else {
            return;
        };
        let signal = stop_signal(attempt, lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref()));
        let id = attempt.id.clone();
        let Some(stop) = attempt.stop.as_mut() else { return };
        if stop.pre_stop == PreStop::Due {
            if lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some()) && now < stop.kill_at {
                stop.pre_stop = PreStop::Running;
                plan.actions.push(Action::Hook { container: name, id: id.clone(), hook: Hook::PreStop });
            } else {
                stop.pre_stop = PreStop::Done;
            }
        }
        if stop.pre_stop == PreStop::Running {
            if now < stop.kill_at {
                plan.wake(stop.kill_at);
                return;
            }
            stop.pre_stop = PreStop::Done;
            stop.not_before = Some(now + LEAST_GRACE);
        }
        if !stop.signalled {
            stop.signalled = true;
            plan.actions.push(Action::Signal { id: id.clone(), signal });
        }
        let kill_at = stop.not_before.map_or(stop.kill_at, |floor| floor.max(stop.kill_at));
        match stop.next_kill {
            None if now >= kill_at => {
                stop.next_kill = Some(now + KILL_AGAIN);
                plan.actions.push(Action::Signal { id, signal: nix::libc::SIGKILL });
                plan.wake(now + KILL_AGAIN);
            }
            None => plan.wake(kill_at),
            Some(next) if now >= next => {
                // Either the signal or the news of the end got lost.
                stop.next_kill = Some(now + KILL_AGAIN);
                plan.actions.push(Action::Signal { id: id.clone(), signal: nix::libc::SIGKILL });
                plan.actions.push(Action::Inspect { id });
                plan.wake(now + KILL_AGAIN);
            }
            Some(next) => plan.wake(next),
        }
    }
}

fn begin(call: &mut Call, plan: &mut Plan, action: Action) {
    let mut wake = None;
    if call.start(plan.now, &mut |at| wake = Some(at)) {
        plan.actions.push(action);
    }
    if let Some(at) = wake {
        plan.wake(at);
    }
}

/// The signal's number: what the pod says, else what the image says, else SIGTERM.
fn stop_signal(attempt: &Attempt, wanted: Option<&str>) -> i32 {
    wanted
        .and_then(signal_number)
        .or_else(|| signal_number(&attempt.stop_signal))
        .unwrap_or(nix::libc::SIGTERM)
}

/// The number of `SIGQUIT`, `QUIT` or `3`.
fn signal_number(text: &str) -> Option<i32> {
    let text = text.trim().to_uppercase();
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = if text.starts_with("SIG") { text } else { format!("SIG{text}") };
    if let Some(offset) = name.strip_prefix("SIGRTMIN+") {
        return offset.parse::<i32>().ok().map(|n| 34 + n).filter(|n| *n <= 64);
    }
    name.parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

#[cfg(test)]
mod signals {
    use super::signal_number;

    #[test]
    fn images_name_signals_in_several_ways() {
        assert_eq!(signal_number("SIGQUIT"), Some(3));
        assert_eq!(signal_number("quit"), Some(3));
        assert_eq!(signal_number("3"), Some(3));
        assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
        assert_eq!(signal_number(""), None);
        assert_eq!(signal_number("99"), None);
    }
}
