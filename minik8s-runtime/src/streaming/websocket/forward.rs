//! Port-forward over WebSocket: as SPDY within messages, as kubectl does, or with two channels for each port.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, TryStreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::CancellationToken;

use super::{HEARTBEAT, accept, linger, negotiate};
use crate::streaming::forward::{self, Sink, Target};
use crate::streaming::params::Params;
use crate::streaming::{Body, Refusal, spdy};

/// SPDY within messages.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOLS: &[&str] = &[TUNNEL, "v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Version 5 only: the channel named by the next byte ends.
const CLOSE: u8 = 255;
/// Messages that wait in each direction.
const QUEUE: usize = 16;
/// Each port has two channels, whose numbers are bytes, and the last is taken.
const PORTS: usize = 127;

/// Answers the handshake and forwards ports on the connection.
pub(in crate::streaming) fn start(
    request: Request<Incoming>,
    params: &Params,
    shutdown: CancellationToken,
    target: Target,
) -> Result<Response<Body>, Refusal> {
    let chosen = negotiate(request.headers(), PROTOCOLS.iter().copied())?.map(|chosen| PROTOCOLS[chosen]);
    if chosen == Some(TUNNEL) {
        return accept(request, chosen, shutdown, |socket| tunnel(socket, target));
    }
    let ports = forward::ports(params)?;
    if ports.len() > PORTS {
        return Err(Refusal::bad_request(format!("no more than {PORTS} ports can be forwarded at once")));
    }
    accept(request, chosen, shutdown, |socket| channels(socket, target, ports))
}

async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(socket: WebSocketStream<S>, target: Target) {
    let (sink, stream) = socket.split();
    let bytes = stream.map_err(io::Error::other).try_filter_map(async |message| match message {
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Text(text) => Ok(Some(text.into())),
        _ => Ok(None),
    });
    let sink =
        sink.sink_map_err(io::Error::other).with(async |bytes| Ok::<_, io::Error>(Message::Binary(bytes)));
    let (reader, writer) = (std::pin::pin!(bytes), std::pin::pin!(sink));
    let writer = SinkWriter::new(CopyToBytes::new(writer));
    spdy::serve(StreamReader::new(reader), writer, |opened| forward::run(target, opened)).await;
}

/// Channels 2N and 2N+1 carry the data and the errors of the Nth port, after its number.
async fn channels<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    target: Target,
    ports: Vec<u16>,
) {
    let (mut sink, mut stream) = socket.split();
    let (out, mut messages) = mpsc::channel(QUEUE);
    let (mut inputs, mut forwards) = (Vec::new(), Vec::new());
    for (&port, data) in ports.iter().zip((0u8..).step_by(2)) {
        let (input, received) = mpsc::channel(QUEUE);
        inputs.push(Some(input));
        forwards.push(channel(target.clone(), port, received, Channel { number: data, out: out.clone() }));
    }
    drop(out);
    let receive = async {
        while let Some(Ok(frame)) = stream.next().await {
            let payload = match frame {
                Message::Binary(payload) => payload,
                Message::Text(text) => text.into(),
                Message::Close(_) => break,
                _ => continue,
            };
            match payload[..] {
                [CLOSE, channel] if channel % 2 == 0 => {
                    if let Some(input) = inputs.get_mut(usize::from(channel / 2)) {
                        *input = None;
                    }
                }
                [channel, _, ..] if channel % 2 == 0 => {
                    // What is for a port that has ended is dropped.
                    if let Some(Some(input)) = inputs.get(usize::from(channel / 2)) {
                        let _ = input.send(payload.slice(1..)).await;
                    }
                }
                _ => {}
            }
        }
    };
    let send = async {
        loop {
            match tokio::time::timeout(HEARTBEAT, messages.recv()).await {
                Ok(Some(message)) => sink.send(message).await?,
                Ok(None) => break,
                Err(_) => sink.send(Message::Ping(Bytes::new())).await?,
            }
        }
        let reason = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(reason))).await
    };
    let forwards = async {
        futures::future::join_all(forwards).await;
        Ok(())
    };
    // A client that cannot be written to ends what waits for it.
    let work = async { tokio::try_join!(send, forwards).map(drop) };
    let done: Result<(), Error> = tokio::select! {
        done = work => done,
        () = receive => return,
    };
    match done {
        Ok(()) => linger(stream).await,
        Err(error) => tracing::debug!(%error, "a streaming client went away"),
    }
}

/// The channel of a port's data; the next is that of its errors.
struct Channel {
    number: u8,
    out: mpsc::Sender<Message>,
}

impl Sink for Channel {
    async fn send(&self, bytes: Bytes) -> bool {
        self.out.send(message(self.number, &bytes)).await.is_ok()
    }
}

async fn channel(target: Target, port: u16, input: mpsc::Receiver<Bytes>, data: Channel) {
    let error = Channel { number: data.number + 1, out: data.out.clone() };
    for channel in [&data, &error] {
        channel.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
    }
    if let Err(words) = target.forward(port, input, &data).await {
        tracing::debug!(words, "cannot forward a port");
        error.send(words.into()).await;
    }
}

fn message(channel: u8, payload: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(payload.len() + 1);
    message.put_u8(channel);
    message.put_slice(payload);
    Message::Binary(message.freeze())
}
