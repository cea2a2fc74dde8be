//! The mounts of a container: the kernel's filesystems, then what the pod asks for.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as OciMount;

use super::SpecError;
use crate::runtime::{ContainerSpec, Mount, Propagation};

/// All mounts, parents before what lies below them. One of the pod's mounts takes the place of a usual one.
pub(super) fn all(spec: &ContainerSpec, cgroup_v2: bool) -> Result<Vec<OciMount>, SpecError> {
    if let Some(relative) = spec.mounts.iter().find(|mount| !mount.container_path.is_absolute()) {
        return Err(SpecError::RelativePath(relative.container_path.clone()));
    }
    let mut all = usual(spec, cgroup_v2);
    all.retain(|usual| !spec.mounts.iter().any(|mount| mount.container_path == *usual.destination()));
    let mut own: Vec<&Mount> = spec.mounts.iter().collect();
    own.sort_by_key(|mount| mount.container_path.components().count());
    all.extend(own.into_iter().map(bind));
    Ok(all)
}

/// The propagation of the container's root that its mounts need.
pub(super) fn root_propagation(mounts: &[Mount]) -> Option<&'static str> {
    let any = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    if any(Propagation::Bidirectional) {
        Some("rshared")
    } else if any(Propagation::HostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

fn usual(spec: &ContainerSpec, cgroup_v2: bool) -> Vec<OciMount> {
    let sys = if spec.security.privileged { "rw" } else { "ro" };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]),
    ];
    if cgroup_v2 && spec.security.privileged {
        // Without a cgroup namespace of its own it sees, and may change, the node's.
        all.pop();
        all.push(mount(
            "/sys/fs/cgroup",
            "cgroup2",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "rw"],
        ));
    }
    all.push(if spec.namespaces.host_ipc {
        mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate", "rw"])
    } else {
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])
    });
    all
}

fn bind(from: &Mount) -> OciMount {
    let propagation = match from.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = if from.read_only { "ro" } else { "rw" };
    mount(&from.container_path, "bind", &from.host_path, &["rbind", propagation, access])
}

fn mount(to: impl AsRef<Path>, kind: &str, from: impl AsRef<Path>, options: &[&str]) -> OciMount {
    let mut mount = OciMount::default();
    mount
        .set_destination(to.as_ref().to_owned())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(from.as_ref())))
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}
