//! A SPDY connection whose streams are all opened by the client.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::flow::Flow;
use super::frame::{Decoder, Encoder, Frame, GoAwayStatus, INITIAL_WINDOW, ProtocolError, ResetStatus};
use super::headers::Headers;

/// Pieces of data that wait on each stream, and for the connection to be written to.
const QUEUE: usize = 16;
/// Frames about streams that wait to be written, before reading stops.
const CONTROL_QUEUE: usize = 256;
/// The largest piece of data that is sent at once.
const CHUNK: usize = 32 * 1024;
/// Written at once.
const BATCH: usize = 64 * 1024;
/// What a client may send on a stream is granted anew when so much of it was taken.
const CREDIT: u32 = 32 * 1024;
/// Streams that may be open at once.
const STREAMS: usize = 4096;
/// A connection on which nothing is said is written to this often, to learn that nobody is left.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a client may take to read what is left and hang up.
const LINGER: Duration = Duration::from_secs(60);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A stream that the client opened and that has been accepted.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    /// What the client sends on it; ends when the client does.
    pub(crate) input: mpsc::Receiver<Bytes>,
    /// What it is sent.
    pub(crate) output: Output,
}

/// The server's half of a stream. Dropping it unfinished resets the stream.
#[derive(Debug)]
pub(crate) struct Output {
    state: Arc<State>,
    data: mpsc::Sender<Frame>,
    control: mpsc::Sender<Frame>,
    finished: bool,
}

/// What both halves know of a stream.
#[derive(Debug)]
struct State {
    id: u32,
    reset: CancellationToken,
    flow: Arc<Flow>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.flow.change(|windows| windows.close(self.id));
    }
}

impl Output {
    /// Sends the bytes; `false` when the client does not want any more.
    pub(crate) async fn send(&self, mut bytes: Bytes) -> bool {
        let State { id, reset, flow } = &*self.state;
        while !bytes.is_empty() {
            let want = bytes.len().min(CHUNK);
            let taken = tokio::select! {
                biased;
                () = reset.cancelled() => return false,
                taken = flow.take(*id, want) => taken,
            };
            let piece = Frame::Data { stream: *id, fin: false, bytes: bytes.split_to(taken) };
            if self.data.send(piece).await.is_err() {
                return false;
            }
        }
        !reset.is_cancelled()
    }

    /// Says that nothing follows.
    pub(crate) async fn finish(mut self) {
        self.finished = true;
        if !self.state.reset.is_cancelled() {
            let end = Frame::Data { stream: self.state.id, fin: true, bytes: Bytes::new() };
            // A connection that is gone has told the client already.
            let _ = self.data.send(end).await;
        }
    }

    /// Cancelled when the client resets the stream.
    pub(crate) fn reset(&self) -> CancellationToken {
        self.state.reset.clone()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.finished && !self.state.reset.is_cancelled() {
            let reset = Frame::Reset { stream: self.state.id, status: ResetStatus::CANCEL };
            // With so much unsaid on the connection, its end will tell.
            let _ = self.control.try_send(reset);
        }
    }
}

/// Speaks SPDY until `handler`, which is given the streams as they are opened, has ended and the client has hung
/// up, or until the client is gone. Then everything of the connection has ended, `handler` included.
pub(crate) async fn serve<F: Future<Output = ()>>(
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    handler: impl FnOnce(mpsc::Receiver<Stream>) -> F,
) {
    let (data, data_out) = mpsc::channel(QUEUE);
    let (control, control_out) = mpsc::channel(CONTROL_QUEUE);
    let (opened, streams) = mpsc::channel(QUEUE);
    let last = Arc::new(AtomicU32::new(0));
    let receiver = Receiver {
        streams: BTreeMap::new(),
        opened,
        data: data.clone(),
        control: control.clone(),
        flow: Arc::new(Flow::new()),
        last: last.clone(),
        uncredited: 0,
    };
    {
        let mut write = std::pin::pin!(write(&mut writer, control_out, data_out));
        let go_away = |status| Frame::GoAway { last: last.load(Ordering::Relaxed), status };
        let work = async {
            handler(streams).await;
            // Behind all data. Then the client hangs up, since who closes first may cut off what is on its way.
            let _ = data.send(go_away(GoAwayStatus::OK)).await;
            tokio::time::sleep(LINGER).await;
        };
        let broken = tokio::select! {
            read = receiver.run(reader) => read.err(),
            written = &mut write => {
                if let Err(error) = written {
                    tracing::debug!(%error, "a streaming client went away");
                }
                None
            }
            () = work => None,
        };
        if let Some(error) = broken {
            tracing::debug!(%error, "a streaming client does not speak SPDY/3.1");
            let _ = control.try_send(go_away(GoAwayStatus::PROTOCOL_ERROR));
            let _ = tokio::time::timeout(LAST_WORDS, write).await;
        }
    }
    let _ = tokio::time::timeout(LAST_WORDS, writer.shutdown()).await;
}

/// Writes what is queued, what is about streams first, until it has said that the connection is broken.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    mut control: mpsc::Receiver<Frame>,
    mut data: mpsc::Receiver<Frame>,
) -> std::io::Result<()> {
    let mut encoder = Encoder::new();
    let mut out = BytesMut::new();
    loop {
        let mut next = tokio::select! {
            biased;
            Some(frame) = control.recv() => Some(frame),
            Some(frame) = data.recv() => Some(frame),
            // Says nothing and asks for no answer. A ping would: kubectl answers under the lock that its own
            // writing holds, and so can be stopped by one for good.
            () = tokio::time::sleep(HEARTBEAT) => Some(Frame::Settings(Vec::new())),
        };
        let mut broken = false;
        while let Some(frame) = next {
            broken |= matches!(frame, Frame::GoAway { status, .. } if status != GoAwayStatus::OK);
            encoder.encode(&frame, &mut out);
            next = match out.len() < BATCH {
                true => control.try_recv().or_else(|_| data.try_recv()).ok(),
                false => None,
            };
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
        out.clear();
        if broken {
            return Ok(());
        }
    }
}

/// The receiving half of a stream.
struct Inbound {
    /// `None` when nothing more is expected.
    input: Option<mpsc::Sender<Bytes>>,
    /// Bytes that were taken and not yet granted anew.
    uncredited: u32,
    /// Gone when the server has ended its half.
    state: Weak<State>,
}

/// The receiving half of a connection.
struct Receiver {
    streams: BTreeMap<u32, Inbound>,
    opened: mpsc::Sender<Stream>,
    data: mpsc::Sender<Frame>,
    control: mpsc::Sender<Frame>,
    flow: Arc<Flow>,
    /// The newest stream that was accepted.
    last: Arc<AtomicU32>,
    /// As of a stream, for the whole connection.
    uncredited: u32,
}

impl Receiver {
    /// Reads until the client hangs up. One stream that is not read from holds up the others when its queue is full.
    async fn run(mut self, mut reader: impl AsyncRead + Unpin) -> Result<(), ProtocolError> {
        let mut decoder = Decoder::new();
        let mut input = BytesMut::with_capacity(CHUNK);
        loop {
            while let Some(frame) = decoder.decode(&mut input)? {
                self.receive(frame).await?;
            }
            input.reserve(CHUNK / 2);
            match reader.read_buf(&mut input).await {
                Ok(1..) => {}
                Ok(0) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "a streaming client went away");
                    return Ok(());
                }
            }
        }
    }

    async fn receive(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        match frame {
            Frame::SynStream { stream, fin, headers } => self.open(stream, fin, headers).await,
            Frame::Data { stream, fin, bytes } => self.take(stream, fin, bytes).await,
            Frame::Headers { stream, fin: true, .. } => self.take(stream, true, Bytes::new()).await,
            Frame::Reset { stream, .. } => {
                let state = self.streams.remove(&stream).and_then(|s| s.state.upgrade());
                if let Some(state) = state {
                    state.reset.cancel();
                }
            }
            // Odd numbers are the client's own.
            Frame::Ping(id) if id % 2 == 1 => self.tell(Frame::Ping(id)).await,
            Frame::Settings(settings) => {
                for (_, size) in settings.into_iter().filter(|(name, _)| *name == INITIAL_WINDOW) {
                    self.flow.change(|windows| windows.set_initial(size));
                }
            }
            Frame::WindowUpdate { stream, delta } => {
                if let Err(error) = self.flow.change(|windows| windows.grant(stream, delta)) {
                    if stream == 0 {
                        return Err(error);
                    }
                    self.refuse(stream, ResetStatus::FLOW_CONTROL_ERROR).await;
                }
            }
            // A client that goes away hangs up when its streams have ended.
            Frame::GoAway { .. } | Frame::Ping(_) | Frame::SynReply { .. } | Frame::Headers { .. } => {}
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        // What has ended on both sides.
        self.streams
            .retain(|_, s| s.input.as_ref().is_some_and(|i| !i.is_closed()) || s.state.strong_count() > 0);
        if self.streams.contains_key(&id) {
            return self.refuse(id, ResetStatus::STREAM_IN_USE).await;
        }
        if id.is_multiple_of(2) || id <= self.last.load(Ordering::Relaxed) {
            return self.refuse(id, ResetStatus::PROTOCOL_ERROR).await;
        }
        if self.streams.len() >= STREAMS {
            return self.refuse(id, ResetStatus::REFUSED_STREAM).await;
        }
        self.last.store(id, Ordering::Relaxed);
        self.flow.change(|windows| windows.open(id));
        let state = Arc::new(State { id, reset: CancellationToken::new(), flow: self.flow.clone() });
        let (sender, input) = mpsc::channel(QUEUE);
        let inbound =
            Inbound { input: Some(sender).filter(|_| !fin), uncredited: 0, state: Arc::downgrade(&state) };
        self.streams.insert(id, inbound);
        self.tell(Frame::SynReply { stream: id, fin: false, headers: Headers::default() }).await;
        let (data, control) = (self.data.clone(), self.control.clone());
        let output = Output { state, data, control, finished: false };
        // If nobody takes it any more, dropping it resets it.
        let _ = self.opened.send(Stream { id, headers, input, output }).await;
    }

    async fn take(&mut self, id: u32, fin: bool, bytes: Bytes) {
        let length = u32::try_from(bytes.len()).expect("what is read at once is small");
        if let Some(stream) = self.streams.get_mut(&id) {
            if let Some(input) = &stream.input
                && !bytes.is_empty()
                && input.send(bytes).await.is_err()
            {
                stream.input = None;
            }
            if fin {
                stream.input = None;
            }
            stream.uncredited += length;
            if stream.uncredited >= CREDIT && !fin {
                let delta = std::mem::take(&mut stream.uncredited);
                self.tell(Frame::WindowUpdate { stream: id, delta }).await;
            }
        }
        self.uncredited += length;
        if self.uncredited >= CREDIT {
            let delta = std::mem::take(&mut self.uncredited);
            self.tell(Frame::WindowUpdate { stream: 0, delta }).await;
        }
    }

    async fn refuse(&mut self, stream: u32, status: ResetStatus) {
        if let Some(state) = self.streams.remove(&stream).and_then(|s| s.state.upgrade()) {
            state.reset.cancel();
        }
        self.tell(Frame::Reset { stream, status }).await;
    }

    /// Waits while the client does not read.
    async fn tell(&self, frame: Frame) {
        // The connection ends when its writer does.
        let _ = self.control.send(frame).await;
    }
}

#[cfg(test)]
pub(super) mod tests;
