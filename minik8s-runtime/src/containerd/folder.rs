//! What we keep of each container beside containerd: a folder with its FIFOs, its sockets and how it ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::{Deserialize, Serialize};

use super::log_driver;
use crate::runtime::Exit;

/// The folder of one container, or of one exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder(PathBuf);

const STARTED: &str = "started";
const EXIT: &str = "exit";

/// [`Exit`] as it is on disk.
#[derive(Serialize, Deserialize)]
struct StoredExit {
    code: i32,
    started_at: Timestamp,
    finished_at: Timestamp,
    oom_killed: bool,
}

impl Folder {
    pub(super) fn of_container(state_dir: &Path, id: &str) -> Self {
        Self(state_dir.join("containers").join(id))
    }

    pub(super) fn of_exec(state_dir: &Path, id: &str) -> Self {
        Self(state_dir.join("exec").join(id))
    }

    /// The ids of all containers that have a folder.
    pub(super) fn containers(state_dir: &Path) -> io::Result<Vec<String>> {
        match fs::read_dir(state_dir.join("containers")) {
            Ok(entries) => {
                entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).create(&self.0)
    }

    /// Removes it with all that is in it, and lets a log driver go that still waits for output.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.hang_up();
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Says where the log goes, and makes the folder that it is in.
    pub(super) fn link_log(&self, log_path: &Path) -> io::Result<()> {
        let target = if log_path.as_os_str().is_empty() { Path::new("/dev/null") } else { log_path };
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let link = self.join(log_driver::LOG);
        if fs::read_link(&link).is_ok_and(|there| there == target) {
            return Ok(());
        }
        match fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(target, link)
    }

    /// Makes a FIFO, if there is none yet.
    pub(super) fn make_fifo(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.join(name);
        match mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(nix::Error::EEXIST) => Ok(path),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a FIFO to read from, without waiting for somebody to write.
    pub(super) fn open_to_read(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(self.join(name))
    }

    /// Opens a FIFO to write to; `None` if nobody reads.
    pub(super) fn open_to_write(&self, name: &str) -> io::Result<Option<File>> {
        match OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(self.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.raw_os_error() == Some(nix::Error::ENXIO as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens and closes the FIFOs of the output, so that whoever waits for a first writer sees the last one leave.
    pub(super) fn hang_up(&self) {
        for name in [log_driver::STDOUT, log_driver::STDERR] {
            match self.open_to_write(name) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(folder = %self.0.display(), %error, "a log driver was not let go")
                }
            }
        }
    }

    /// Notes the time at which the container was started. A power cut may lose it: then it was another boot.
    pub(super) fn put_started(&self, at: Timestamp) -> io::Result<()> {
        fs::write(self.join(STARTED), at.to_string())
    }

    pub(super) fn started(&self) -> Option<Timestamp> {
        fs::read_to_string(self.join(STARTED)).ok()?.parse().ok()
    }

    /// Notes how the container ended, for good.
    pub(super) fn put_exit(&self, exit: &Exit) -> io::Result<()> {
        let Exit { code, started_at, finished_at, oom_killed } = *exit;
        let text = serde_json::to_vec(&StoredExit { code, started_at, finished_at, oom_killed })?;
        let new = self.join("exit.new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(new, self.join(EXIT))?;
        File::open(&self.0)?.sync_all()
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        let StoredExit { code, started_at, finished_at, oom_killed } =
            serde_json::from_slice(&fs::read(self.join(EXIT)).ok()?).ok()?;
        Some(Exit { code, started_at, finished_at, oom_killed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of_container(root.path(), "c1");
        folder.create().unwrap();
        folder.create().unwrap();
        assert_eq!((folder.started(), folder.exit()), (None, None));
        let at = Timestamp::constant(1_893_456_000, 5);
        folder.put_started(at).unwrap();
        let exit = Exit { code: 137, started_at: at, finished_at: at, oom_killed: true };
        folder.put_exit(&exit).unwrap();
        folder.put_exit(&exit).unwrap();
        assert_eq!((folder.started(), folder.exit()), (Some(at), Some(exit)));
        assert_eq!(Folder::containers(root.path()).unwrap(), ["c1"]);
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(Folder::containers(root.path()).unwrap().is_empty());
    }

    #[test]
    fn a_log_link_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of_container(root.path(), "c1");
        folder.create().unwrap();
        for name in ["a", "b"] {
            let log = root.path().join("logs").join(name).join("0.log");
            folder.link_log(&log).unwrap();
            assert_eq!(fs::read_link(folder.join(log_driver::LOG)).unwrap(), log);
            assert!(log.parent().unwrap().is_dir());
        }
    }

    #[test]
    fn fifos_do_not_wait() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of_exec(root.path(), "x");
        folder.create().unwrap();
        folder.make_fifo("stdin").unwrap();
        folder.make_fifo("stdin").unwrap();
        assert!(folder.open_to_write("stdin").unwrap().is_none(), "nobody reads");
        let _reader = folder.open_to_read("stdin").unwrap();
        assert!(folder.open_to_write("stdin").unwrap().is_some());
    }
}
