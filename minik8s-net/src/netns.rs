//! Named network namespaces, kept by a bind mount as `ip netns` does.
//!
//! Nothing here forks: a namespace is a matter of one thread, so each piece of work gets a thread of its own, which ends
//! with the work.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

use crate::{Error, Result};

/// Where `ip netns` has them, too.
pub const DEFAULT_DIR: &str = "/run/netns";

/// The filesystem of namespaces.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Makes the namespace `DIR/NAME`, in which there is nothing but a loopback interface that is down. One that is there
/// stays.
///
/// # Errors
/// [`Error::Io`].
pub async fn create(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    let (dir, made) = (dir.to_owned(), path.clone());
    on_own_thread(move || create_here(&dir, &made)).await.map_err(|error| Error::at(&path, error))?;
    Ok(path)
}

/// Removes the namespace `DIR/NAME`; it is gone when no process uses it any more. One that is gone is fine.
///
/// # Errors
/// [`Error::Io`].
pub async fn delete(dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(name);
    let removed = path.clone();
    // On a thread, since taking a namespace down can take the kernel some milliseconds.
    on_own_thread(move || delete_here(&removed)).await.map_err(|error| Error::at(&path, error))
}

/// The names of the namespaces in `dir`, ordered.
///
/// # Errors
/// [`Error::Io`].
pub fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::at(dir, error)),
    };
    let names: io::Result<Vec<String>> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(|error| Error::at(dir, error))?;
    names.sort();
    Ok(names)
}

/// Does some work in the namespace at `path`, on a thread of its own.
///
/// # Errors
/// [`Error::Io`] if there is no such namespace, or with what the work says.
pub async fn run_in<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let into = path.to_owned();
    let result = on_own_thread(move || {
        setns(File::open(into)?, CloneFlags::CLONE_NEWNET)?;
        work()
    });
    result.await.map_err(|error| Error::at(path, error))
}

async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        // The caller may have stopped waiting.
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| io::Error::other("the thread died"))?
}

fn create_here(dir: &Path, path: &Path) -> io::Result<()> {
    if is_namespace(path)? {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    share(dir)?;
    // What a crash or an earlier boot left is an empty file, to mount on as well as on a new one.
    OpenOptions::new().create(true).append(true).open(path)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Makes mounts below `dir` come and go in all mount namespaces that have a copy of it: else one of them would keep a
/// namespace alive that was removed here.
fn share(dir: &Path) -> io::Result<()> {
    let make_shared =
        || mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match make_shared() {
        // It is no mount point yet.
        Err(Errno::EINVAL) => {
            mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            Ok(make_shared()?)
        }
        other => Ok(other?),
    }
}

fn delete_here(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            // Two that made it at the same time have left two mounts on top of each other.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_namespace(path: &Path) -> io::Result<bool> {
    match statfs(path) {
        Ok(stat) => Ok(stat.filesystem_type() == NSFS_MAGIC),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
