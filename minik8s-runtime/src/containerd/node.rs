//! What this node can give to containers.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};

use crate::spec::{CapabilitySet, Device};

/// The capabilities that containers can have at most, and whether the kernel filters system calls: from
/// `/proc/self/status`.
pub(super) fn abilities() -> io::Result<(CapabilitySet, bool)> {
    Ok(parse_status(&fs::read_to_string("/proc/self/status")?))
}

fn parse_status(status: &str) -> (CapabilitySet, bool) {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let bounding = field("CapBnd").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    (CapabilitySet(bounding.unwrap_or(0)), field("Seccomp").is_some())
}

/// The smallest `oom_score_adj` that we may set: any with `CAP_SYS_RESOURCE`, else the one that we have ourselves.
pub(super) fn min_oom_score_adj(capabilities: CapabilitySet) -> io::Result<i32> {
    if capabilities.has("SYS_RESOURCE") {
        return Ok(-1000);
    }
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    own.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("oom_score_adj {own:?}")))
}

/// This boot of the node's kernel.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Below `/dev`: not the node's devices, but every container's own.
const OWN: [&str; 8] = [
    "/dev/console",
    "/dev/fd",
    "/dev/mqueue",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/stdin",
    "/dev/.udev",
];

/// All devices of the node, ordered by path.
pub(super) fn devices() -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), &mut devices)?;
    devices.sort();
    Ok(devices)
}

fn collect(folder: &Path, devices: &mut Vec<Device>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if OWN.iter().any(|own| path == Path::new(own)) {
            continue;
        }
        // A device may vanish while we look.
        let Ok(meta) = entry.metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() {
            collect(&path, devices)?;
        } else if kind.is_block_device() || kind.is_char_device() {
            let number = meta.rdev();
            devices.push(Device {
                path,
                block: kind.is_block_device(),
                major: u32::try_from(major(number)).unwrap_or(0),
                minor: u32::try_from(minor(number)).unwrap_or(0),
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_are_read_from_the_kernels_words() {
        let status = "Name:\tx\nCapBnd:\t000001fffeffffff\nSeccomp:\t0\n";
        let (capabilities, seccomp) = parse_status(status);
        assert!(seccomp && capabilities.has("NET_ADMIN") && !capabilities.has("SYS_RESOURCE"));
        assert_eq!(parse_status("Name:\tx\n"), (CapabilitySet(0), false));
    }
}
