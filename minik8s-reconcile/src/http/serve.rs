//! Listening.

use std::convert::Infallible;
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
use super::audit::Peer;
use super::connections::{Connection, Connections, Place};
use super::stall::Guarded;
use crate::request::User;

/// How often connections are looked at for having been idle too long.
const SWEEP: Duration = Duration::from_secs(1);
/// Bytes of HTTP/2 that wait to be sent on one stream: what it is filled from is asked for more only after that.
const SEND_BUFFER: usize = 64 * 1024;
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
    let connections = Connections::new(frontend.limits);
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(frontend.clone(), listener, connections.clone(), shutdown.clone()));
    }
    tasks.spawn(async move {
        let mut sweeps = tokio::time::interval(SWEEP);
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(sweeps.tick()).await.is_some() {
            connections.sweep();
        }
    });
    while tasks.join_next().await.is_some() {}
}

async fn accept(
    frontend: Frontend,
    listener: Listener,
    connections: Arc<Connections>,
    shutdown: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let Listener { socket, security } = listener;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = connections.admit(peer.ip()) else {
                        tracing::debug!(%peer, "too many connections, none of them idle");
                        continue;
                    };
                    tracing::trace!(%peer, "connection");
                    let (frontend, security) = (frontend.clone(), security.clone());
                    let from = Origin { peer: Peer(peer.ip()), user: User::internal() };
                    tokio::spawn(connection(frontend, stream, place, from, security, graceful.watcher()));
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

/// Where the requests of a connection come from.
struct Origin {
    peer: Peer,
    user: User,
}

/// A connection from its beginning to its end, or until others need its place.
async fn connection(
    frontend: Frontend,
    stream: TcpStream,
    place: Place,
    from: Origin,
    security: Security,
    watcher: Watcher,
) {
    let connection = place.connection.clone();
    tokio::select! {
        biased;
        () = place.connection.closed() => tracing::debug!("an idle connection is closed"),
        () = converse(frontend, stream, connection, from, security, watcher) => {}
    }
}

async fn converse(
    frontend: Frontend,
    stream: TcpStream,
    connection: Arc<Connection>,
    from: Origin,
    security: Security,
    watcher: Watcher,
) {
    // Answers are small and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    match security {
        Security::Clear => http(frontend, stream, connection, from, Version::Either, watcher).await,
        #[cfg(feature = "tls")]
        Security::Tls(acceptor) => {
            let limit = frontend.limits.handshake_time;
            let stream = match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
                Err(_) => return tracing::debug!("no TLS in time"),
            };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let user = certificate.and_then(crate::pki::holder).unwrap_or_else(User::anonymous);
            let end = certificate.and_then(crate::pki::Validity::of).map(|valid| valid.until);
            let left = end.map_or(Duration::MAX, |end| frontend.server.clock().until(end));
            let from = Origin { user, ..from };
            // Agreed upon, so that there is no waiting for a client to show which it speaks.
            let version = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Version::Two,
                _ => Version::One,
            };
            let conversation = http(frontend, stream, connection, from, version, watcher);
            // Nobody is who they are for longer than their certificate, also where a session is taken up again.
            if tokio::time::timeout(left, conversation).await.is_err() {
                tracing::debug!("a client's certificate has ended");
            }
        }
    }
}

/// The version of HTTP that a connection is in.
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl Version {
    /// Whether bytes that come while there is no request are a request's head: in HTTP/2 they may be anything.
    fn is_one(self) -> bool {
        match self {
            Self::Either => false,
            #[cfg(feature = "tls")]
            version => version == Self::One,
        }
    }
}

/// Answers the requests of one connection.
async fn http<S>(
    frontend: Frontend,
    stream: S,
    place: Arc<Connection>,
    Origin { peer, user }: Origin,
    version: Version,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = frontend.limits;
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match version {
        Version::Either => builder,
        #[cfg(feature = "tls")]
        Version::One => builder.http1_only(),
        #[cfg(feature = "tls")]
        Version::Two => builder.http2_only(),
    };
    // To hyper, waiting for a head begins with the end of the last request: that is idleness. Slow heads are swept.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle.max(limits.header_time))
        .max_buf_size(limits.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER);
    let stream = Guarded::new(stream, place.clone(), limits.stall, version.is_one());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(user.clone());
        request.extensions_mut().insert(peer);
        let (frontend, place) = (frontend.clone(), place.clone());
        let busy = place.request();
        async move {
            let response = frontend.handle(request).await;
            if response.extensions().get::<StandsStill>().is_some() {
                place.be_patient();
            }
            // Under way until its last byte is on its way.
            Ok::<_, Infallible>(response.map(|body| body.until_dropped(busy)))
        }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// What a response carries whose stream may stand still, because a person reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StandsStill;
