//! Exec and attach over WebSocket: `v5.channel.k8s.io` and its predecessors
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).
//!
//! The first byte of every binary message says which stream it belongs to.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use super::params::Params;
use super::session::{self, Client, Message};
use super::{Body, Refusal};
use crate::runtime::{Result as RuntimeResult, Streams};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 only: the stream named by the next byte ends.
const CLOSE: u8 = 255;
/// Messages that wait in each direction.
const QUEUE: usize = 16;
/// The largest message a client may send.
const LIMIT: usize = 4 * 1024 * 1024;

/// How the streams are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocol {
    name: &'static str,
    /// Payloads are base64 text.
    base64: bool,
    /// How the process ended is told as a `Status`; before version 4, as text.
    status: bool,
}

const PROTOCOLS: &[Protocol] = &[
    Protocol { name: "v5.channel.k8s.io", base64: false, status: true },
    Protocol { name: "v4.channel.k8s.io", base64: false, status: true },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, status: true },
    Protocol { name: "channel.k8s.io", base64: false, status: false },
    Protocol { name: "base64.channel.k8s.io", base64: true, status: false },
];

/// Answers the handshake and runs the session on the connection.
pub(super) fn start(
    mut request: Request<Incoming>,
    params: &Params,
    start: impl Future<Output = RuntimeResult<Streams>> + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<String> = offered
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|v| v.trim().to_owned())
        .collect();
    // A client that names none gets the oldest, as from Kubernetes.
    let oldest = PROTOCOLS.iter().find(|p| p.name == "channel.k8s.io");
    let protocol = match offered.as_slice() {
        [] => oldest,
        some => some.iter().find_map(|name| PROTOCOLS.iter().find(|p| p.name == name)),
    };
    let Some(&protocol) = protocol else {
        let known: Vec<_> = PROTOCOLS.iter().map(|p| p.name).collect();
        let message = format!("none of the protocols {offered:?} is known; these are: {}", known.join(", "));
        return Err(Refusal::bad_request(message));
    };
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Refusal::bad_request("the header Sec-WebSocket-Key is missing"));
    };
    let accept = derive_accept_key(key.as_bytes());
    let has_stdin = params.flag("stdin");
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => {
                let limit = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
                let io = TokioIo::new(connection);
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limit)).await;
                drive(socket, protocol, has_stdin, start).await;
            }
            Err(error) => tracing::debug!(%error, "the client did not go through with the upgrade"),
        }
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    if !offered.is_empty() {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol.name);
    }
    let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
    response.body(empty).map_err(Refusal::internal)
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
    let (pongs, mut pong) = mpsc::channel(QUEUE);
    let session = session::run(start, Client { stdin: stdin_out, resize: resize_out, out });
    let receive = async {
        let mut stdin = Some(stdin).filter(|_| has_stdin);
        while let Some(Ok(frame)) = stream.next().await {
            let payload = match frame {
                Frame::Binary(payload) if !protocol.base64 => payload,
                Frame::Text(text) if protocol.base64 => match decode_base64(&text) {
                    Some(payload) => payload,
                    None => break,
                },
                Frame::Ping(payload) => {
                    let _ = pongs.try_send(payload);
                    continue;
                }
                Frame::Close(_) => break,
                _ => continue,
            };
            let Some((&channel, data)) = payload.split_first() else { continue };
            match channel {
                STDIN => {
                    if let Some(stdin) = &stdin
                        && stdin.send(payload.slice(1..)).await.is_err()
                    {
                        break;
                    }
                }
                CLOSE if data.first() == Some(&STDIN) => stdin = None,
                RESIZE => {
                    if let Some(size) = terminal_size(data) {
                        let _ = resize.send(size).await;
                    }
                }
                _ => {}
            }
        }
    };
    let send = async {
        loop {
            tokio::select! {
                biased;
                Some(payload) = pong.recv() => sink.send(Frame::Pong(payload)).await?,
                message = messages.recv() => match message {
                    Some(message) => sink.send(encode(protocol, message)).await?,
                    None => break,
                },
            }
        }
        let reason = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Frame::Close(Some(reason))).await?;
        sink.close().await
    };
    let talk = async { tokio::join!(session, send).1 };
    let done: Result<(), Error> = tokio::select! {
        biased;
        done = talk => done,
        () = receive => Ok(()),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a streaming client went away");
    }
}

fn encode(protocol: Protocol, message: Message) -> Frame {
    let (channel, payload) = match message {
        Message::Stdout(bytes) => (STDOUT, bytes),
        Message::Stderr(bytes) => (STDERR, bytes),
        Message::Status(status) => (ERROR, status_payload(protocol, &status)),
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

fn status_payload(protocol: Protocol, status: &Status) -> Bytes {
    if protocol.status {
        serde_json::to_vec(status).unwrap_or_default().into()
    } else if status.status.as_deref() == Some("Success") {
        Bytes::new()
    } else {
        status.message.clone().unwrap_or_default().into()
    }
}

/// The channel's digit, then base64.
fn decode_base64(text: &str) -> Option<Bytes> {
    use base64::Engine;
    let (channel, data) = text.split_at_checked(1)?;
    let mut payload = vec![channel.parse().ok()?];
    payload.extend(base64::engine::general_purpose::STANDARD.decode(data).ok()?);
    Some(payload.into())
}

/// `{"Width":80,"Height":24}`
pub(super) fn terminal_size(json: &[u8]) -> Option<(u16, u16)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    serde_json::from_slice::<Size>(json).ok().map(|s| (s.width, s.height))
}
