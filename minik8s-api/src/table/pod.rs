//! Pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use super::{NONE, age, columns, name, row, text};
use crate::kind::{Cell, Column, human_duration};

pub(crate) fn columns() -> Vec<Column> {
    columns![
        "Ready" "How many of the containers are ready.",
        "Status" "What the pod is doing, or why it is not.",
        "Restarts" "How often containers were restarted, and when last.",
        "Age" "How long ago the object was created.",
        "IP" "The address of the pod.": wide,
        "Node" "The node that runs the pod.": wide,
        "Nominated Node" "The node that makes room for the pod.": wide,
        "Readiness Gates" "How many of the further conditions of readiness hold.": wide,
    ]
}

pub(crate) fn row(pod: &Pod, now: Timestamp) -> Vec<Cell> {
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let spec = pod.spec.as_ref();
    let summary = summarize(pod, status);
    let restarts = match summary.restarts.last {
        Some(last) if summary.restarts.count > 0 => {
            let ago = human_duration(now.as_second() - last.as_second());
            format!("{} ({ago} ago)", summary.restarts.count)
        }
        _ => summary.restarts.count.to_string(),
    };
    let gates = spec.and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    let open =
        gates.iter().filter(|g| condition(status, &g.condition_type).is_some_and(|c| c == "True")).count();
    let ip = status.pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.as_str());
    row![
        name(&pod.metadata),
        format!("{}/{}", summary.ready, summary.total),
        summary.word,
        restarts,
        age(&pod.metadata, now),
        text(ip.or(status.pod_ip.as_deref()), NONE),
        text(spec.and_then(|s| s.node_name.as_deref()), NONE),
        text(status.nominated_node_name.as_deref(), NONE),
        if gates.is_empty() { NONE.to_owned() } else { format!("{open}/{}", gates.len()) },
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    word: String,
    restarts: Restarts,
}

#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += container.restart_count;
        let before = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        self.last = self.last.max(before.and_then(|t| t.finished_at.as_ref()).map(|t| t.0));
    }
}

fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<&'a str> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_).map(|c| c.status.as_str())
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn summarize(pod: &Pod, status: &PodStatus) -> Summary {
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or_default();
    let total = spec.map_or(0, |s| s.containers.len()) + inits.iter().filter(|c| is_sidecar(c)).count();
    let gated = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated"));
    let word = match status.reason.as_deref() {
        _ if gated => "SchedulingGated",
        Some(reason) if !reason.is_empty() => reason,
        _ => phase,
    };
    let mut summary = Summary { ready: 0, total, word: word.to_owned(), restarts: Restarts::default() };

    let mut of_sidecars = Restarts::default();
    let mut initializing = false;
    for (i, container) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar = inits.iter().any(|c| c.name == container.name && is_sidecar(c));
        summary.restarts.add(container);
        if sidecar {
            of_sidecars.add(container);
        }
        if let Some(word) = init_word(container, sidecar, i, inits.len()) {
            summary.word = word;
            initializing = true;
            break;
        }
        summary.ready += usize::from(sidecar && container.ready);
    }
    if !initializing || condition(status, "Initialized") == Some("True") {
        summary.restarts = of_sidecars;
        let mut running = false;
        // Backwards, so that the first container's word is the one that stays.
        for container in status.container_statuses.iter().flatten().rev() {
            summary.restarts.add(container);
            let state = container.state.as_ref();
            let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref());
            let terminated = state.and_then(|s| s.terminated.as_ref());
            if let Some(reason) = waiting.filter(|r| !r.is_empty()) {
                summary.word = reason.to_owned();
            } else if let Some(end) = terminated {
                summary.word = match (end.reason.as_deref().unwrap_or_default(), end.signal.unwrap_or(0)) {
                    ("", 0) => format!("ExitCode:{}", end.exit_code),
                    ("", signal) => format!("Signal:{signal}"),
                    (reason, _) => reason.to_owned(),
                };
            } else if container.ready && state.is_some_and(|s| s.running.is_some()) {
                running = true;
                summary.ready += 1;
            }
        }
        if summary.word == "Completed" && running {
            let ready = condition(status, "Ready") == Some("True");
            summary.word = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason.as_deref() == Some("NodeLost") {
            summary.word = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.word = "Terminating".to_owned();
        }
    }
    summary
}

/// What an init container says of the pod; nothing if it is done, or is a sidecar that has started.
fn init_word(container: &ContainerStatus, sidecar: bool, i: usize, count: usize) -> Option<String> {
    let state = container.state.as_ref();
    let terminated = state.and_then(|s| s.terminated.as_ref());
    if terminated.is_some_and(|t| t.exit_code == 0) || (sidecar && container.started == Some(true)) {
        return None;
    }
    let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref());
    Some(match (terminated, waiting) {
        (Some(end), _) => match (end.reason.as_deref().unwrap_or_default(), end.signal.unwrap_or(0)) {
            ("", 0) => format!("Init:ExitCode:{}", end.exit_code),
            ("", signal) => format!("Init:Signal:{signal}"),
            (reason, _) => format!("Init:{reason}"),
        },
        (None, Some(reason)) if !reason.is_empty() && reason != "PodInitializing" => {
            format!("Init:{reason}")
        }
        _ => format!("Init:{i}/{count}"),
    })
}
