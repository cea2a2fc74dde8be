//! SPDY/3.1, the protocol of HTTP upgrades that kubectl spoke before WebSocket, and within WebSocket still does for
//! port-forward (<https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>).

mod connection;
mod dictionary;
mod exec;
mod flow;
mod frame;
mod headers;

use http::{HeaderValue, Response, StatusCode, header};
use hyper::HeaderMap;

use super::{Refusal, upgrade};
#[cfg(test)]
pub(super) use connection::tests::Client;
pub(super) use connection::{Output, Stream, serve};
pub(super) use exec::{PROTOCOLS, exec};

/// The protocol's name in `Upgrade`.
pub(super) const NAME: &str = "SPDY/3.1";
/// Names what is spoken on the streams.
const VERSION: &str = "x-stream-protocol-version";

/// Chooses the first protocol that the client offers among `known`, and the answer that says so.
pub(super) fn negotiate(
    headers: &HeaderMap,
    known: &[&'static str],
) -> Result<(&'static str, Response<super::Body>), Refusal> {
    let offered = upgrade::offers(headers, VERSION);
    let chosen = offered.iter().find_map(|name| known.iter().find(|k| *k == name));
    let Some(&chosen) = chosen else {
        let known = known.join(", ");
        let message =
            format!("unable to upgrade: of the protocols {offered:?} none is spoken; these are: {known}");
        return Err(Refusal { code: StatusCode::FORBIDDEN, message });
    };
    let mut response = upgrade::switching(NAME);
    response.headers_mut().insert(VERSION, HeaderValue::from_static(chosen));
    Ok((chosen, response))
}

/// Whether the client asks for SPDY.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|u| u.to_str().ok());
    upgrade.is_some_and(|u| u.eq_ignore_ascii_case(NAME))
}
