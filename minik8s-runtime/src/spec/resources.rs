//! Limits, as runc writes them into the container's cgroup.

use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxCpu, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources,
};

use super::Device;
use crate::cgroup::CPU_PERIOD_US;
use crate::runtime::Resources;

/// The limits of a container. Runc converts CPU shares to a weight where the node has cgroup v2.
pub(super) fn limits(resources: &Resources, privileged: bool, cgroup_v2: bool) -> LinuxResources {
    let mut limits = LinuxResources::default();
    limits.set_devices(Some(vec![every_device(privileged)]));
    if resources.cpu_shares.is_some() || resources.cpu_limit_milli.is_some() {
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(resources.cpu_shares);
        if let Some(milli) = resources.cpu_limit_milli {
            cpu.set_quota(Some(crate::cgroup::cpu_quota_us(milli))).set_period(Some(CPU_PERIOD_US));
        }
        limits.set_cpu(Some(cpu));
    }
    if let Some(bytes) = resources.memory_limit {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(i64::try_from(bytes).unwrap_or(i64::MAX)));
        limits.set_memory(Some(memory));
    }
    if let Some(count) = resources.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::try_from(count).unwrap_or(i64::MAX));
        limits.set_pids(Some(pids));
    }
    if cgroup_v2 {
        // Out of memory ends the container, not one process somewhere in it.
        limits.set_unified(Some(HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())])));
    }
    limits
}

/// The first rule: nothing, to which runc adds the harmless devices; or everything.
fn every_device(allow: bool) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_access(Some("rwm".to_owned()));
    rule
}

pub(super) fn device(device: &Device) -> LinuxDevice {
    let mut oci = LinuxDevice::default();
    oci.set_path(device.path.clone())
        .set_typ(if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .set_major(device.major.into())
        .set_minor(device.minor.into())
        .set_file_mode(Some(device.mode))
        .set_uid(Some(device.uid))
        .set_gid(Some(device.gid));
    oci
}
