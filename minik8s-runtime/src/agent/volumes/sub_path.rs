//! A part of a volume, mounted without following the pod's own symlinks out of it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, mkdirat};

/// Opens `path` below `root`, making directories that are missing. Whoever can write the volume can put symlinks
/// there: the kernel refuses those that lead out of it.
fn open_below(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    if path.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a subPath must stay inside its volume"));
    }
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut reached = PathBuf::from(".");
    for component in path.components() {
        let parent = openat2(root.as_fd(), &reached, how)?;
        reached.push(component);
        match openat2(root.as_fd(), &reached, how) {
            Ok(_) => {}
            Err(nix::Error::ENOENT) => {
                match mkdirat(
                    parent.as_fd(),
                    Path::new(component.as_os_str()),
                    Mode::from_bits_truncate(0o755),
                ) {
                    Ok(()) | Err(nix::Error::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(escape(e)),
        }
    }
    openat2(root.as_fd(), &reached, how).map_err(escape)
}

fn escape(error: nix::Error) -> io::Error {
    match error {
        nix::Error::EXDEV => {
            io::Error::new(io::ErrorKind::InvalidInput, "the subPath leads out of its volume")
        }
        other => other.into(),
    }
}

/// Mounts `path` below `root` at `target`, where a later change of the volume cannot move it any more.
pub(super) fn bind(root: &Path, path: &Path, target: &Path) -> io::Result<()> {
    if is_mounted(target)? {
        return Ok(());
    }
    let source = open_below(root, path)?;
    let via = PathBuf::from(format!("/proc/thread-self/fd/{}", source.as_raw_fd()));
    fs::create_dir_all(target.parent().unwrap_or(target))?;
    if fs::metadata(&via)?.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    nix::mount::mount(Some(&via), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Undoes [`bind`].
pub(super) fn unbind(target: &Path) -> io::Result<()> {
    if is_mounted(target)? {
        nix::mount::umount2(
            target,
            nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW,
        )?;
    }
    Ok(())
}

fn is_mounted(target: &Path) -> io::Result<bool> {
    let Ok(target) = target.canonicalize() else {
        return Ok(false);
    };
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(table.lines().filter_map(|l| l.split(' ').nth(4)).any(|p| Path::new(&super::unescaped(p)) == target))
}
