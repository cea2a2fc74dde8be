//! Listening.

use std::convert::Infallible;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Frontend;
use crate::request::User;

/// A client has that long to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client has that long to agree on TLS.
#[cfg(feature = "tls")]
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client of HTTP/2 is asked whether it is there, and how long it has to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long requests under way may go on after the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait after an `accept` that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where to listen, and how.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    security: Security,
}

/// What connections of a listener are.
#[derive(Clone)]
enum Security {
    /// In the clear: whoever reaches the socket is taken for this machine's administrator.
    Clear,
    /// TLS: a client is whom its certificate names.
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor),
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clear => "Clear",
            #[cfg(feature = "tls")]
            Self::Tls(_) => "Tls",
        })
    }
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The address is taken or is not this machine's.
    pub async fn bind(address: std::net::SocketAddr) -> std::io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, security: Security::Clear })
    }

    /// Takes over a socket that listens already, for example one that systemd passed on.
    ///
    /// # Errors
    /// The socket does not listen.
    pub fn from_std(listener: std::net::TcpListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: TcpListener::from_std(listener)?, security: Security::Clear })
    }

    /// Speaks TLS on it. A client that shows no certificate is anonymous.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, config: Arc<rustls::ServerConfig>) -> Self {
        Self { security: Security::Tls(config.into()), ..self }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The socket has been closed.
    pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves `frontend` on all `listeners` until `shutdown`; then watches end, and other requests under way may finish for
/// a few seconds.
pub async fn serve(mut frontend: Frontend, listeners: Vec<Listener>, shutdown: CancellationToken) {
    frontend.closing = shutdown.clone();
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(frontend.clone(), listener, shutdown.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn accept(frontend: Frontend, listener: Listener, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let Listener { socket, security } = listener;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    tracing::trace!(%peer, "connection");
                    tokio::spawn(connection(frontend.clone(), stream, security.clone(), graceful.watcher()));
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

async fn connection(frontend: Frontend, stream: TcpStream, security: Security, watcher: Watcher) {
    // Answers are small and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    match security {
        Security::Clear => http(frontend, stream, User::internal(), Version::Either, watcher).await,
        #[cfg(feature = "tls")]
        Security::Tls(acceptor) => {
            let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
                Err(_) => return tracing::debug!("no TLS in time"),
            };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let user = certificate.and_then(crate::pki::holder).unwrap_or_else(User::anonymous);
            // Agreed upon, so that there is no waiting for a client to show which it speaks.
            let version = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Version::Two,
                _ => Version::One,
            };
            http(frontend, stream, user, version, watcher).await;
        }
    }
}

/// The version of HTTP that a connection is in.
enum Version {
    /// As its first bytes will show.
    Either,
    /// HTTP/1.1
    #[cfg(feature = "tls")]
    One,
    /// HTTP/2
    #[cfg(feature = "tls")]
    Two,
}

/// Answers the requests of one connection, which are all from `user`.
async fn http<S>(frontend: Frontend, stream: S, user: User, version: Version, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match version {
        Version::Either => builder,
        #[cfg(feature = "tls")]
        Version::One => builder.http1_only(),
        #[cfg(feature = "tls")]
        Version::Two => builder.http2_only(),
    };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(user.clone());
        let frontend = frontend.clone();
        async move { Ok::<_, Infallible>(frontend.handle(request).await) }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "connection ended");
    }
}
