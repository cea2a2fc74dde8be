//! Bodies of responses, and reading those of requests.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::BoxError;
use super::connections::Busy;
use super::limits::Limits;
use crate::error::ApiError;

/// The body of a response: some bytes, or a stream of them.
#[derive(Debug)]
pub struct Body {
    inner: Inner,
    /// The request is under way for as long as this lives.
    _busy: Option<Busy>,
}

enum Inner {
    Whole(Option<Bytes>),
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => f.debug_tuple("Whole").field(&bytes.as_ref().map(Bytes::len)).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Body {
    /// Nothing.
    pub fn empty() -> Self {
        Inner::Whole(None).into()
    }

    /// Pieces as they come.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Inner::Stream(Box::pin(stream)).into()
    }

    /// All of it, if it is no stream.
    pub(super) fn into_whole(self) -> Result<Bytes, Self> {
        match self.inner {
            Inner::Whole(bytes) => Ok(bytes.unwrap_or_default()),
            Inner::Stream(_) => Err(self),
        }
    }

    /// The same, with a request that is under way until the body is dropped.
    pub(super) fn until_dropped(self, busy: Busy) -> Self {
        Self { _busy: Some(busy), ..self }
    }
}

impl From<Inner> for Body {
    fn from(inner: Inner) -> Self {
        Self { inner, _busy: None }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Inner::Whole((!bytes.is_empty()).then_some(bytes)).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.inner {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Inner::Stream(stream) => stream.poll_next_unpin(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.inner, Inner::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}

/// How much of a body that is too large is passed over, so that its sender comes to read why it was refused: a
/// connection that is closed while someone writes to it loses the answer.
const PASSED_OVER: u64 = 32 * 1024 * 1024;

/// A request's body, if it is not larger than the server takes, and comes in time.
///
/// # Errors
/// 413 and 408; 415, if it is compressed.
pub(super) async fn read<B>(headers: &HeaderMap, body: B, limits: &Limits) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let coding =
        headers.get(header::CONTENT_ENCODING).filter(|c| !c.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coding.is_some() {
        return Err(ApiError::unsupported_media_type(
            "the body of the request has a Content-Encoding: only bodies as they are can be read",
        ));
    }
    match tokio::time::timeout(limits.body_time, whole(body, limits.body)).await {
        Ok(read) => read,
        Err(_) => {
            let seconds = limits.body_time.as_secs_f32();
            let message = format!("the body of the request did not come within {seconds} s");
            Err(ApiError::new(408, "Timeout", message))
        }
    }
}

async fn whole<B>(body: B, limit: usize) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut size = body.size_hint().lower();
    let mut read = 0;
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    let mut first = None;
    while size <= PASSED_OVER
        && let Some(frame) = body.frame().await
    {
        let frame =
            frame.map_err(|e| ApiError::bad_request(format!("cannot read the body: {}", e.into())))?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len() as u64;
        size = size.max(read);
        if size > limit as u64 {
            continue;
        }
        // Nearly every body is one piece: no copy for those.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            None => whole.extend_from_slice(&data),
            Some(piece) => {
                whole.extend_from_slice(&piece);
                whole.extend_from_slice(&data);
            }
        }
    }
    if size > limit as u64 {
        return Err(ApiError::too_large(limit));
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}
