//! A file of notes, which is rotated.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Sink;
use crate::clock::Clock;

/// Lines that wait for the disk; whoever notes more waits with them.
const WAITING: usize = 10_000;
/// How long to wait before a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// When a file is followed by another one, and what becomes of old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of a file; 0 for no limit.
    pub bytes: u64,
    /// How many old files are kept; 0 for all.
    pub files: usize,
    /// How long old files are kept; zero for ever.
    pub age: SignedDuration,
}

impl Default for Rotation {
    /// 100 MiB a file, ten of them.
    fn default() -> Self {
        Self { bytes: 100 << 20, files: 10, age: SignedDuration::ZERO }
    }
}

/// A file of lines, readable by its owner alone. What is written when it is dropped is on its way to the disk.
#[derive(Debug)]
pub struct LogFile {
    lines: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Goes on with the file at `path`, or begins it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> io::Result<Self> {
        let mut open = Open::new(path.into(), rotation)?;
        let (lines, waiting) = sync_channel(WAITING);
        let writer =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || open.follow(&waiting))?;
        Ok(Self { lines: Some(lines), writer: Some(writer) })
    }
}

impl Sink for LogFile {
    fn write(&self, line: String) {
        if let Some(lines) = &self.lines
            && lines.send(line).is_err()
        {
            tracing::error!("the audit log has ended");
        }
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.lines = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the audit log failed");
        }
    }
}

struct Open {
    path: PathBuf,
    rotation: Rotation,
    clock: Clock,
    file: File,
    size: u64,
}

impl Open {
    fn new(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        let file = File::options().append(true).create(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, rotation, clock: Clock::system(), file, size })
    }

    fn follow(&mut self, lines: &Receiver<String>) {
        while let Ok(first) = lines.recv() {
            let mut batch = first;
            batch.push('\n');
            while let Ok(line) = lines.try_recv() {
                batch.push_str(&line);
                batch.push('\n');
                if batch.len() >= 1 << 20 {
                    break;
                }
            }
            self.write(batch.as_bytes());
        }
    }

    /// Writes whole lines, however long that takes.
    fn write(&mut self, mut rest: &[u8]) {
        let mut told = false;
        while !rest.is_empty() {
            let room = self.rotation.bytes.saturating_sub(self.size);
            let too_large = self.rotation.bytes > 0 && self.size > 0 && rest.len() as u64 > room;
            let done = match too_large {
                true => self.rotate().map(|()| 0),
                false => self.file.write(rest),
            };
            match done {
                Ok(written) => {
                    self.size += written as u64;
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !told {
                        tracing::error!(path = %self.path.display(), %error, "cannot write the audit log");
                        told = true;
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        fs::rename(&self.path, self.old(now))?;
        *self = Self::new(self.path.clone(), self.rotation)?;
        self.forget(now);
        Ok(())
    }

    /// `audit-2030-01-01T00-00-00.000.log` beside `audit.log`.
    fn old(&self, now: Timestamp) -> PathBuf {
        let (stem, extension) = self.name();
        let time = format!("{now:.6}").replace(':', "-").trim_end_matches('Z').to_owned();
        self.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    fn name(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension = text(self.path.extension());
        let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
        (text(self.path.file_stem()), extension)
    }

    /// Removes old files that are too many or too old.
    fn forget(&self, now: Timestamp) {
        let (stem, extension) = self.name();
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut old: Vec<(Timestamp, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let time = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
                let (date, time) = time.split_once('T')?;
                let at: Timestamp = format!("{date}T{}Z", time.replace('-', ":")).parse().ok()?;
                Some((at, entry.path()))
            })
            .collect();
        old.sort();
        let Rotation { files, age, .. } = self.rotation;
        let surplus = if files == 0 { 0 } else { old.len().saturating_sub(files) };
        for (index, (at, path)) in old.iter().enumerate() {
            let aged = !age.is_zero() && now.duration_since(*at) > age;
            if (index < surplus || aged)
                && let Err(error) = fs::remove_file(path)
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove an old audit log");
            }
        }
    }
}
