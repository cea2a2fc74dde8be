//! Bodies of responses, and reading those of requests.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::{BODY_LIMIT, BoxError};
use crate::error::ApiError;

/// The body of a response: some bytes, or a stream of them.
#[derive(Debug)]
pub struct Body(Inner);

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
        Self(Inner::Whole(None))
    }

    /// Pieces as they come.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self(Inner::Stream(Box::pin(stream)))
    }

    /// All of it, if it is no stream.
    pub(super) fn into_whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Inner::Whole(bytes) => Ok(bytes.unwrap_or_default()),
            Inner::Stream(_) => Err(self),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Inner::Whole((!bytes.is_empty()).then_some(bytes)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Inner::Stream(stream) => stream.poll_next_unpin(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}

/// How much of a body that is too large is passed over, so that its sender comes to read why it was refused: a
/// connection that is closed while someone writes to it loses the answer.
const PASSED_OVER: u64 = 32 * 1024 * 1024;

/// A request's body, if it is not larger than the server takes.
pub(super) async fn read<B>(body: B) -> Result<Bytes, ApiError>
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
        if size > BODY_LIMIT as u64 {
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
    if size > BODY_LIMIT as u64 {
        return Err(ApiError::too_large(BODY_LIMIT));
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}
