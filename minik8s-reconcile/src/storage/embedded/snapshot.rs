//! All there is at one revision, in one file: what the log before it comes to.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::directory;
use super::frame::{self, Header, Role};
use super::record::Record;
use crate::stored::Stored;

/// Bytes of records that share a frame.
const FRAME: usize = 64 * 1024;

/// One record that is still needed: a value, or a change of the history.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Kept {
    pub(in crate::storage) key: Arc<str>,
    pub(in crate::storage) value: Stored,
    pub(in crate::storage) removed: bool,
}

impl Kept {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { key, value, removed } = self;
        let (revision, json) = (value.revision(), &value.json()[..]);
        let record = if *removed {
            Record::Removed { revision, key, json }
        } else {
            Record::Put { revision, key, json }
        };
        record.encode(out);
    }
}

/// What a snapshot holds.
#[derive(Debug)]
pub(in crate::storage) struct Contents {
    pub(in crate::storage) revision: u64,
    /// How much of the history has been forgotten, by shard; `""` stands for all of them.
    pub(in crate::storage) forgotten: Vec<(String, u64)>,
    /// See [`Self::sort`].
    pub(in crate::storage) records: Vec<Kept>,
}

impl Contents {
    /// Brings the records into the order of their revisions, each once.
    pub(in crate::storage) fn sort(&mut self) {
        // Stable: within a revision, changes stay in the order in which they happened.
        self.records.sort_by_key(|r| r.value.revision());
        let mut seen = std::collections::BTreeSet::new();
        let mut at = 0;
        self.records.retain(|record| {
            let revision = record.value.revision();
            if revision != at {
                seen.clear();
                at = revision;
            }
            seen.insert(record.key.clone())
        });
    }

    /// The bytes of the file, piece by piece.
    pub(in crate::storage) fn into_chunks(self) -> impl Iterator<Item = Vec<u8>> + Send + 'static {
        let Self { revision, forgotten, records } = self;
        let header = Header { role: Role::Snapshot, base: revision };
        let count = records.len() as u64;
        let (mut records, mut begun, mut ended) = (records.into_iter(), false, false);
        std::iter::from_fn(move || {
            let (mut bytes, mut payload) = (Vec::new(), Vec::new());
            if !std::mem::replace(&mut begun, true) {
                bytes.extend_from_slice(&header.encode());
                for (shard, revision) in &forgotten {
                    Record::Forgotten { revision: *revision, shard }.encode(&mut payload);
                }
            }
            while payload.len() < FRAME && !ended {
                match records.next() {
                    Some(kept) => kept.encode(&mut payload),
                    None => {
                        Record::End { records: count }.encode(&mut payload);
                        ended = true;
                    }
                }
            }
            if payload.is_empty() {
                return None;
            }
            frame::encode(header, &payload, &mut bytes);
            Some(bytes)
        })
    }

    /// Writes them into the directory, and removes what they stand for. Answers the size of the file.
    pub(super) fn store(self, dir: &Path) -> io::Result<u64> {
        let revision = self.revision;
        let name = directory::snapshot_name(revision);
        directory::publish(dir, &name, |mut file| {
            self.into_chunks().try_for_each(|chunk| file.write_all(&chunk))
        })?;
        directory::prune(dir, revision)?;
        Ok(std::fs::metadata(dir.join(name))?.len())
    }
}
