//! Files of frames. A frame is what becomes durable as one: a marker, the length of its payload, a checksum over both,
//! the payload.
//!
//! A file begins with a header that says what it is. Every checksum begins with the header's, so a frame is worth
//! nothing in another file. The marker is no UTF-8, so it is not in keys and values, and a frame behind a damaged one
//! can be found.

use std::io::{self, Read};

use crate::storage::StorageError;

/// The newest format that this version writes and reads.
pub(super) const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"minik8s\n";
const MARKER: [u8; 4] = [0xff, b'm', 0xfe, b'8'];
/// Bytes of a file's header: magic, format, role, base, checksum.
pub(super) const FILE_HEADER: usize = 28;
/// Bytes of a frame before its payload.
pub(super) const FRAME_HEADER: usize = 12;
/// No frame is larger; what says so is damaged.
const LARGEST: u32 = 1 << 30;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Changes, after the file's base.
    Log,
    /// All there was at the file's base.
    Snapshot,
}

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) role: Role,
    /// The revision that the file begins after, or shows.
    pub(super) base: u64,
}

impl Header {
    fn seed(self) -> u32 {
        let bytes = self.encode();
        u32::from_le_bytes(bytes[FILE_HEADER - 4..].try_into().expect("four bytes"))
    }

    pub(super) fn encode(self) -> [u8; FILE_HEADER] {
        let role: u32 = match self.role {
            Role::Log => 1,
            Role::Snapshot => 2,
        };
        let mut bytes = [0; FILE_HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&role.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FILE_HEADER]) -> Result<Self, String> {
        if &bytes[..8] != MAGIC {
            return Err("it is not a file of minik8s".into());
        }
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if number(24) != crc32c::crc32c(&bytes[..24]) {
            return Err("its header is damaged".into());
        }
        if number(8) != FORMAT {
            return Err(format!(
                "it has format {}, and this version of minik8s reads format {FORMAT}: use the version that wrote it",
                number(8)
            ));
        }
        let role = match number(12) {
            1 => Role::Log,
            2 => Role::Snapshot,
            other => return Err(format!("it has the unknown role {other}")),
        };
        Ok(Self { role, base: u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")) })
    }
}

/// Puts `payload` behind what is in `out`, as a frame of the file `of`.
pub(super) fn encode(of: Header, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("batches are bounded").to_le_bytes();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(of.seed(), length, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

fn checksum(seed: u32, length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &length), payload)
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// The payload of a whole frame.
    Frame(&'a [u8]),
    /// Nothing but room that was set aside.
    End,
    /// Something that is not a whole frame.
    Damaged,
}

/// Reads a file from its beginning.
pub(super) struct Reader<R> {
    from: R,
    header: Header,
    seed: u32,
    /// Where the next frame begins.
    offset: u64,
    payload: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header. `name` is what errors call the file.
    pub(super) fn new(mut from: R, name: &dyn std::fmt::Display) -> Result<Self, StorageError> {
        let mut bytes = [0; FILE_HEADER];
        let header = match from.read_exact(&mut bytes) {
            Ok(()) => Header::decode(&bytes),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err("it is shorter than its header".into()),
            Err(e) => return Err(StorageError::Unavailable(format!("cannot read {name}: {e}"))),
        };
        let header = header.map_err(|why| StorageError::Corrupt(format!("cannot use {name}: {why}")))?;
        Ok(Self { from, header, seed: header.seed(), offset: FILE_HEADER as u64, payload: Vec::new() })
    }

    pub(super) fn header(&self) -> Header {
        self.header
    }

    /// Where the next frame begins; that of the damaged one after [`Next::Damaged`].
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        let mut head = [0; FRAME_HEADER];
        let found = fill(&mut self.from, &mut head)?;
        if head == [0; FRAME_HEADER] {
            return Ok(if only_zeros(&mut self.from)? { Next::End } else { Next::Damaged });
        }
        let (length, sum) = (head[4..8].try_into().expect("four"), head[8..].try_into().expect("four"));
        let size = u32::from_le_bytes(length);
        if found < FRAME_HEADER || head[..4] != MARKER || size > LARGEST {
            return Ok(Next::Damaged);
        }
        // Not more than there is, whatever the length says.
        self.payload.clear();
        let there = (&mut self.from).take(size.into()).read_to_end(&mut self.payload)?;
        if there < size as usize || checksum(self.seed, length, &self.payload) != u32::from_le_bytes(sum) {
            return Ok(Next::Damaged);
        }
        self.offset += (FRAME_HEADER + there) as u64;
        Ok(Next::Frame(&self.payload))
    }
}

/// Where the first whole frame begins in `bytes`, which are of the file `of`.
pub(super) fn find(of: Header, bytes: &[u8]) -> Option<usize> {
    let seed = of.seed();
    (0..bytes.len().saturating_sub(FRAME_HEADER - 1)).find(|&at| {
        let rest = &bytes[at..];
        if rest[..4] != MARKER {
            return false;
        }
        let length: [u8; 4] = rest[4..8].try_into().expect("four bytes");
        let sum = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes"));
        let end = FRAME_HEADER.saturating_add(u32::from_le_bytes(length) as usize);
        rest.get(FRAME_HEADER..end).is_some_and(|payload| checksum(seed, length, payload) == sum)
    })
}

/// Reads until `buffer` is full or there is no more, and says how much there was.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn only_zeros(from: &mut impl Read) -> io::Result<bool> {
    let mut buffer = [0; 8192];
    loop {
        match fill(from, &mut buffer)? {
            0 => return Ok(true),
            more if buffer[..more].iter().any(|b| *b != 0) => return Ok(false),
            _ => {}
        }
    }
}
