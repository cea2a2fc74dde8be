//! What a pod's status says.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// One container of a pod, as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// containerd's id.
    pub id: String,
    /// How often it was restarted.
    pub restarts: i32,
    /// Its process, as the node numbers it.
    pub pid: u32,
}

/// The status of the container (an init container too) that is called `name`.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [status.init_container_statuses.as_ref(), status.container_statuses.as_ref()];
    all.into_iter().flatten().flatten().find(|c| c.name == name)
}

/// Whether the condition `type_` is true.
pub fn condition(pod: &Pod, type_: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == type_ && c.status == "True")
}

/// Whether the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready")
}

/// How often the container was restarted.
pub fn restarts(pod: &Pod, name: &str) -> i32 {
    container(pod, name).map_or(0, |c| c.restart_count)
}

/// Why the container waits, if it does.
pub fn waiting_reason<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    container(pod, name)?.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// The exit code of a container that has ended, and why it did.
pub fn exit_code<'a>(pod: &'a Pod, name: &str) -> Option<(i32, &'a str)> {
    let ended = container(pod, name)?.state.as_ref()?.terminated.as_ref()?;
    Some((ended.exit_code, ended.reason.as_deref().unwrap_or_default()))
}
