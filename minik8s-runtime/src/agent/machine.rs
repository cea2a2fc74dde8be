//! What the machine has.

use std::fs;
use std::path::Path;

use super::config::AgentConfig;

/// The machine's means and names, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Thousandths of CPUs.
    pub(crate) cpu_milli: u64,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Bytes of disk for pods.
    pub(crate) storage: u64,
    reserved_cpu_milli: u64,
    reserved_memory: u64,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) boot_id: String,
    pub(crate) system_uuid: String,
}

impl Machine {
    pub(crate) fn measure(config: &AgentConfig) -> Self {
        let line = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpu_milli: config.cpu_milli.unwrap_or(cpus as u64 * 1000),
            memory: config.memory.unwrap_or_else(memory),
            storage: config.storage.unwrap_or_else(|| disk(&config.pods_dir).map_or(0, |d| d.total)),
            reserved_cpu_milli: config.reserved_cpu_milli,
            reserved_memory: config.reserved_memory,
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
        }
    }

    /// Thousandths of CPUs for pods.
    pub(crate) fn allocatable_cpu_milli(&self) -> u64 {
        self.cpu_milli.saturating_sub(self.reserved_cpu_milli)
    }

    /// Bytes of memory for pods.
    pub(crate) fn allocatable_memory(&self) -> u64 {
        self.memory.saturating_sub(self.reserved_memory)
    }
}

/// Bytes of memory of this machine.
fn memory() -> u64 {
    meminfo("MemTotal:").unwrap_or(0)
}

/// Bytes of memory that could be had now.
pub(crate) fn available_memory() -> Option<u64> {
    meminfo("MemAvailable:")
}

fn meminfo(key: &str) -> Option<u64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Bytes.
    pub(crate) total: u64,
    /// Bytes that are free.
    pub(crate) free: u64,
}

/// The file system that `path`, or the nearest directory above it that exists, is on.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let there = path.ancestors().find(|p| p.exists())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    let unit = stat.fragment_size();
    Some(Disk { total: stat.blocks() * unit, free: stat.blocks_available() * unit })
}

/// How many processes there are and could be.
pub(crate) fn processes() -> Option<(u64, u64)> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let now = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    Some((now, most))
}

fn os_image(release: &str) -> String {
    let line = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("linux").trim_matches('"').to_owned()
}

/// The architecture as Go names it, which is how labels spell it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_before_what_is_there() {
        let config = AgentConfig {
            cpu_milli: Some(4000),
            memory: Some(1 << 30),
            reserved_cpu_milli: 500,
            reserved_memory: 1 << 20,
            ..AgentConfig::default()
        };
        let machine = Machine::measure(&config);
        assert_eq!(machine.allocatable_cpu_milli(), 3500);
        assert_eq!(machine.allocatable_memory(), (1 << 30) - (1 << 20));
        let own = Machine::measure(&AgentConfig::default());
        assert!(own.cpu_milli >= 1000 && own.memory > 0 && own.storage > 0 && !own.kernel.is_empty());
    }

    #[test]
    fn the_name_of_the_system() {
        assert_eq!(os_image("ID=x\nPRETTY_NAME=\"Some Linux 12\"\n"), "Some Linux 12");
        assert_eq!(os_image(""), "linux");
    }
}
