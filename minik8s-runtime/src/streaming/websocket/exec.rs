//! Exec and attach over WebSocket: `v5.channel.k8s.io` and its predecessors
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).
//!
//! The first byte of every binary message says which stream it belongs to.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use tokio_util::sync::CancellationToken;

use super::{HEARTBEAT, accept, linger, negotiate};
use crate::runtime::{Result as RuntimeResult, Streams};
use crate::streaming::params::Params;
use crate::streaming::session::{self, Client, Message, StatusForm, TerminalSizes};
use crate::streaming::{Body, Refusal};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 only: the stream named by the next byte ends.
const CLOSE: u8 = 255;
/// Messages that wait in each direction.
const QUEUE: usize = 16;

/// How the streams are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocol {
    name: &'static str,
    /// Payloads are base64 text.
    base64: bool,
    /// How the process's end is told.
    status: StatusForm,
}

const OLDEST: Protocol = Protocol { name: "channel.k8s.io", base64: false, status: StatusForm::Text };

const PROTOCOLS: &[Protocol] = &[
    Protocol { name: "v5.channel.k8s.io", base64: false, status: StatusForm::Json },
    Protocol { name: "v4.channel.k8s.io", base64: false, status: StatusForm::Json },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, status: StatusForm::Json },
    OLDEST,
    Protocol { name: "base64.channel.k8s.io", base64: true, status: StatusForm::Text },
];

/// Answers the handshake and runs the session on the connection.
pub(in crate::streaming) fn start(
    request: Request<Incoming>,
    params: &Params,
    shutdown: CancellationToken,
    start: impl Future<Output = RuntimeResult<Streams>> + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let chosen = negotiate(request.headers(), PROTOCOLS.iter().map(|p| p.name))?;
    // A client that names none gets the oldest, as from Kubernetes.
    let protocol = chosen.map_or(OLDEST, |chosen| PROTOCOLS[chosen]);
    let has_stdin = params.flag("stdin");
    accept(request, chosen.map(|_| protocol.name), shutdown, move |socket| {
        drive(socket, protocol, has_stdin, start)
    })
}

async fn drive<S>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    has_stdin: bool,
    start: impl Future<Output = RuntimeResult<Streams>>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let (stdin, stdin_out) = mpsc::channel(QUEUE);
    let (resize, resize_out) = mpsc::channel(QUEUE);
    let (out, mut messages) = mpsc::channel(QUEUE);
    let session = session::run(start, Client { stdin: stdin_out, resize: resize_out, out });
    let receive = async {
        let mut stdin = Some(stdin).filter(|_| has_stdin);
        let mut sizes = TerminalSizes::default();
        while let Some(Ok(frame)) = stream.next().await {
            // What a frame is called says nothing: some clients send the bytes of the binary protocols as text.
            let payload = match frame {
                Frame::Binary(payload) => payload,
                Frame::Text(text) => text.into(),
                Frame::Close(_) => break,
                // Pings have been answered where they are read.
                _ => continue,
            };
            let payload = match protocol.base64 {
                true => match decode_base64(&payload) {
                    Some(payload) => payload,
                    None => break,
                },
                false => payload,
            };
            let Some((&channel, data)) = payload.split_first() else { continue };
            match channel {
                STDIN => {
                    if let Some(sender) = &stdin
                        && sender.send(payload.slice(1..)).await.is_err()
                    {
                        // Nobody reads it any more, but the process's last words are still to come.
                        stdin = None;
                    }
                }
                CLOSE if data.first() == Some(&STDIN) => stdin = None,
                RESIZE => {
                    for size in sizes.push(data) {
                        let _ = resize.send(size).await;
                    }
                }
                _ => {}
            }
        }
    };
    let send = async {
        loop {
            match tokio::time::timeout(HEARTBEAT, messages.recv()).await {
                Ok(Some(message)) => sink.send(encode(protocol, message)).await?,
                Ok(None) => break,
                Err(_) => sink.send(Frame::Ping(Bytes::new())).await?,
            }
        }
        let reason = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Frame::Close(Some(reason))).await?;
        sink.flush().await
    };
    let session = async {
        session.await;
        Ok(())
    };
    // A client that cannot be written to ends a session that waits for it.
    let talk = async { tokio::try_join!(session, send).map(drop) };
    let done: Result<(), Error> = tokio::select! {
        biased;
        done = talk => done,
        () = receive => return,
    };
    match done {
        Ok(()) => linger(stream).await,
        Err(error) => tracing::debug!(%error, "a streaming client went away"),
    }
}

fn encode(protocol: Protocol, message: Message) -> Frame {
    let (channel, payload) = match message {
        Message::Stdout(bytes) => (STDOUT, bytes),
        Message::Stderr(bytes) => (STDERR, bytes),
        Message::Status(status) => (ERROR, protocol.status.payload(&status)),
    };
    if protocol.base64 {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(payload);
        return Frame::text(format!("{channel}{text}"));
    }
    let mut frame = BytesMut::with_capacity(payload.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(&payload);
    Frame::Binary(frame.freeze())
}

/// The channel's digit, then base64.
fn decode_base64(text: &[u8]) -> Option<Bytes> {
    use base64::Engine;
    let (channel, data) = text.split_first()?;
    let mut payload = vec![channel.checked_sub(b'0').filter(|number| *number <= 9)?];
    payload.extend(base64::engine::general_purpose::STANDARD.decode(data).ok()?);
    Some(payload.into())
}

#[cfg(test)]
mod tests;
