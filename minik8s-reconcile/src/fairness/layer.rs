//! Fairness as a tower layer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::Fairness;
use crate::error::ApiError;
use crate::request::ApiRequest;

/// Puts [`Fairness`] in front of a service of [`ApiRequest`]s, such as an [`ApiServer`](crate::ApiServer).
#[derive(Clone, Debug)]
pub struct FairLayer(Fairness);

impl FairLayer {
    /// Shares the services that it is put in front of among their users.
    pub fn new(fairness: Fairness) -> Self {
        Self(fairness)
    }
}

impl<S> Layer<S> for FairLayer {
    type Service = Fair<S>;

    fn layer(&self, inner: S) -> Fair<S> {
        Fair { fairness: self.0.clone(), inner }
    }
}

/// A service whose users get their turns.
#[derive(Clone, Debug)]
pub struct Fair<S> {
    fairness: Fairness,
    inner: S,
}

impl<S> Service<ApiRequest> for Fair<S>
where
    S: Service<ApiRequest, Error = ApiError> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, ApiError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        // The one that is ready is the one to call; the copy is for the next.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let fairness = self.fairness.clone();
        Box::pin(async move {
            let _seat = fairness.admit(&request.user).await?;
            ready.call(request).await
        })
    }
}
