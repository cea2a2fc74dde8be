//! The file that is written to: frames at its end, each flushed before it counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::directory;
use super::frame::{FILE_HEADER, Header, Role};

/// How much room is set aside at once: writes into it leave the file's size alone, so there is less to flush.
const ROOM: u64 = 4 * 1024 * 1024;

/// A log file, open for writing at its end.
pub(super) struct Segment {
    file: File,
    header: Header,
    /// Where the next frame goes. What lies behind counts for nothing.
    end: u64,
    /// How far the file reaches, room included.
    room: u64,
    /// A frame was begun, and it is not known how much of it is there.
    dirty: bool,
}

impl Segment {
    /// A new file for what comes after the revision `base`.
    pub(super) fn create(dir: &Path, base: u64) -> io::Result<Self> {
        let header = Header { role: Role::Log, base };
        let name = directory::log_name(base);
        directory::publish(dir, &name, |file| file.write_all_at(&header.encode(), 0))?;
        Self::open(&dir.join(name), header, FILE_HEADER as u64)
    }

    /// The file of this header, whose last whole frame ends at `end`. What lies behind is cut off.
    pub(super) fn open(path: &Path, header: Header, end: u64) -> io::Result<Self> {
        let file = File::options().write(true).open(path)?;
        let mut segment = Self { file, header, end, room: end, dirty: true };
        segment.clean()?;
        Ok(segment)
    }

    pub(super) fn header(&self) -> Header {
        self.header
    }

    /// Bytes of frames.
    pub(super) fn bytes(&self) -> u64 {
        self.end - FILE_HEADER as u64
    }

    /// Writes a frame and flushes it. After an error it is as if nothing had been written.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.clean()?;
        self.dirty = true;
        let end = self.end + frame.len() as u64;
        if end > self.room {
            let room = end + ROOM;
            // A file system that cannot do so, or has no such room, may still have enough for the frame.
            self.room = match set_aside(&self.file, self.end, room - self.end) {
                Ok(()) => room,
                Err(_) => end,
            };
        }
        self.file.write_all_at(frame, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        self.dirty = false;
        Ok(())
    }

    /// Cuts off what a failed write may have left.
    fn clean(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.set_len(self.end)?;
            self.file.sync_all()?;
            self.room = self.end;
            self.dirty = false;
        }
        Ok(())
    }
}

fn set_aside(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let number = |n: u64| i64::try_from(n).map_err(io::Error::other);
    fallocate(file, FallocateFlags::empty(), number(from)?, number(bytes)?).map_err(io::Error::from)
}
