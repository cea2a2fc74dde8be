//! What a container shares with its pod, and what with its node.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Type};

use crate::runtime::ContainerSpec;

/// The namespaces that runc makes or joins; the node's are those that are absent.
pub(super) fn all(spec: &ContainerSpec, cgroup_v2: bool) -> Vec<LinuxNamespace> {
    let wanted = &spec.namespaces;
    let of_pod = |kind: &str| wanted.join_pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/{kind}")));
    let mut all = vec![namespace(Type::Mount, None)];
    if !wanted.host_pid {
        all.push(namespace(Type::Pid, of_pod("pid").filter(|_| wanted.share_pid)));
    }
    if !wanted.host_ipc {
        all.push(namespace(Type::Ipc, of_pod("ipc")));
    }
    if let Some(network) = &wanted.network {
        all.push(namespace(Type::Network, Some(network.clone())));
        all.push(namespace(Type::Uts, of_pod("uts")));
    }
    if cgroup_v2 && !spec.security.privileged {
        all.push(namespace(Type::Cgroup, None));
    }
    all
}

/// The name that the container sees, if it is the pod's: a pod in the node's network has the node's name too.
pub(super) fn hostname(spec: &ContainerSpec) -> Option<&str> {
    (spec.namespaces.network.is_some() && !spec.hostname.is_empty()).then_some(spec.hostname.as_str())
}

/// The name to set: only who makes the UTS namespace does.
pub(super) fn own_hostname(spec: &ContainerSpec) -> Option<&str> {
    hostname(spec).filter(|_| spec.namespaces.join_pid.is_none())
}

fn namespace(kind: Type, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path);
    namespace
}
