//! Capabilities as the kernel numbers them.

use oci_spec::runtime::{Capability, LinuxCapabilities};

use super::SpecError;
use crate::runtime::Security;

/// All capabilities, each at its number.
const NAMES: [(Capability, &str); 41] = [
    (Capability::Chown, "CHOWN"),
    (Capability::DacOverride, "DAC_OVERRIDE"),
    (Capability::DacReadSearch, "DAC_READ_SEARCH"),
    (Capability::Fowner, "FOWNER"),
    (Capability::Fsetid, "FSETID"),
    (Capability::Kill, "KILL"),
    (Capability::Setgid, "SETGID"),
    (Capability::Setuid, "SETUID"),
    (Capability::Setpcap, "SETPCAP"),
    (Capability::LinuxImmutable, "LINUX_IMMUTABLE"),
    (Capability::NetBindService, "NET_BIND_SERVICE"),
    (Capability::NetBroadcast, "NET_BROADCAST"),
    (Capability::NetAdmin, "NET_ADMIN"),
    (Capability::NetRaw, "NET_RAW"),
    (Capability::IpcLock, "IPC_LOCK"),
    (Capability::IpcOwner, "IPC_OWNER"),
    (Capability::SysModule, "SYS_MODULE"),
    (Capability::SysRawio, "SYS_RAWIO"),
    (Capability::SysChroot, "SYS_CHROOT"),
    (Capability::SysPtrace, "SYS_PTRACE"),
    (Capability::SysPacct, "SYS_PACCT"),
    (Capability::SysAdmin, "SYS_ADMIN"),
    (Capability::SysBoot, "SYS_BOOT"),
    (Capability::SysNice, "SYS_NICE"),
    (Capability::SysResource, "SYS_RESOURCE"),
    (Capability::SysTime, "SYS_TIME"),
    (Capability::SysTtyConfig, "SYS_TTY_CONFIG"),
    (Capability::Mknod, "MKNOD"),
    (Capability::Lease, "LEASE"),
    (Capability::AuditWrite, "AUDIT_WRITE"),
    (Capability::AuditControl, "AUDIT_CONTROL"),
    (Capability::Setfcap, "SETFCAP"),
    (Capability::MacOverride, "MAC_OVERRIDE"),
    (Capability::MacAdmin, "MAC_ADMIN"),
    (Capability::Syslog, "SYSLOG"),
    (Capability::WakeAlarm, "WAKE_ALARM"),
    (Capability::BlockSuspend, "BLOCK_SUSPEND"),
    (Capability::AuditRead, "AUDIT_READ"),
    (Capability::Perfmon, "PERFMON"),
    (Capability::Bpf, "BPF"),
    (Capability::CheckpointRestore, "CHECKPOINT_RESTORE"),
];

/// What a container gets without asking.
const USUAL: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities: bit N is capability N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// Every capability that this crate knows by name.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The set with this one capability: `NET_ADMIN`, `net_admin` or `CAP_NET_ADMIN`.
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|(_, known)| *known == plain).map(|number| Self(1 << number))
    }

    /// Whether the capability of this name is in the set.
    pub fn has(self, name: &str) -> bool {
        Self::named(name).is_some_and(|one| self.0 & one.0 != 0)
    }

    pub(super) fn to_oci(self) -> LinuxCapabilities {
        let set = || {
            NAMES.iter().enumerate().filter(|(n, _)| self.0 & (1 << n) != 0).map(|(_, (c, _))| *c).collect()
        };
        let mut oci = LinuxCapabilities::default();
        // Nothing inheritable or ambient: a process of another user starts without any.
        oci.set_bounding(Some(set()))
            .set_effective(Some(set()))
            .set_permitted(Some(set()))
            .set_inheritable(None)
            .set_ambient(None);
        oci
    }
}

/// The usual ones, without those dropped, with those added; `ALL` in either list means all of them. An added one
/// stays even if `ALL` are dropped. What the node itself lacks nobody gets.
pub(super) fn of(security: &Security, node: CapabilitySet) -> Result<CapabilitySet, SpecError> {
    if security.privileged {
        return Ok(CapabilitySet(CapabilitySet::ALL.0 & node.0));
    }
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let bits = |names: &[String], to: &'static str| {
        names
            .iter()
            .filter(|name| !name.eq_ignore_ascii_case("ALL"))
            .map(|name| {
                CapabilitySet::named(name).ok_or_else(|| SpecError::UnknownCapability(name.clone(), to))
            })
            .try_fold(0, |bits, one| Ok::<u64, SpecError>(bits | one?.0))
    };
    let added = bits(&security.add_capabilities, "add")?;
    let dropped = bits(&security.drop_capabilities, "drop")?;
    let mut set = USUAL.iter().filter_map(|name| CapabilitySet::named(name)).fold(0, |set, one| set | one.0);
    if all(&security.add_capabilities) {
        set = CapabilitySet::ALL.0;
    }
    if all(&security.drop_capabilities) {
        set = 0;
    }
    Ok(CapabilitySet((set & !dropped | added) & node.0))
}
