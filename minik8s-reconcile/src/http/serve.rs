//! Listening.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Frontend;

/// A client has that long to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may go on after the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait after an `accept` that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where to listen.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The address is taken or is not this machine's.
    pub async fn bind(address: std::net::SocketAddr) -> std::io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// Takes over a socket that listens already, for example one that systemd passed on.
    ///
    /// # Errors
    /// The socket does not listen.
    pub fn from_std(listener: std::net::TcpListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(TcpListener::from_std(listener)?))
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The socket has been closed.
    pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves `frontend` on all `listeners` until `shutdown`; then watches end, and other requests under way may finish for
/// a few seconds.
pub async fn serve(mut frontend: Frontend, listeners: Vec<Listener>, shutdown: CancellationToken) {
    frontend.closing = shutdown.clone();
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(frontend.clone(), listener.0, shutdown.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn accept(frontend: Frontend, listener: TcpListener, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tracing::trace!(%peer, "connection");
                    connection(&frontend, stream, &graceful);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Whoever does not finish in time comes back to the next server.
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

fn connection(frontend: &Frontend, stream: TcpStream, graceful: &GracefulShutdown) {
    // Answers are small and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(frontend.clone());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
}
