//! The agent's own API: logs, exec, attach and port-forward, at the paths of the kubelet
//! (`/containerLogs/NS/POD/CONTAINER`, `/exec/NS/POD/CONTAINER`, `/attach/NS/POD/CONTAINER`, `/portForward/NS/POD`).
//!
//! The API server passes what clients say on to here as it is, so the streaming protocols of kubectl and its kin,
//! [`websocket`] and [`spdy`], are spoken at this end.

mod forward;
mod logs;
mod params;
mod session;
mod spdy;
mod upgrade;
mod websocket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::agent::{AgentHandle, AttemptInfo, PodInfo};
use crate::runtime::{ContainerRuntime, ExecSpec, RuntimeError, Streams};
use forward::Target;
use params::Params;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A client has that long to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A refusal: an HTTP status and words for a person.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    code: StatusCode,
    message: String,
}

impl Refusal {
    fn bad_request(message: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, message: message.into() }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self { code: StatusCode::NOT_FOUND, message: message.into() }
    }

    fn internal(error: impl std::fmt::Display) -> Self {
        Self { code: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() }
    }

    fn unauthorized() -> Self {
        Self { code: StatusCode::UNAUTHORIZED, message: "Unauthorized".to_owned() }
    }
}

impl From<Refusal> for Response<Body> {
    fn from(refusal: Refusal) -> Self {
        let body = Full::new(Bytes::from(refusal.message)).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = refusal.code;
        response
    }
}

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::NotFound(_) => Self::not_found(error.to_string()),
            other => Self::internal(other),
        }
    }
}

/// Serves the agent's API. Cheap to clone.
#[derive(Clone)]
pub struct StreamingServer {
    pods: AgentHandle,
    runtime: Arc<dyn ContainerRuntime>,
    /// Ends the sessions, which outlive the HTTP connections that they were started on.
    shutdown: CancellationToken,
    tls: Option<Tls>,
}

/// Whom the agent serves.
#[derive(Clone)]
struct Tls {
    acceptor: TlsAcceptor,
    allowed: Arc<dyn Fn(&CertificateDer<'_>) -> bool + Send + Sync>,
}

impl std::fmt::Debug for StreamingServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamingServer")
    }
}

impl StreamingServer {
    /// A server of the pods of an agent, which run in `runtime`.
    pub fn new(pods: AgentHandle, runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self { pods, runtime, shutdown: CancellationToken::new(), tls: None }
    }

    /// Speaks TLS, and only to clients that show a certificate which is `allowed`. `config` decides which certificates
    /// are genuine. Without this the agent serves everyone who reaches it.
    #[must_use]
    pub fn tls(
        self,
        config: Arc<rustls::ServerConfig>,
        allowed: impl Fn(&CertificateDer<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let mut config = (*config).clone();
        // What is streamed is upgraded to, which HTTP/2 does not know.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = Arc::new(config).into();
        Self { tls: Some(Tls { acceptor, allowed: Arc::new(allowed) }), ..self }
    }

    /// Listens on `address` until `shutdown`; sessions under way are cut then.
    ///
    /// # Errors
    /// The address is taken or is not this machine's.
    pub async fn serve(mut self, address: SocketAddr, shutdown: CancellationToken) -> std::io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        self.shutdown = shutdown.child_token();
        // However this ends.
        let _sessions = self.shutdown.clone().drop_guard();
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        continue;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            connections.spawn(self.clone().connection(stream));
        }
    }

    async fn connection(self, stream: TcpStream) {
        let Some(tls) = self.tls.clone() else {
            return self.http(stream, true).await;
        };
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
            Err(_) => return tracing::debug!("no TLS in time"),
        };
        let chain = stream.get_ref().1.peer_certificates();
        let allowed = chain.and_then(<[_]>::first).is_some_and(|certificate| (tls.allowed)(certificate));
        self.http(stream, allowed).await;
    }

    /// Answers the requests of one connection.
    async fn http<S>(self, stream: S, allowed: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| {
            let server = self.clone();
            async move {
                Ok::<_, Infallible>(match allowed {
                    true => server.answer(request).await,
                    false => Refusal::unauthorized().into(),
                })
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new());
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.route(request).await.unwrap_or_else(Into::into)
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        let segments: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let params = Params::parse(request.uri().query().unwrap_or_default());
        match segments.as_slice() {
            ["healthz"] => Ok(Response::new(text("ok"))),
            ["containerLogs", namespace, pod, container] if request.method() == Method::GET => {
                self.logs(namespace, pod, container, &params).await
            }
            ["exec", namespace, pod, container] => {
                let attempt = self.running(namespace, pod, container)?;
                let spec = ExecSpec {
                    command: params.all("command"),
                    tty: params.flag("tty"),
                    stdin: params.flag("stdin"),
                    env: Vec::new(),
                };
                if spec.command.is_empty() {
                    return Err(Refusal::bad_request(
                        "you must specify at least one command for the container",
                    ));
                }
                let runtime = self.runtime.clone();
                let start = async move { runtime.exec(&attempt.id, &spec).await };
                self.start_session(request, params, start)
            }
            ["attach", namespace, pod, container] => {
                let attempt = self.running(namespace, pod, container)?;
                let runtime = self.runtime.clone();
                self.start_session(request, params, async move { runtime.attach(&attempt.id).await })
            }
            ["portForward", namespace, pod] => {
                let target = Target::new(&self.pod(namespace, pod)?)?;
                self.start_forward(request, &params, target)
            }
            _ => Err(Refusal::not_found("404 page not found")),
        }
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<PodInfo, Refusal> {
        let missing = || Refusal::not_found(format!("pod \"{name}\" is not on this node"));
        self.pods.find(namespace, name).ok_or_else(missing)
    }

    /// The container's process that runs now.
    fn running(&self, namespace: &str, pod: &str, container: &str) -> Result<AttemptInfo, Refusal> {
        let info = self.pod(namespace, pod)?;
        let attempt = info.container(container).and_then(|c| c.current.clone());
        attempt.filter(|a| a.running).ok_or_else(|| {
            Refusal::not_found(format!(
                "unable to upgrade connection: container {container} of pod {pod} is not running"
            ))
        })
    }

    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        params: &Params,
    ) -> Result<Response<Body>, Refusal> {
        let options = logs::Options::parse(params)?;
        let info = self.pod(namespace, pod)?;
        let Some(state) = info.container(container) else {
            return Err(Refusal::bad_request(format!("container {container} is not valid for pod {pod}")));
        };
        let attempt = if options.previous { &state.previous } else { &state.current };
        let Some(attempt) = attempt.clone() else {
            return Err(Refusal::bad_request(if options.previous {
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
            } else {
                let why = if state.waiting.is_empty() { "ContainerCreating" } else { &state.waiting };
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}")
            }));
        };
        let pods = self.pods.clone();
        let (uid, name, id) = (info.uid.clone(), container.to_owned(), attempt.id.clone());
        let runs = move || {
            let pod = pods.by_uid(&uid)?;
            let current = pod.container(&name)?.current.clone()?;
            (current.id == id && current.running).then_some(())
        };
        let lines = logs::read(attempt.log_path, options, move || runs().is_some());
        let body = StreamBody::new(lines.map_ok(Frame::data).boxed());
        let mut response = Response::new(body.boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    /// Switches to the streaming protocol that the client asks for and runs a process on it.
    fn start_session(
        &self,
        mut request: Request<Incoming>,
        params: Params,
        start: impl Future<Output = Result<Streams, RuntimeError>> + Send + 'static,
    ) -> Result<Response<Body>, Refusal> {
        let shutdown = self.shutdown.clone();
        if websocket::is_asked_for(request.headers()) {
            return websocket::exec(request, &params, shutdown, start);
        }
        if !spdy::is_asked_for(request.headers()) {
            return Err(no_upgrade());
        }
        let (protocol, response) = spdy::negotiate(request.headers(), spdy::PROTOCOLS)?;
        upgrade::spawn(&mut request, shutdown, async move |io| {
            let (reader, writer) = tokio::io::split(io);
            spdy::serve(reader, writer, |opened| spdy::exec(protocol, &params, start, opened)).await;
        });
        Ok(response)
    }

    /// Switches to the streaming protocol that the client asks for and forwards ports on it.
    fn start_forward(
        &self,
        mut request: Request<Incoming>,
        params: &Params,
        target: Target,
    ) -> Result<Response<Body>, Refusal> {
        let shutdown = self.shutdown.clone();
        if websocket::is_asked_for(request.headers()) {
            return websocket::forward(request, params, shutdown, target);
        }
        if !spdy::is_asked_for(request.headers()) {
            return Err(no_upgrade());
        }
        let (_, response) = spdy::negotiate(request.headers(), &[forward::PROTOCOL])?;
        upgrade::spawn(&mut request, shutdown, async move |io| {
            let (reader, writer) = tokio::io::split(io);
            spdy::serve(reader, writer, |opened| forward::run(target, opened)).await;
        });
        Ok(response)
    }
}

fn no_upgrade() -> Refusal {
    Refusal::bad_request("unable to upgrade: the request asks neither for websocket nor for SPDY/3.1")
}

fn text(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}
