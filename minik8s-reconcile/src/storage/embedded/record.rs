//! What the payload of a frame holds: records, one behind the other. This is the one place where the bytes of a record
//! are made and read.
//!
//! A record is its tag (1 byte), a number (8), the lengths of its key and its value (4 each), the key, the value; all
//! numbers little-endian.

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// The key was written at that revision.
    Put { revision: u64, key: &'a str, json: &'a [u8] },
    /// The key was removed at that revision; `json` is its final state.
    Removed { revision: u64, key: &'a str, json: &'a [u8] },
    /// History up to that revision has been forgotten: of one shard, or of all (`""`).
    Forgotten { revision: u64, shard: &'a str },
    /// A snapshot ends here, after that many records.
    End { records: u64 },
}

impl<'a> Record<'a> {
    fn parts(self) -> (u8, u64, &'a str, &'a [u8]) {
        match self {
            Self::Put { revision, key, json } => (1, revision, key, json),
            Self::Removed { revision, key, json } => (2, revision, key, json),
            Self::Forgotten { revision, shard } => (3, revision, shard, &[]),
            Self::End { records } => (4, records, "", &[]),
        }
    }

    /// Puts the record behind what is in `out`.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        let (tag, number, key, value) = self.parts();
        let length = |n: usize| u32::try_from(n).expect("keys and values are short").to_le_bytes();
        out.push(tag);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&length(key.len()));
        out.extend_from_slice(&length(value.len()));
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value);
    }

    /// Takes the first record off `bytes`; `None` if there is none that one could make sense of.
    fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<17>()?;
        let number = u64::from_le_bytes(head[1..9].try_into().ok()?);
        let length = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?) as usize);
        let (key, rest) = rest.split_at_checked(length(9)?)?;
        let (json, rest) = rest.split_at_checked(length(13)?)?;
        let key = std::str::from_utf8(key).ok()?;
        *bytes = rest;
        Some(match head[0] {
            1 => Self::Put { revision: number, key, json },
            2 => Self::Removed { revision: number, key, json },
            3 => Self::Forgotten { revision: number, shard: key },
            4 => Self::End { records: number },
            _ => return None,
        })
    }
}

/// All records of a payload; the last item is `None` if it ends in the middle of one.
pub(super) fn records(mut payload: &[u8]) -> impl Iterator<Item = Option<Record<'_>>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let record = Record::decode(&mut payload);
        if record.is_none() {
            payload = &[];
        }
        Some(record)
    })
}
