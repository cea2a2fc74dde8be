//! Connections that go on in another protocol than HTTP.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::Body;

/// What a client offers in a header that may be given several times, and with commas.
pub(super) fn offers(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

/// The answer that says what the connection goes on in.
pub(super) fn switching(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}

/// Runs `session` on the connection once the answer has been sent, until it ends or `shutdown`.
pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
    request: &mut Request<Incoming>,
    shutdown: CancellationToken,
    session: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        match upgrade.await {
            Ok(connection) => session(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "the client did not go through with the upgrade"),
        }
    }));
}
