//! Frames of SPDY/3.1, to and from bytes.
//!
//! Data is passed on as it comes, in pieces: a frame of 16 MiB needs no memory of its size.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, Headers, Inflater};

const VERSION: u16 = 3;
const FIN: u8 = 1;
/// What precedes every frame's payload.
const HEAD: usize = 8;
/// The longest control frame that is read.
const CONTROL_LIMIT: usize = 64 * 1024;
/// A 31-bit number.
const ID: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The setting that says how much may be sent on a new stream unasked.
pub(super) const INITIAL_WINDOW: u32 = 7;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResetStatus(pub(super) u32);

impl ResetStatus {
    pub(super) const PROTOCOL_ERROR: Self = Self(1);
    pub(super) const REFUSED_STREAM: Self = Self(3);
    pub(super) const CANCEL: Self = Self(5);
    pub(super) const FLOW_CONTROL_ERROR: Self = Self(7);
    pub(super) const STREAM_IN_USE: Self = Self(8);
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoAwayStatus(pub(super) u32);

impl GoAwayStatus {
    pub(super) const OK: Self = Self(0);
    pub(super) const PROTOCOL_ERROR: Self = Self(1);
}

/// What the other end must not send.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ProtocolError {
    #[error("version {0} of SPDY is not spoken here")]
    Version(u16),
    #[error("a frame of type {kind} cannot be {length} bytes long")]
    Length { kind: u16, length: usize },
    #[error("stream 0 carries nothing")]
    ZeroStream,
    #[error("bad headers: {0}")]
    Headers(&'static str),
    #[error("more was sent than the window allows")]
    Window,
}

/// A frame; of data, perhaps only a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Opens a stream; with `fin` its sender sends nothing on it.
    SynStream { stream: u32, fin: bool, headers: Headers },
    /// Accepts a stream.
    SynReply { stream: u32, fin: bool, headers: Headers },
    /// Ends a stream in both directions at once.
    Reset { stream: u32, status: ResetStatus },
    /// Pairs of a setting's number and its value.
    Settings(Vec<(u32, u32)>),
    /// To be sent back as it is by the end that did not choose its number.
    Ping(u32),
    /// No stream after `last` was taken, and none will be.
    GoAway { last: u32, status: GoAwayStatus },
    /// Further headers of a stream.
    Headers { stream: u32, fin: bool, headers: Headers },
    /// So many more bytes may be sent on the stream; on the whole connection, for stream 0.
    WindowUpdate { stream: u32, delta: u32 },
    /// Bytes of a stream; with `fin` the last of its sender.
    Data { stream: u32, fin: bool, bytes: Bytes },
}

/// Makes bytes of frames.
pub(super) struct Encoder(Deflater);

impl Encoder {
    pub(super) fn new() -> Self {
        Self(Deflater::new())
    }

    /// Appends the frame to `out`.
    pub(super) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        let start = out.len();
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                control(out, SYN_STREAM, *fin);
                out.put_u32(*stream);
                // Associated with no stream, of the highest priority, in no slot.
                out.put_u32(0);
                out.put_u16(0);
                self.0.write(headers, out);
            }
            Frame::SynReply { stream, fin, headers } => {
                control(out, SYN_REPLY, *fin);
                out.put_u32(*stream);
                self.0.write(headers, out);
            }
            Frame::Reset { stream, status } => {
                control(out, RST_STREAM, false);
                out.put_u32(*stream);
                out.put_u32(status.0);
            }
            Frame::Settings(settings) => {
                control(out, SETTINGS, false);
                out.put_u32(u32::try_from(settings.len()).expect("there are few settings"));
                for (name, value) in settings {
                    out.put_u32(*name);
                    out.put_u32(*value);
                }
            }
            Frame::Ping(id) => {
                control(out, PING, false);
                out.put_u32(*id);
            }
            Frame::GoAway { last, status } => {
                control(out, GOAWAY, false);
                out.put_u32(*last);
                out.put_u32(status.0);
            }
            Frame::Headers { stream, fin, headers } => {
                control(out, HEADERS, *fin);
                out.put_u32(*stream);
                self.0.write(headers, out);
            }
            Frame::WindowUpdate { stream, delta } => {
                control(out, WINDOW_UPDATE, false);
                out.put_u32(*stream);
                out.put_u32(*delta);
            }
            Frame::Data { stream, fin, bytes } => {
                out.put_u32(*stream & ID);
                out.put_u32(u32::from(*fin) << 24);
                out.put_slice(bytes);
            }
        }
        let length = out.len() - start - HEAD;
        let length = u32::try_from(length).expect("what is sent comes in small pieces");
        debug_assert!(length < 1 << 24);
        out[start + 5..start + HEAD].copy_from_slice(&length.to_be_bytes()[1..]);
    }
}

/// The head of a control frame, whose length is yet to be filled in.
fn control(out: &mut BytesMut, kind: u16, fin: bool) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(fin) << 24);
}

/// The rest of a data frame that is being read.
struct Partial {
    stream: u32,
    left: usize,
    fin: bool,
}

/// Makes frames of bytes.
pub(super) struct Decoder {
    inflater: Inflater,
    partial: Option<Partial>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { inflater: Inflater::new(), partial: None }
    }

    /// Takes the next frame, or what there is of it, from the front of `input`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        loop {
            if let Some(partial) = &mut self.partial {
                if input.is_empty() && partial.left > 0 {
                    return Ok(None);
                }
                let bytes = input.split_to(partial.left.min(input.len())).freeze();
                partial.left -= bytes.len();
                let (stream, fin) = (partial.stream, partial.fin && partial.left == 0);
                if partial.left == 0 {
                    self.partial = None;
                }
                return Ok(Some(Frame::Data { stream, fin, bytes }));
            }
            let Some(mut head) = input.get(..HEAD) else { return Ok(None) };
            let word = head.get_u32();
            let (flags, length) = (head[0], (head.get_u32() & 0x00ff_ffff) as usize);
            if word >> 31 == 0 {
                if word == 0 {
                    return Err(ProtocolError::ZeroStream);
                }
                input.advance(HEAD);
                self.partial = Some(Partial { stream: word, left: length, fin: flags & FIN != 0 });
                continue;
            }
            let (version, kind) = ((word >> 16 & 0x7fff) as u16, (word & 0xffff) as u16);
            if version != VERSION {
                return Err(ProtocolError::Version(version));
            }
            if length > CONTROL_LIMIT {
                return Err(ProtocolError::Length { kind, length });
            }
            if input.len() < HEAD + length {
                return Ok(None);
            }
            input.advance(HEAD);
            let payload = input.split_to(length).freeze();
            if let Some(frame) = self.control(kind, flags & FIN != 0, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// `None` for a type that nobody needs to know.
    fn control(&mut self, kind: u16, fin: bool, mut payload: Bytes) -> Result<Option<Frame>, ProtocolError> {
        let length = payload.len();
        let wrong = |_| ProtocolError::Length { kind, length };
        let mut word = || payload.try_get_u32().map_err(wrong);
        let frame = match kind {
            SYN_STREAM => {
                let stream = stream_id(word()?)?;
                let _associated = word()?;
                let _priority_and_slot = payload.try_get_u16().map_err(wrong)?;
                Frame::SynStream { stream, fin, headers: self.inflater.read(&payload)? }
            }
            SYN_REPLY => {
                let stream = stream_id(word()?)?;
                Frame::SynReply { stream, fin, headers: self.inflater.read(&payload)? }
            }
            RST_STREAM => Frame::Reset { stream: stream_id(word()?)?, status: ResetStatus(word()?) },
            SETTINGS => {
                let count = word()?;
                let settings = (0..count).map(|_| Ok((word()? & 0x00ff_ffff, word()?)));
                Frame::Settings(settings.collect::<Result<_, _>>()?)
            }
            PING => Frame::Ping(word()?),
            GOAWAY => Frame::GoAway { last: word()? & ID, status: GoAwayStatus(word()?) },
            HEADERS => {
                let stream = stream_id(word()?)?;
                Frame::Headers { stream, fin, headers: self.inflater.read(&payload)? }
            }
            WINDOW_UPDATE => Frame::WindowUpdate { stream: word()? & ID, delta: word()? & ID },
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

fn stream_id(word: u32) -> Result<u32, ProtocolError> {
    match word & ID {
        0 => Err(ProtocolError::ZeroStream),
        id => Ok(id),
    }
}

#[cfg(test)]
mod tests;
