//! The way to the server, which may be away for a while and come back as another process on the same storage.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::error::ApiError;
use crate::request::{ApiRequest, ApiResponse, ResponseBody, WatchStream};
use crate::server::ApiServer;

/// Where the server is. Cheap to clone; clones are the same one.
#[derive(Clone)]
pub(super) struct Gate(Arc<Inner>);

struct Inner {
    present: Mutex<Present>,
    opened: Notify,
}

struct Present {
    server: Option<ApiServer>,
    /// Cancelled when this server goes.
    gone: CancellationToken,
}

/// The answer to a call that may take a while.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<ApiResponse, ApiError>> + Send>>;

impl Gate {
    pub(super) fn new(server: ApiServer) -> Self {
        let present = Present { server: Some(server), gone: CancellationToken::new() };
        Self(Arc::new(Inner { present: Mutex::new(present), opened: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server goes: watches end, and requests are refused.
    pub(super) fn close(&self) {
        let mut present = self.lock();
        present.server = None;
        present.gone.cancel();
    }

    /// A server is there.
    pub(super) fn open(&self, server: ApiServer) {
        *self.lock() = Present { server: Some(server), gone: CancellationToken::new() };
        self.0.opened.notify_waiters();
    }

    /// The server, and what tells that it has gone.
    fn server(&self) -> Option<(ApiServer, CancellationToken)> {
        let present = self.lock();
        present.server.clone().map(|server| (server, present.gone.clone()))
    }

    /// Asks the server that is there now.
    pub(super) async fn ask(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let away = || ApiError::unavailable("the server is away");
        let Some((server, gone)) = self.server() else { return Err(away()) };
        let mut response = server.handle(request).await?;
        if let ResponseBody::Watch(events) = response.body {
            let ended = gone.cancelled_owned();
            let lost = futures::stream::once(async { Err(ApiError::unavailable("the connection was lost")) });
            response.body = ResponseBody::Watch(WatchStream::new(events.take_until(ended).chain(lost)));
        }
        Ok(response)
    }
}

/// A way to the server that waits while there is none: for those who look on.
#[derive(Clone)]
pub(super) struct Patient(pub(super) Gate);

impl Service<ApiRequest> for Patient {
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ApiRequest) -> Answer {
        let gate = self.0.clone();
        Box::pin(async move {
            loop {
                let mut opened = std::pin::pin!(gate.0.opened.notified());
                opened.as_mut().enable();
                if gate.server().is_some() {
                    return gate.ask(request).await;
                }
                opened.await;
            }
        })
    }
}
