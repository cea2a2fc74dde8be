//! The control groups of nodes, on hosts with cgroup v1, v2 or both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// The hierarchies of this host: one with cgroup v2, one a controller with v1.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let dirs = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    // Links (cpu -> cpu,cpuacct) lead to hierarchies that are counted already.
    let mut dirs: Vec<_> = dirs.filter(|d| d.join("cgroup.procs").exists() && !d.is_symlink()).collect();
    dirs.sort();
    dirs
}

/// Makes the group in every hierarchy and moves this process into it.
pub(super) fn join(group: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies() {
        let mut dir = hierarchy.clone();
        for part in Path::new(group) {
            let parent = dir.clone();
            dir.push(part);
            if !dir.exists() {
                fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            }
            // cpuset groups take no process before they have been given CPUs and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
                if own.trim().is_empty() && !inherited.trim().is_empty() {
                    fs::write(dir.join(file), inherited.trim())?;
                }
            }
        }
        fs::write(dir.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot move into {}", dir.display()))?;
    }
    Ok(())
}

/// Removes the group and all below it from every hierarchy. Its processes must have ended; the kernel may take a
/// moment to notice.
pub(super) fn remove(group: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    for hierarchy in hierarchies() {
        let dir = hierarchy.join(group);
        while dir.exists() {
            match remove_tree(&dir) {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        // The group of all clusters goes with the last one.
        if let Some(parent) = dir.parent().filter(|p| *p != hierarchy) {
            let _ = fs::remove_dir(parent);
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
