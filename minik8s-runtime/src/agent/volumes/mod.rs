//! The volumes of a pod: what they hold, where they are, and how they get into its containers.
//!
//! Everything a pod has on the node's disk is below one directory, `ROOT/UID`:
//!
//! ```text
//! volumes/NAME/            one volume; a tmpfs for secrets and memory
//! subpaths/NAME/CONTAINER/ bind mounts of parts of volumes
//! containers/NAME/ATTEMPT  the last words of a container
//! etc/{hosts,resolv.conf,hostname}
//! ```

mod atomic;
pub(crate) mod etc;
mod mounts;
mod ownership;
mod payload;
mod plan;
mod sub_path;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(crate) use mounts::{MountRequest, container_mounts};
use nix::mount::{MntFlags, MsFlags};
pub(crate) use payload::Tokens;
pub(crate) use plan::{Plan, claims, plan, refreshable, token_requests, wanted};

/// The directory of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodDir(PathBuf);

impl PodDir {
    /// The directory of the pod `uid` below `root`.
    pub(crate) fn new(root: &Path, uid: &str) -> Self {
        Self(root.join(uid))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }

    fn sub_path(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        self.0.join("subpaths").join(volume).join(container).join(index.to_string())
    }

    /// Where a container leaves its last words.
    pub(crate) fn termination_log(&self, container: &str, attempt: u32) -> PathBuf {
        self.0.join("containers").join(container).join(attempt.to_string())
    }

    fn etc(&self, file: &str) -> PathBuf {
        self.0.join("etc").join(file)
    }

    /// Makes an empty file for a container's last words, which anyone may write.
    pub(crate) fn make_termination_log(&self, container: &str, attempt: u32) -> io::Result<PathBuf> {
        let path = self.termination_log(container, attempt);
        fs::create_dir_all(path.parent().expect("below the pod's directory"))?;
        fs::OpenOptions::new().create(true).append(true).open(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }
}

/// A volume that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Where on the node.
    pub(crate) path: PathBuf,
    /// Whoever mounts it may not write.
    pub(crate) read_only: bool,
}

/// Volumes by name.
pub(crate) type Volumes = BTreeMap<String, Volume>;

/// Puts the volumes in place, or in order again if they are.
///
/// # Errors
/// What went wrong with which volume.
pub(crate) fn set_up(
    dir: &PodDir,
    plans: &BTreeMap<String, Plan>,
    fs_group: Option<u32>,
) -> Result<Volumes, String> {
    let fail = |name: &str, e: String| format!("MountVolume.SetUp failed for volume \"{name}\" : {e}");
    private_dir(dir.path()).map_err(|e| format!("cannot make {}: {e}", dir.path().display()))?;
    let mut volumes = Volumes::new();
    for (name, plan) in plans {
        let volume = set_up_one(&dir.volume(name), plan, fs_group).map_err(|e| fail(name, e))?;
        volumes.insert(name.clone(), volume);
    }
    Ok(volumes)
}

fn set_up_one(path: &Path, plan: &Plan, fs_group: Option<u32>) -> Result<Volume, String> {
    let text = |e: io::Error| e.to_string();
    match plan {
        Plan::EmptyDir { memory, mode } => {
            let fresh = !path.exists();
            fs::create_dir_all(path).map_err(text)?;
            let mounted = match memory {
                Some(size) => tmpfs(path, *size).map_err(text)?,
                None => false,
            };
            if fresh || mounted {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).map_err(text)?;
                if let Some(gid) = fs_group {
                    ownership::give(path, gid).map_err(text)?;
                }
            }
            Ok(Volume { path: path.to_owned(), read_only: false })
        }
        Plan::HostPath { path, kind } => {
            plan::check_host_path(path, kind)?;
            Ok(Volume { path: path.clone(), read_only: false })
        }
        Plan::Claim { path, read_only, recursive } => {
            if !path.is_dir() {
                return Err(format!("{} is not a directory", path.display()));
            }
            if let Some(gid) = fs_group.filter(|_| !read_only)
                && (*recursive || !ownership::is_given(path, gid).map_err(text)?)
            {
                ownership::give(path, gid).map_err(text)?;
            }
            Ok(Volume { path: path.clone(), read_only: *read_only })
        }
        Plan::Files { payload, secret } => {
            fs::create_dir_all(path).map_err(text)?;
            if *secret {
                tmpfs(path, None).map_err(text)?;
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(text)?;
            atomic::write(path, payload, fs_group).map_err(text)?;
            Ok(Volume { path: path.to_owned(), read_only: true })
        }
    }
}

/// Writes the files of a volume again, if they changed; whether they did.
pub(crate) fn refresh(dir: &PodDir, name: &str, plan: &Plan, fs_group: Option<u32>) -> io::Result<bool> {
    match plan {
        Plan::Files { payload, .. } if dir.volume(name).is_dir() => {
            atomic::write(&dir.volume(name), payload, fs_group)
        }
        _ => Ok(false),
    }
}

/// Takes everything away that the pod had on the disk. What is not there is fine.
///
/// # Errors
/// Something is still mounted below the directory: then nothing is removed, for it may be somebody else's data.
pub(crate) fn tear_down(dir: &PodDir, keep_last_words: bool) -> io::Result<()> {
    if !dir.path().exists() {
        return Ok(());
    }
    for point in mount_points_below(dir.path())?.iter().rev() {
        match nix::mount::umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => {
                return Err(io::Error::other(format!("cannot unmount {}: {e}", point.display())));
            }
        }
    }
    if let Some(left) = mount_points_below(dir.path())?.first() {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    let parts: &[&str] = if keep_last_words { &["volumes", "subpaths", "etc"] } else { &[""] };
    for part in parts {
        let path = if part.is_empty() { dir.path().to_owned() } else { dir.path().join(part) };
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Where something is mounted below `dir` in this process's view, outer ones first.
fn mount_points_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = dir.canonicalize()?;
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescaped(point)))
        .filter(|point| point.starts_with(&dir) && *point != dir)
        .collect();
    points.sort();
    Ok(points)
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' {
            let code = bytes.by_ref().take(3).fold(0u32, |n, b| n * 8 + u32::from(b.wrapping_sub(b'0') & 7));
            out.push(u8::try_from(code).unwrap_or(b'?'));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Mounts a tmpfs there unless one is; whether it did.
fn tmpfs(path: &Path, size: Option<u64>) -> io::Result<bool> {
    let stat = nix::sys::statfs::statfs(path).map_err(io::Error::from)?;
    let parent = path.parent().map(nix::sys::stat::stat).transpose().map_err(io::Error::from)?;
    let own = nix::sys::stat::stat(path).map_err(io::Error::from)?;
    let is_mount = parent.is_some_and(|p| p.st_dev != own.st_dev);
    if is_mount && stat.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC {
        return Ok(false);
    }
    let options = size.map(|bytes| format!("size={bytes}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), flags, options.as_deref())
        .map_err(io::Error::from)?;
    Ok(true)
}

/// A directory that only root may look into, parents included.
fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(path)
}
