//! From a [`ContainerSpec`] to the OCI runtime spec that runc executes.
//!
//! [`render`] is pure: whatever depends on the node (the user database of the image, the cgroup version, the
//! devices) comes in as [`Facts`].

use std::path::PathBuf;

use oci_spec::runtime::{Linux, Process, Root, Spec, User as OciUser};

use crate::runtime::{ContainerSpec, ExecSpec, Image};

pub mod capabilities;
mod command;
mod mounts;
mod namespaces;
mod resources;
mod seccomp;
#[cfg(test)]
mod tests;
pub mod user;

pub use capabilities::CapabilitySet;
pub use user::User;

/// Why a spec cannot be made into a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Neither the pod nor the image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// The image's user is not in its own `/etc/passwd`.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// The image's group is not in its own `/etc/group`.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// An id outside 0..2³¹.
    #[error("id {0} is out of range")]
    IdOutOfRange(i64),
    /// The pod forbids root and the image wants it.
    #[error("container has runAsNonRoot and image will run as root")]
    RunsAsRoot,
    /// There is no such capability.
    #[error("unknown capability {0:?} to {1}")]
    UnknownCapability(String, &'static str),
    /// A mount whose place in the container is not an absolute path.
    #[error("container path {0} is not absolute")]
    RelativePath(PathBuf),
}

/// A device of the node, for privileged containers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Where it is, on the node as in the container.
    pub path: PathBuf,
    /// A block device; else a character device.
    pub block: bool,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What [`render`] must know of the node and the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who the process is, from [`user::resolve`].
    pub user: User,
    /// The node has the unified cgroup hierarchy.
    pub cgroup_v2: bool,
    /// The capabilities that the node can give away.
    pub capabilities: CapabilitySet,
    /// The node's kernel filters system calls.
    pub seccomp: bool,
    /// The node's devices. Only privileged containers get them.
    pub devices: Vec<Device>,
    /// The smallest `oom_score_adj` that the node lets us set.
    pub min_oom_score_adj: i32,
}

/// The OCI runtime spec of a container.
///
/// # Errors
/// [`SpecError`], in words for the pod's author.
pub fn render(spec: &ContainerSpec, image: &Image, facts: &Facts) -> Result<Spec, SpecError> {
    if spec.security.run_as_non_root && facts.user.uid == 0 {
        return Err(SpecError::RunsAsRoot);
    }
    let privileged = spec.security.privileged;
    let capabilities = capabilities::of(&spec.security, facts.capabilities)?;
    let mut process = Process::default();
    process
        .set_terminal(Some(spec.tty))
        .set_user(oci_user(&facts.user))
        .set_args(Some(command::args(spec, image)?))
        .set_env(Some(command::env(spec, image)))
        .set_cwd(command::working_dir(spec, image))
        .set_capabilities(Some(capabilities.to_oci()))
        // As with Kubernetes, the limits of the runtime are inherited.
        .set_rlimits(None)
        .set_no_new_privileges(Some(spec.security.no_new_privileges))
        .set_oom_score_adj(Some(spec.resources.oom_score_adj.clamp(facts.min_oom_score_adj, 1000)));

    let mounts = mounts::all(spec, facts.cgroup_v2)?;
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::all(spec, facts.cgroup_v2)))
        .set_resources(Some(resources::limits(&spec.resources, privileged, facts.cgroup_v2)))
        .set_cgroups_path(Some(PathBuf::from(cgroup_path(spec))))
        .set_rootfs_propagation(mounts::root_propagation(&spec.mounts).map(str::to_owned))
        .set_masked_paths(Some(if privileged { Vec::new() } else { owned(MASKED) }))
        .set_readonly_paths(Some(if privileged { Vec::new() } else { owned(READ_ONLY) }));
    if !spec.sysctls.is_empty() {
        linux.set_sysctl(Some(spec.sysctls.clone().into_iter().collect()));
    }
    if privileged {
        linux.set_devices(Some(facts.devices.iter().map(resources::device).collect()));
    }
    if spec.security.seccomp_default && facts.seccomp && !privileged {
        linux.set_seccomp(Some(seccomp::default_profile(capabilities, std::env::consts::ARCH)));
    }

    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(spec.security.read_only_root));
    let mut oci = Spec::default();
    oci.set_version("1.0.2".to_owned())
        .set_process(Some(process))
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_hostname(namespaces::own_hostname(spec).map(str::to_owned))
        .set_annotations(None)
        .set_linux(Some(linux));
    Ok(oci)
}

/// The process of an exec: the container's own, with another command.
///
/// # Errors
/// [`SpecError::NoCommand`] without a command.
pub fn render_exec(container: &Process, exec: &ExecSpec) -> Result<Process, SpecError> {
    if exec.command.is_empty() {
        return Err(SpecError::NoCommand);
    }
    let mut env = container.env().clone().unwrap_or_default();
    if exec.tty {
        command::set_env(&mut env, "TERM", "xterm");
    }
    for (name, value) in &exec.env {
        command::set_env(&mut env, name, value);
    }
    let mut process = container.clone();
    process
        .set_terminal(Some(exec.tty))
        .set_args(Some(exec.command.clone()))
        .set_env(Some(env))
        // It inherits the container's.
        .set_oom_score_adj(None);
    Ok(process)
}

/// The container's own cgroup, below its pod's.
pub fn cgroup_path(spec: &ContainerSpec) -> String {
    let parent = spec.cgroup_parent.trim_matches('/');
    if parent.is_empty() { format!("/{}", spec.id) } else { format!("/{parent}/{}", spec.id) }
}

fn oci_user(user: &User) -> OciUser {
    let mut oci = OciUser::default();
    oci.set_uid(user.uid).set_gid(user.gid);
    if !user.groups.is_empty() {
        oci.set_additional_gids(Some(user.groups.clone()));
    }
    oci
}

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}

/// What Kubernetes hides from containers.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What Kubernetes does not let containers change.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
