//! Header blocks: names and values, compressed by one zlib stream per direction of a connection.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;
use super::frame::ProtocolError;

/// The largest block, uncompressed.
const LIMIT: usize = 64 * 1024;

/// Names, in lower case, and values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// The value of that name, whatever its case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Writes header blocks.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&dictionary()).expect("nothing was compressed yet");
        Self(zlib)
    }

    pub(super) fn write(&mut self, headers: &Headers, out: &mut BytesMut) {
        let mut plain = BytesMut::new();
        let count = |length: usize| u32::try_from(length).expect("our own headers are short");
        plain.put_u32(count(headers.0.len()));
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(count(text.len()));
            plain.put_slice(text.as_bytes());
        }
        let mut chunk = Vec::with_capacity(plain.len() + 64);
        while {
            let before = self.0.total_in();
            let done = self.0.compress_vec(&plain, &mut chunk, FlushCompress::Sync);
            done.expect("the stream has no end and its memory is its own");
            plain.advance(usize::try_from(self.0.total_in() - before).expect("no more than there was"));
            // Room that is left over says that all of it, and the flush, went out.
            let more = chunk.len() == chunk.capacity();
            out.put_slice(&chunk);
            chunk.clear();
            more
        } {}
    }
}

/// Reads header blocks.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn read(&mut self, compressed: &[u8]) -> Result<Headers, ProtocolError> {
        let plain = self.inflate(compressed)?;
        parse(&plain).ok_or(ProtocolError::Headers("the block is cut short"))
    }

    fn inflate(&mut self, mut compressed: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut plain = Vec::new();
        let mut chunk = Vec::with_capacity(4096);
        loop {
            let before = self.0.total_in();
            let done = self.0.decompress_vec(compressed, &mut chunk, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).expect("no more than there was");
            compressed = &compressed[taken..];
            let idle = taken == 0 && chunk.is_empty();
            let full = chunk.len() == chunk.capacity();
            plain.append(&mut chunk);
            chunk.reserve(4096);
            if plain.len() > LIMIT {
                return Err(ProtocolError::Headers("the block is too large"));
            }
            match done {
                Ok(Status::StreamEnd) => return Err(ProtocolError::Headers("the zlib stream ended")),
                Ok(_) if compressed.is_empty() && !full => return Ok(plain),
                Ok(_) if idle => return Err(ProtocolError::Headers("what is left cannot be read")),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    let known = self.0.set_dictionary(&dictionary());
                    known.map_err(|_| ProtocolError::Headers("the dictionary is not that of SPDY/3"))?;
                }
                Err(_) => return Err(ProtocolError::Headers("they are not zlib's")),
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Option<Headers> {
    let count = block.try_get_u32().ok()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let mut text = || {
            let length = usize::try_from(block.try_get_u32().ok()?).ok()?;
            let (text, rest) = block.split_at_checked(length)?;
            block = rest;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        headers.push((text()?, text()?));
    }
    Some(Headers(headers))
}
