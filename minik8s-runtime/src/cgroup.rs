//! The node's control groups, of either version: limits of whole pods, and what containers use.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use crate::runtime::{Resources, Stats};

mod mountinfo;
#[cfg(test)]
mod tests;

/// The length of one period of CPU bandwidth, in microseconds.
pub const CPU_PERIOD_US: u64 = 100_000;

/// The CPU time per [`CPU_PERIOD_US`] that this many thousandths of a CPU come to, in microseconds; never less than
/// the millisecond that the kernel insists on.
pub fn cpu_quota_us(milli: u64) -> i64 {
    let quota = milli.saturating_mul(CPU_PERIOD_US) / 1000;
    i64::try_from(quota.max(1000)).unwrap_or(i64::MAX)
}

/// cgroup v2's weight (1 to 10000) for cgroup v1's shares (2 to 262144).
pub fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The node's hierarchies of control groups.
///
/// Groups are named by their path below the root of the hierarchies, such as `/kubepods/burstable/podUID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    layout: Layout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// One hierarchy for all controllers.
    Unified(PathBuf),
    /// A hierarchy per controller, or for a few of them together.
    Legacy {
        /// Where each hierarchy is mounted.
        roots: Vec<PathBuf>,
        /// The hierarchy of each controller, as an index into `roots`.
        controllers: BTreeMap<String, usize>,
    },
}

impl Cgroups {
    /// Finds out what this node has.
    ///
    /// # Errors
    /// If the mounts cannot be read, or if no control groups are mounted.
    pub fn detect() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let layout = mountinfo::layout(&mounts)
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no control groups are mounted"))?;
        Ok(Self { layout })
    }

    /// Whether the node has the unified hierarchy.
    pub fn is_v2(&self) -> bool {
        matches!(self.layout, Layout::Unified(_))
    }

    /// Makes the group and those above it, and sets its limits. What is `None` becomes unlimited, except CPU shares,
    /// which stay as they are; [`Resources::oom_score_adj`] is none of a group's business.
    ///
    /// # Errors
    /// If the path is not a plain one, or the kernel refuses.
    pub fn ensure(&self, group: &str, resources: &Resources) -> io::Result<()> {
        let group = relative(group)?;
        match &self.layout {
            Layout::Unified(root) => {
                make_unified(root, &group)?;
                let dir = root.join(&group);
                let max =
                    |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
                let quota = resources.cpu_limit_milli.map(|milli| cpu_quota_us(milli).cast_unsigned());
                write(&dir, "cpu.max", &format!("{} {CPU_PERIOD_US}", max(quota)))?;
                if let Some(shares) = resources.cpu_shares {
                    write(&dir, "cpu.weight", &cpu_weight(shares).to_string())?;
                }
                write(&dir, "memory.max", &max(resources.memory_limit))?;
                write(&dir, "pids.max", &max(resources.pids_limit))
            }
            Layout::Legacy { roots, .. } => {
                for root in roots {
                    make_legacy(root, &group)?;
                }
                let limit = |limit: Option<i64>| limit.unwrap_or(-1).to_string();
                if let Some(dir) = self.legacy("cpu", &group) {
                    if let Some(shares) = resources.cpu_shares {
                        write(&dir, "cpu.shares", &shares.to_string())?;
                    }
                    write(&dir, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                    write(&dir, "cpu.cfs_quota_us", &limit(resources.cpu_limit_milli.map(cpu_quota_us)))?;
                }
                if let Some(dir) = self.legacy("memory", &group) {
                    let bytes = resources.memory_limit.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
                    write(&dir, "memory.limit_in_bytes", &limit(bytes))?;
                }
                if let Some(dir) = self.legacy("pids", &group) {
                    let max = resources.pids_limit.map_or_else(|| "max".to_owned(), |pids| pids.to_string());
                    write(&dir, "pids.max", &max)?;
                }
                Ok(())
            }
        }
    }

    /// Removes the group and the empty ones below it, in all hierarchies. A group that processes still use is left,
    /// and so is one that is gone already.
    ///
    /// # Errors
    /// If the path is not a plain one, or the kernel refuses.
    pub fn remove(&self, group: &str) -> io::Result<()> {
        let group = relative(group)?;
        let roots = match &self.layout {
            Layout::Unified(root) => std::slice::from_ref(root),
            Layout::Legacy { roots, .. } => roots.as_slice(),
        };
        roots.iter().try_for_each(|root| remove_below(&root.join(&group)))
    }

    /// What the processes of the group use.
    ///
    /// # Errors
    /// `NotFound` without such a group.
    pub fn stats(&self, group: &str) -> io::Result<Stats> {
        let group = relative(group)?;
        match &self.layout {
            Layout::Unified(root) => {
                let dir = root.join(&group);
                let usage = number(&dir, "memory.current")?;
                let inactive = field(&dir, "memory.stat", "inactive_file")?;
                Ok(Stats {
                    cpu_ns: field(&dir, "cpu.stat", "usage_usec")? * 1000,
                    memory_working_set: usage.saturating_sub(inactive),
                    memory_usage: usage,
                    pids: number(&dir, "pids.current")?,
                })
            }
            Layout::Legacy { .. } => {
                let of = |controller: &str| {
                    self.legacy(controller, &group)
                        .ok_or_else(|| missing(&format!("controller {controller}")))
                };
                let memory = of("memory")?;
                let usage = number(&memory, "memory.usage_in_bytes")?;
                let inactive = field(&memory, "memory.stat", "total_inactive_file")?;
                Ok(Stats {
                    cpu_ns: number(&of("cpuacct")?, "cpuacct.usage")?,
                    memory_working_set: usage.saturating_sub(inactive),
                    memory_usage: usage,
                    pids: number(&of("pids")?, "pids.current")?,
                })
            }
        }
    }

    /// How many processes of the group the kernel has killed for want of memory.
    ///
    /// # Errors
    /// `NotFound` without such a group.
    pub fn oom_kills(&self, group: &str) -> io::Result<u64> {
        let group = relative(group)?;
        match &self.layout {
            Layout::Unified(root) => field(&root.join(group), "memory.events", "oom_kill"),
            Layout::Legacy { .. } => {
                let dir = self.legacy("memory", &group).ok_or_else(|| missing("controller memory"))?;
                field(&dir, "memory.oom_control", "oom_kill")
            }
        }
    }

    fn legacy(&self, controller: &str, group: &Path) -> Option<PathBuf> {
        match &self.layout {
            Layout::Unified(_) => None,
            Layout::Legacy { roots, controllers } => {
                controllers.get(controller).map(|&at| roots[at].join(group))
            }
        }
    }
}

/// A group's path without its leading `/`. The root itself is nobody's to change.
fn relative(group: &str) -> io::Result<PathBuf> {
    let path = Path::new(group.trim_matches('/'));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && path.components().next().is_some() {
        Ok(path.to_owned())
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, format!("{group:?} is not the path of a control group")))
    }
}

/// Every level of `group` below `root`, from the top.
fn levels(root: &Path, group: &Path) -> Vec<PathBuf> {
    let mut dir = root.to_owned();
    group
        .components()
        .map(|part| {
            dir.push(part);
            dir.clone()
        })
        .collect()
}

fn make_unified(root: &Path, group: &Path) -> io::Result<()> {
    let mut above = root.to_owned();
    for dir in levels(root, group) {
        // One at a time: a kernel without one of them would refuse them all.
        for controller in ["cpu", "memory", "pids", "cpuset", "io"] {
            let available = fs::read_to_string(above.join("cgroup.controllers"))?;
            if available.split_whitespace().any(|name| name == controller) {
                write(&above, "cgroup.subtree_control", &format!("+{controller}"))?;
            }
        }
        make_dir(&dir)?;
        above = dir;
    }
    Ok(())
}

fn make_legacy(root: &Path, group: &Path) -> io::Result<()> {
    let mut above = root.to_owned();
    for dir in levels(root, group) {
        make_dir(&dir)?;
        // A new cpuset is empty, and nothing can run in it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            match fs::read_to_string(dir.join(file)) {
                Ok(own) if own.trim().is_empty() => {
                    write(&dir, file, fs::read_to_string(above.join(file))?.trim())?;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(named(&dir.join(file), &error)),
            }
        }
        above = dir;
    }
    Ok(())
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(named(dir, &error)),
        _ => Ok(()),
    }
}

fn remove_below(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(named(dir, &error)),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // In use: by a process, or by a group below that is.
        Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        Err(error) => Err(named(dir, &error)),
    }
}

fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = dir.join(file);
    fs::write(&path, value).map_err(|error| named(&path, &error))
}

fn number(dir: &Path, file: &str) -> io::Result<u64> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).map_err(|error| named(&path, &error))?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{}: {text:?}", path.display())))
}

/// The number after `key` in a file of lines `KEY NUMBER`; 0 if the kernel does not keep it.
fn field(dir: &Path, file: &str, key: &str) -> io::Result<u64> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).map_err(|error| named(&path, &error))?;
    let line = text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key));
    Ok(line.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0))
}

fn missing(what: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("no {what}"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
