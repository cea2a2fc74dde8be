//! Files of an image that has no container yet.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest};
use containerd_client::types::Mount;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::rpc::{Rpc, failed, unique};
use crate::runtime::{Result, RuntimeError};

/// More than any user database; what is longer is cut.
const MAX_FILE: u64 = 4 << 20;

/// The contents of files of a snapshot, by paths relative to its root; empty for one that is not there. Symbolic links
/// in the image lead to where they would lead in a container, never out of it.
///
/// `place` is any directory that nobody needs to see meanwhile on the reading thread.
pub(super) async fn read(
    rpc: &Rpc,
    snapshotter: &str,
    snapshot: &str,
    place: &Path,
    paths: &[&str],
) -> Result<Vec<String>> {
    if snapshot.is_empty() {
        return Ok(vec![String::new(); paths.len()]);
    }
    let lease = rpc.lease().await?;
    let result = read_view(&lease.rpc, snapshotter, snapshot, place, paths).await;
    lease.release().await;
    result
}

async fn read_view(
    rpc: &Rpc,
    snapshotter: &str,
    snapshot: &str,
    place: &Path,
    paths: &[&str],
) -> Result<Vec<String>> {
    let key = unique("minik8s-view");
    let view = ViewSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.clone(),
        parent: snapshot.to_owned(),
        ..ViewSnapshotRequest::default()
    };
    let answer = rpc.snapshots().view(view).await.map_err(|status| failed("view snapshot", &status))?;
    let mounts = answer.into_inner().mounts;
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let place = place.to_owned();
    let files = on_own_thread(move || read_mounted(&mounts, &place, &paths)).await;
    let remove = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key };
    if let Err(status) = rpc.snapshots().remove(remove).await {
        tracing::debug!(%status, "a view of an image was not removed");
    }
    files.map_err(|error| RuntimeError::Other(format!("read the files of snapshot {snapshot}: {error}")))
}

/// Runs `work` on a thread of its own, which it may take out of the process's namespaces: it is never used again.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("rootfs".to_owned()).spawn(move || {
        // The caller may have stopped waiting.
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| io::Error::other("the thread died"))?
}

/// Mounts a snapshot where nobody else sees it, in a mount namespace that ends with this thread.
fn read_mounted(mounts: &[Mount], place: &Path, paths: &[PathBuf]) -> io::Result<Vec<String>> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    for one in mounts {
        mount_at(one, place)?;
    }
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    let root = openat2(AT_FDCWD, place, how)?;
    paths.iter().map(|path| read_below(&root, path)).collect()
}

fn read_below(root: &OwnedFd, path: &Path) -> io::Result<String> {
    // An image may have put anything there, even a FIFO: do not wait for it.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root, path, how) {
        Ok(fd) => File::from(fd),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP | nix::Error::ENXIO) => {
            return Ok(String::new());
        }
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn mount_at(from: &Mount, place: &Path) -> io::Result<()> {
    let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mut data = Vec::new();
    for option in &from.options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => {}
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            _ => data.push(option.clone()),
        }
    }
    shorten_lower_dirs(&mut data)?;
    let data = data.join(",");
    mount(Some(from.source.as_str()), place, Some(from.r#type.as_str()), flags, Some(data.as_str()))?;
    Ok(())
}

/// The kernel takes one page of options, which the layers of a large image do not fit into with their full paths: goes
/// to the directory that they share (only this thread does; its own filesystem context came with its namespace).
fn shorten_lower_dirs(options: &mut [String]) -> io::Result<()> {
    let Some(option) = options.iter_mut().find(|option| option.starts_with("lowerdir=")) else {
        return Ok(());
    };
    let dirs: Vec<&Path> = option["lowerdir=".len()..].split(':').map(Path::new).collect();
    let Some(shared) =
        dirs[0].ancestors().skip(1).find(|above| dirs.iter().all(|dir| dir.starts_with(above)))
    else {
        return Ok(());
    };
    if shared.parent().is_none() {
        return Ok(());
    }
    std::env::set_current_dir(shared)?;
    let relative = dirs.iter().filter_map(|dir| dir.strip_prefix(shared).ok()?.to_str());
    *option = format!("lowerdir={}", relative.collect::<Vec<_>>().join(":"));
    Ok(())
}
