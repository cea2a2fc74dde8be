//! The files of a storage: a snapshot of all there was at some revision, and logs of what came after.
//!
//! `snapshot-REVISION` holds everything at that revision. `log-BASE` holds the changes after the revision `BASE`, up
//! to the base of the next log. `LOCK` is locked by the process that uses the directory, and names it. `cut-off` holds
//! what stood behind the last whole frame of the last log when it was opened last, if that was anything.

use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::frame::{self, Header, Next, Reader, Role};
use super::record::{Record, records};
use super::segment::Segment;
use crate::storage::StorageError;
use crate::storage::mvcc::State;
use crate::stored::Stored;

const LOCK: &str = "LOCK";
const CUT_OFF: &str = "cut-off";
/// What files are called until they are whole.
const UNFINISHED: &str = ".new";

pub(super) fn log_name(base: u64) -> String {
    format!("log-{base:020}")
}

pub(super) fn snapshot_name(revision: u64) -> String {
    format!("snapshot-{revision:020}")
}

/// Makes a file that is either there with all that `write` writes, or not.
pub(super) fn publish(dir: &Path, name: &str, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    let result = (|| {
        let file = File::create(&unfinished)?;
        write(&file)?;
        file.sync_all()?;
        fs::rename(&unfinished, dir.join(name))?;
        File::open(dir)?.sync_all()
    })();
    if result.is_err() {
        // It may take room that others need. If it cannot be removed now, the next start does it.
        let _ = fs::remove_file(&unfinished);
    }
    result
}

/// Removes what a snapshot of `revision` stands for.
pub(super) fn prune(dir: &Path, revision: u64) -> io::Result<()> {
    let files = Files::list(dir)?;
    let old = |numbers: &[u64], name: fn(u64) -> String| -> io::Result<()> {
        numbers.iter().filter(|n| **n < revision).try_for_each(|n| fs::remove_file(dir.join(name(*n))))
    };
    old(&files.snapshots, snapshot_name)?;
    old(&files.logs, log_name)
}

/// Keeps other processes off the directory until the answer is dropped.
pub(in crate::storage) fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join(LOCK);
    let failed = |e: io::Error| StorageError::Unavailable(format!("cannot lock {}: {e}", path.display()));
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.is_empty() { "another process" } else { holder.trim() };
            return Err(StorageError::Unavailable(format!(
                "{} is in use by {holder}; two servers cannot share a directory",
                dir.display()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name).unwrap_or_default();
    let holder = format!("process {} ({})\n", std::process::id(), program.display());
    // A full disk keeps nobody from reading.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
    Ok(file)
}

/// The numbers in the files' names, ascending.
#[derive(Debug, Default)]
pub(super) struct Files {
    snapshots: Vec<u64>,
    logs: Vec<u64>,
    unfinished: Vec<PathBuf>,
}

impl Files {
    pub(super) fn list(dir: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let number = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok());
            if name.ends_with(UNFINISHED) {
                files.unfinished.push(path);
            } else if let Some(revision) = number("snapshot-") {
                files.snapshots.push(revision);
            } else if let Some(base) = number("log-") {
                files.logs.push(base);
            }
        }
        files.snapshots.sort_unstable();
        files.logs.sort_unstable();
        Ok(files)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.logs.is_empty()
    }

    /// The newest snapshot.
    pub(super) fn snapshot(&self) -> Option<u64> {
        self.snapshots.last().copied()
    }
}

/// What is done about damage.
pub(super) enum Damage<'a> {
    /// It is an error.
    Refuse,
    /// It is noted, and what can be read behind it is read.
    Skip(&'a mut Vec<String>),
}

/// What a directory holds.
pub(super) struct Loaded {
    pub(super) snapshot: Option<u64>,
    /// Bytes of the snapshot.
    pub(super) bytes: u64,
    /// The log to go on with, and where its last whole frame ends.
    last: Option<(Header, u64)>,
}

impl Loaded {
    /// The log to go on with; a new one if there is none.
    pub(super) fn segment(&self, dir: &Path, revision: u64) -> io::Result<Segment> {
        match self.last {
            Some((header, end)) => Segment::open(&dir.join(log_name(header.base)), header, end),
            None => Segment::create(dir, revision),
        }
    }
}

/// Brings `state` to what the directory holds.
pub(super) fn load(dir: &Path, state: &mut State, mut damage: Damage<'_>) -> Result<Loaded, StorageError> {
    let files = Files::list(dir).map_err(|e| unreadable(dir.display(), &e))?;
    let snapshot = files.snapshot();
    let mut loaded = Loaded { snapshot, bytes: 0, last: None };
    if let Some(revision) = snapshot {
        let path = dir.join(snapshot_name(revision));
        loaded.bytes = load_snapshot(&path, state, &mut damage)?;
    }
    // A log begins where a snapshot was made: see `Writer::begin_snapshot`.
    let logs = &files.logs[files.logs.partition_point(|base| snapshot.is_some_and(|s| *base < s))..];
    for (index, &base) in logs.iter().enumerate() {
        let path = dir.join(log_name(base));
        let reached = state.revision();
        if base > reached {
            damage.found(format!(
                "{}: what came before revision {base} is missing; what there is ends at {reached}",
                path.display()
            ))?;
            state.set_revision(base);
        }
        let next = logs.get(index + 1).copied();
        let end = load_log(&path, base, next, state, &mut damage)?;
        loaded.last = end.map(|end| (Header { role: Role::Log, base }, end));
    }
    if let Some(error) = state.sealing.closed.take() {
        return Err(error);
    }
    Ok(loaded)
}

/// Removes files that were never finished, and those that a newer snapshot stands for.
pub(super) fn tidy(dir: &Path, snapshot: Option<u64>) -> io::Result<()> {
    Files::list(dir)?.unfinished.iter().try_for_each(fs::remove_file)?;
    snapshot.map_or(Ok(()), |revision| prune(dir, revision))
}

impl Damage<'_> {
    fn found(&mut self, what: String) -> Result<(), StorageError> {
        match self {
            Self::Refuse => Err(StorageError::Corrupt(what)),
            Self::Skip(notes) => {
                notes.push(what);
                Ok(())
            }
        }
    }
}

fn unreadable(what: impl Display, error: &io::Error) -> StorageError {
    StorageError::Unavailable(format!("cannot read {what}: {error}"))
}

/// Reads one snapshot, and says how large it is.
pub(in crate::storage) fn read_snapshot(
    from: impl Read,
    name: &dyn Display,
    state: &mut State,
) -> Result<u64, StorageError> {
    let mut reader = Reader::new(from, name)?;
    let header = reader.header();
    let damaged = |what: &str| Err(StorageError::Corrupt(format!("{name}: {what}")));
    if header.role != Role::Snapshot {
        return damaged("it is a log, not a snapshot");
    }
    state.set_revision(header.base);
    let mut count = 0;
    loop {
        let at = reader.offset();
        let payload = match reader.next().map_err(|e| unreadable(name, &e))? {
            Next::Frame(payload) => payload,
            Next::End => return damaged(&format!("it ends too early, at byte {at}")),
            Next::Damaged => return damaged(&format!("it is damaged or ends too early, at byte {at}")),
        };
        for record in records(payload) {
            match record {
                Some(Record::Put { revision, key, json }) => replay(state, revision, key, json, false),
                Some(Record::Removed { revision, key, json }) => replay(state, revision, key, json, true),
                Some(Record::Forgotten { revision, shard }) => state.forget(shard, revision),
                Some(Record::End { records }) if records == count => {
                    return Ok(at + (frame::FRAME_HEADER + payload.len()) as u64);
                }
                Some(Record::End { records }) => {
                    return damaged(&format!("it has {count} records instead of {records}"));
                }
                None => return damaged(&format!("there is a record at byte {at} that makes no sense")),
            }
            count += u64::from(!matches!(record, Some(Record::Forgotten { .. })));
        }
    }
}

fn load_snapshot(path: &Path, state: &mut State, damage: &mut Damage<'_>) -> Result<u64, StorageError> {
    let file = File::open(path).map_err(|e| unreadable(path.display(), &e))?;
    match read_snapshot(BufReader::with_capacity(1 << 18, file), &path.display(), state) {
        Ok(size) => Ok(size),
        Err(StorageError::Corrupt(what)) => {
            damage.found(what)?;
            let bytes = fs::read(path).map_err(|e| unreadable(path.display(), &e))?;
            let revision = path.file_name().and_then(|n| n.to_str()?.strip_prefix("snapshot-")?.parse().ok());
            let header = Header { role: Role::Snapshot, base: revision.unwrap_or(1) };
            salvage(header, &bytes, state);
            state.set_revision(header.base);
            Ok(bytes.len() as u64)
        }
        Err(error) => Err(error),
    }
}

/// Reads one log, up to the revision `until` if another one follows. Answers where its last whole frame ends; nothing
/// if it is damaged.
fn load_log(
    path: &Path,
    base: u64,
    until: Option<u64>,
    state: &mut State,
    damage: &mut Damage<'_>,
) -> Result<Option<u64>, StorageError> {
    let name = path.display();
    let header = Header { role: Role::Log, base };
    let failed = |e: io::Error| unreadable(path.display(), &e);
    let file = File::open(path).map_err(failed)?;
    let begun = Reader::new(BufReader::with_capacity(1 << 18, file), &name);
    let mut reader = match begun {
        Ok(reader) if reader.header() == header => reader,
        Ok(_) => {
            return damage.found(format!("{name}: it is not what its name says")).map(|()| None);
        }
        Err(StorageError::Corrupt(what)) => {
            damage.found(what)?;
            salvage(header, &fs::read(path).map_err(failed)?, state);
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    loop {
        let at = reader.offset();
        let reached = state.revision();
        match reader.next().map_err(failed)? {
            Next::Frame(payload) => {
                if replay_log(payload, until, state) {
                    continue;
                }
                damage
                    .found(format!("{name}: what stands at byte {at} does not follow revision {reached}"))?;
                return Ok(None);
            }
            // What a failed write has left behind does not count, if it was gone on in another file.
            Next::End | Next::Damaged if until.is_some_and(|until| reached >= until) => return Ok(Some(at)),
            Next::End if until.is_none() => return Ok(Some(at)),
            Next::End => {
                damage.found(format!(
                    "{name}: it ends after revision {reached}, and the next log begins later"
                ))?;
                return Ok(None);
            }
            Next::Damaged => {
                let bytes = fs::read(path).map_err(failed)?;
                let start = usize::try_from(at).expect("files fit into memory");
                let rest = bytes.get(start..).unwrap_or_default();
                // What is torn at the end was never acknowledged: its writer did not live to see it flushed.
                let behind = frame::find(header, rest);
                if until.is_none() && behind.is_none() {
                    cut_off(path, rest, reached);
                    return Ok(Some(at));
                }
                let lost = match behind {
                    Some(end) => format!("{end} bytes"),
                    None => format!("{} bytes, all to its end,", rest.len()),
                };
                damage.found(format!(
                    "{name}: {lost} from byte {at} are damaged; they hold changes after revision {reached}"
                ))?;
                salvage(header, rest, state);
                return Ok(None);
            }
        }
    }
}

/// Keeps what is about to be cut off for whoever wants to look at it.
fn cut_off(path: &Path, rest: &[u8], revision: u64) {
    let used = rest.len() - rest.iter().rev().take_while(|b| **b == 0).count();
    tracing::warn!(
        file = %path.display(), bytes = used, revision,
        "the log ends in the middle of a write that was not finished; it is cut off, and kept in the file cut-off. \
         Nothing that was acknowledged is lost, unless the disk has changed what was written to it last"
    );
    if let Err(error) = fs::write(path.with_file_name(CUT_OFF), &rest[..used]) {
        tracing::warn!(%error, "cannot keep what is cut off");
    }
}

fn replay(state: &mut State, revision: u64, key: &str, kept: &[u8], removed: bool) {
    let seal = state.seal().clone();
    match seal.open(key, kept) {
        Ok(json) => {
            if seal.is_stale(key, kept) {
                state.sealing.stale = true;
            }
            state.replay(key, Stored::new(bytes::Bytes::copy_from_slice(&json), revision), removed);
        }
        // It is an error of all that is read, once it has been read: what follows it is no damage.
        Err(error) => {
            state.sealing.closed.get_or_insert(error);
            state.set_revision(revision);
        }
    }
}

/// Replays a frame of a log; `false` if it does not fit to what came before it.
fn replay_log(payload: &[u8], until: Option<u64>, state: &mut State) -> bool {
    // What a snapshot shows is older than its own revision, and is not to be told again.
    let known = state.revision();
    for record in records(payload) {
        let (revision, key, json, removed) = match record {
            Some(Record::Put { revision, key, json }) => (revision, key, json, false),
            Some(Record::Removed { revision, key, json }) => (revision, key, json, true),
            Some(Record::Forgotten { revision, .. }) => {
                state.compact(revision);
                continue;
            }
            Some(Record::End { .. }) | None => return false,
        };
        if revision > state.revision() + 1 {
            return false;
        }
        if revision > known && until.is_none_or(|until| revision <= until) {
            replay(state, revision, key, json, removed);
        }
    }
    true
}

/// Replays whatever whole frames there are.
fn salvage(header: Header, mut bytes: &[u8], state: &mut State) {
    while let Some(start) = frame::find(header, bytes) {
        let frame = &bytes[start..];
        let length = u32::from_le_bytes(frame[4..8].try_into().expect("four bytes")) as usize;
        let (frame, rest) = frame.split_at(frame::FRAME_HEADER + length);
        for record in records(&frame[frame::FRAME_HEADER..]).flatten() {
            match record {
                Record::Put { revision, key, json } => replay(state, revision, key, json, false),
                Record::Removed { revision, key, json } => replay(state, revision, key, json, true),
                Record::Forgotten { .. } | Record::End { .. } => {}
            }
        }
        bytes = rest;
    }
}
