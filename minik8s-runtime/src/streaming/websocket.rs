//! Sessions over WebSocket: the handshake, and what is spoken then.

mod exec;
mod forward;

use futures::Stream;
use http::{HeaderValue, Request, Response, header};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::{Body, Refusal, upgrade};
pub(super) use exec::start as exec;
pub(super) use forward::start as forward;

/// The largest message a client may send.
const LIMIT: usize = 4 * 1024 * 1024;
/// How long a client may take to answer the end of a session.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);
/// A connection on which nothing is said is written to this often, to learn that nobody is left.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(30);

/// Whether the client asks for WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|u| u.to_str().ok());
    upgrade.is_some_and(|u| u.eq_ignore_ascii_case("websocket"))
}

/// Chooses the first subprotocol that the client offers among `known`, by its place; `None` if it offers none.
fn negotiate<'a>(
    headers: &HeaderMap,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<Option<usize>, Refusal> {
    let offered = upgrade::offers(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str());
    let chosen = offered.iter().find_map(|name| known.clone().position(|k| k == name));
    if chosen.is_none() && !offered.is_empty() {
        let known: Vec<_> = known.collect();
        let message = format!("none of the protocols {offered:?} is known; these are: {}", known.join(", "));
        return Err(Refusal::bad_request(message));
    }
    Ok(chosen)
}

/// Answers the handshake and runs `session` on the connection.
fn accept<F: Future<Output = ()> + Send + 'static>(
    mut request: Request<Incoming>,
    protocol: Option<&'static str>,
    shutdown: CancellationToken,
    session: impl FnOnce(WebSocketStream<TokioIo<Upgraded>>) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Refusal::bad_request("the header Sec-WebSocket-Key is missing"));
    };
    let mut response = upgrade::switching("websocket");
    let headers = response.headers_mut();
    let accept = derive_accept_key(key.as_bytes());
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.try_into().map_err(Refusal::internal)?);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    upgrade::spawn(&mut request, shutdown, async move |io| {
        let limit = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
        session(WebSocketStream::from_raw_socket(io, Role::Server, Some(limit)).await).await;
    });
    Ok(response)
}

/// Reads, for a while, until the client has hung up: who hangs up on unread words may cut off its own.
async fn linger(mut stream: impl Stream<Item = Result<Message, Error>> + Unpin) {
    use futures::StreamExt;
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}
