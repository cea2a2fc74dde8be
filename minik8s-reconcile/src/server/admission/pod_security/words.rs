//! What is said about violations, and what all checks look at.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EphemeralContainer, Lifecycle, PodSpec, Probe, SecurityContext,
};

/// Something that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: String,
    pub(super) detail: String,
}

impl Violation {
    pub(super) fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

/// What of a container the checks look at, of whichever sort it is.
pub(super) struct Seen<'a> {
    pub(super) name: &'a str,
    pub(super) ports: &'a [ContainerPort],
    pub(super) probes: [Option<&'a Probe>; 3],
    pub(super) lifecycle: Option<&'a Lifecycle>,
    security: Option<&'a SecurityContext>,
}

impl<'a> Seen<'a> {
    pub(super) fn security<T>(&self, field: impl FnOnce(&'a SecurityContext) -> Option<T>) -> Option<T> {
        self.security.and_then(field)
    }

    pub(super) fn capabilities(&self) -> Option<&'a Capabilities> {
        self.security(|s| s.capabilities.as_ref())
    }
}

/// All containers: those that initialise, the ordinary ones, those that come later.
pub(super) fn containers(spec: &PodSpec) -> Vec<Seen<'_>> {
    fn container(c: &Container) -> Seen<'_> {
        Seen {
            name: &c.name,
            ports: c.ports.as_deref().unwrap_or_default(),
            probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
            lifecycle: c.lifecycle.as_ref(),
            security: c.security_context.as_ref(),
        }
    }
    fn ephemeral(c: &EphemeralContainer) -> Seen<'_> {
        Seen {
            name: &c.name,
            ports: c.ports.as_deref().unwrap_or_default(),
            probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
            lifecycle: c.lifecycle.as_ref(),
            security: c.security_context.as_ref(),
        }
    }
    let before = spec.init_containers.iter().flatten().map(container);
    let later = spec.ephemeral_containers.iter().flatten().map(ephemeral);
    before.chain(spec.containers.iter().map(container)).chain(later).collect()
}

/// Values in the order of their alphabet, each once.
pub(super) type Values = BTreeSet<String>;

pub(super) fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
pub(super) fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("\"{}\"", n.as_ref())).collect();
    names.join(", ")
}

/// `container "a"` or `containers "a", "b"`
pub(super) fn named(containers: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// Who sets something: `pod and container "a"`.
pub(super) fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let pod = pod.then(|| "pod".to_owned());
    let containers = (!containers.is_empty()).then(|| named(containers));
    let all: Vec<String> = pod.into_iter().chain(containers).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

/// Profiles were annotations once.
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Whether the annotation is about a profile.
pub(super) fn is_about_profiles(annotation: &str) -> bool {
    annotation.starts_with(APP_ARMOR)
        || annotation == SECCOMP_POD
        || annotation.starts_with(SECCOMP_CONTAINER)
}

/// Whether pods in user namespaces may do more, as of a version.
pub(super) fn in_user_namespace(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
}
