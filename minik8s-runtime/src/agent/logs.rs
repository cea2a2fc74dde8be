//! Keeping the logs of containers within bounds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::context::Context;
use super::directory::ContainerInfo;

/// Rotates what has grown too large, and removes the logs of attempts that nobody can ask for any more.
pub(crate) async fn rotate_all(ctx: &Context) {
    let handle = super::directory::AgentHandle { directory: ctx.directory.clone() };
    for pod in handle.pods() {
        // What an earlier agent left is not judged before the server has been heard.
        if pod.pod.is_none() {
            continue;
        }
        for container in &pod.containers {
            if let Some(current) = container.current.as_ref().filter(|c| c.running)
                && let Err(e) = rotate(ctx, &current.id, &current.log_path).await
            {
                tracing::warn!(path = %current.log_path.display(), "the log could not be rotated: {e}");
            }
            if let Err(e) = forget_old(container) {
                tracing::warn!(container = container.name, "old logs could not be removed: {e}");
            }
        }
    }
}

async fn rotate(ctx: &Context, id: &str, path: &Path) -> io::Result<()> {
    let size = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if size > ctx.config.log_max_bytes {
        let aside = rotated(path, ctx.config.clock.now());
        fs::rename(path, &aside)?;
        if let Err(e) = ctx.runtime.reopen_log(id).await {
            // The container goes on writing to the old file: give it its name back.
            fs::rename(&aside, path)?;
            return Err(io::Error::other(e.to_string()));
        }
    }
    prune(path, ctx.config.log_max_files)
}

/// `0.log.20260102-150405`.
fn rotated(path: &Path, now: Timestamp) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(now.strftime(".%Y%m%d-%H%M%S").to_string());
    let first = PathBuf::from(&name);
    let mut out = first.clone();
    let mut n = 1;
    while out.exists() {
        out = PathBuf::from(format!("{}-{n}", first.display()));
        n += 1;
    }
    out
}

/// Keeps the newest rotated files of a log: all in all, with the current one, `keep`.
fn prune(path: &Path, keep: u32) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut old: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            old.push(entry.path());
        }
    }
    old.sort();
    let excess = old.len().saturating_sub(keep.saturating_sub(1) as usize);
    for path in &old[..excess] {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Removes the logs of attempts older than those that are kept.
fn forget_old(container: &ContainerInfo) -> io::Result<()> {
    let kept = [&container.previous, &container.current].into_iter().flatten();
    let Some(oldest) = kept.min_by_key(|a| a.attempt) else {
        return Ok(());
    };
    let Some(dir) = oldest.log_path.parent() else {
        return Ok(());
    };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let attempt = name.to_string_lossy().split_once(".log").and_then(|(n, _)| n.parse::<u32>().ok());
        if attempt.is_some_and(|n| n < oldest.attempt) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::directory::AttemptInfo;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "now").unwrap();
        for second in 0..4 {
            let aside = rotated(&log, Timestamp::from_second(1_700_000_000 + second).unwrap());
            fs::write(aside, "then").unwrap();
        }
        assert_ne!(rotated(&log, Timestamp::from_second(1_700_000_000).unwrap()), log);
        prune(&log, 3).unwrap();
        assert_eq!(names(dir.path()), ["0.log", "0.log.20231114-221322", "0.log.20231114-221323"]);
    }

    #[test]
    fn logs_of_forgotten_attempts_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["0.log", "1.log", "1.log.20230101-000000", "2.log", "3.log"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let attempt = |n: u32| {
            let log_path = dir.path().join(format!("{n}.log"));
            Some(AttemptInfo { id: n.to_string(), attempt: n, running: true, log_path })
        };
        let info = ContainerInfo {
            name: "c".into(),
            current: attempt(3),
            previous: attempt(2),
            waiting: String::new(),
        };
        forget_old(&info).unwrap();
        assert_eq!(names(dir.path()), ["2.log", "3.log"]);
    }
}
