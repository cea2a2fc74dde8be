//! Requests that a pod's node answers: logs, exec, attach, port-forward.
//!
//! The server finds the node, speaks to its agent as a client would, and passes bytes on in both directions. What
//! protocol they are is between the client and the agent.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_api::Kind;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::body::Body;
use super::params::Query;
use super::route::Place;
use super::serve::StandsStill;
use super::{BoxError, Frontend};
use crate::error::ApiError;
use crate::request::User;

/// Where agents listen if their node does not say.
const AGENT_PORT: i32 = 10250;
/// Bytes of an agent's error text that are passed on.
const ERROR_LIMIT: usize = 16 * 1024;

/// Whether a node answers for that subresource.
pub(super) fn is_proxied(kind: &Kind, subresource: &str) -> bool {
    match kind.kind.as_ref() {
        "Pod" => matches!(subresource, "log" | "exec" | "attach" | "portforward"),
        "Node" => subresource == "proxy",
        _ => false,
    }
}

/// What a query says of how to talk, as admission sees it.
fn options(query: &str) -> Value {
    let mut options = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "stdin" | "stdout" | "stderr" | "tty" => {
                options.insert(name.into_owned(), matches!(value.as_ref(), "true" | "1").into());
            }
            "container" | "path" => {
                options.insert(name.into_owned(), value.into_owned().into());
            }
            "command" | "ports" => {
                let list = options.entry(name.into_owned()).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(list) = list.as_array_mut() {
                    list.push(value.into_owned().into());
                }
            }
            _ => {}
        }
    }
    options.into()
}

impl Frontend {
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn proxy<B>(
        &self,
        kind: &Arc<Kind>,
        place: &Place,
        user: &User,
        name: &str,
        subresource: &str,
        request: Request<B>,
    ) -> Result<Response<Body>, ApiError>
    where
        B: Send + 'static,
    {
        let query = request.uri().query().unwrap_or_default();
        let (namespace, options) = (place.namespace.as_deref(), options(query));
        self.server.admit_connection(kind, namespace, user, name, subresource, options).await?;
        let (node, path) = if kind.kind == "Node" {
            (name.to_owned(), format!("/{}", place.rest))
        } else {
            self.pod_target(kind, place, name, subresource, query).await?
        };
        let method = request.method();
        if subresource == "log" && method != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        let address = self.agent_address(&node).await?;
        let unreachable = |e: BoxError| {
            ApiError::new(502, "", format!("error dialing the agent of node {node} at {address}: {e}"))
        };
        let stream = self.agents.connect(&address).await.map_err(|e| unreachable(e.into()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(e.into()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to an agent ended");
            }
        });
        let mut onward = Request::builder().method(method).uri(format!("{path}?{query}"));
        if let Some(headers) = onward.headers_mut() {
            for (name, value) in request.headers() {
                // What the client proved to the server is not the agent's business.
                let private = name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-");
                if !private && name != header::HOST && name != header::ACCEPT_ENCODING {
                    headers.append(name, value.clone());
                }
            }
            headers.insert(header::HOST, address.parse().map_err(ApiError::internal)?);
        }
        let onward = onward.body(Empty::<Bytes>::new()).map_err(ApiError::internal)?;
        let mut answer = sender.send_request(onward).await.map_err(|e| unreachable(e.into()))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let theirs = hyper::upgrade::on(&mut answer);
            let ours = hyper::upgrade::on(request);
            tokio::spawn(async move {
                let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) else { return };
                // One side hanging up is how such a stream ends.
                let _ =
                    tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
            });
            let (mut parts, _) = answer.into_parts();
            parts.extensions.insert(StandsStill);
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        if !answer.status().is_success() {
            return Err(agent_error(answer).await);
        }
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts.headers.remove(header::CONNECTION);
        parts.extensions.insert(StandsStill);
        let frames = BodyStream::new(body).filter_map(|frame| async {
            match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(error.into())),
            }
        });
        let frames = frames.map(move |frame| {
            // Lives as long as the body: dropping it would end the connection.
            let _ = &sender;
            frame
        });
        Ok(Response::from_parts(
            parts,
            Body::stream(frames.take_until(self.closing.clone().cancelled_owned())),
        ))
    }

    /// The pod's node, and the path of the request there.
    async fn pod_target(
        &self,
        kind: &Kind,
        place: &Place,
        name: &str,
        subresource: &str,
        query: &str,
    ) -> Result<(String, String), ApiError> {
        let namespace = place.namespace.as_deref().unwrap_or_default();
        let pod = self.server.client().namespaced::<Pod>(namespace).get(name).await?;
        let spec = pod.spec.clone().unwrap_or_default();
        let Some(node) = spec.node_name.clone().filter(|n| !n.is_empty()) else {
            return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
        };
        let segment = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (namespace, pod_name) = (segment(namespace), segment(name));
        if subresource == "portforward" {
            return Ok((node, format!("/portForward/{namespace}/{pod_name}")));
        }
        let containers: Vec<&str> = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .map(|c| c.name.as_str())
            .chain(spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()))
            .collect();
        let query = Query::parse(Some(query));
        let container = match query.get("container") {
            Some(container) if containers.contains(&container) => container,
            Some(container) => {
                let message = format!("container {container} is not valid for pod {name}");
                return Err(ApiError::bad_request(message));
            }
            None if spec.containers.len() == 1 => &spec.containers[0].name,
            None => {
                let names: Vec<_> = spec.containers.iter().map(|c| c.name.as_str()).collect();
                return Err(ApiError::bad_request(format!(
                    "a container name must be specified for {} {name}, choose one of: [{}]",
                    kind.singular,
                    names.join(" ")
                )));
            }
        };
        let container = segment(container);
        let verb = match subresource {
            "log" => "containerLogs",
            other => other,
        };
        Ok((node, format!("/{verb}/{namespace}/{pod_name}/{container}")))
    }

    /// `HOST:PORT` of the node's agent.
    async fn agent_address(&self, node: &str) -> Result<String, ApiError> {
        let node = self.server.client().all::<Node>().get(node).await?;
        let status = node.status.clone().unwrap_or_default();
        let addresses = status.addresses.unwrap_or_default();
        let of = |kind: &str| addresses.iter().find(|a| a.type_ == kind).map(|a| a.address.clone());
        let host = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"));
        let host = host.ok_or_else(|| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            ApiError::unavailable(format!("node {name} has no address"))
        })?;
        let port = status.daemon_endpoints.and_then(|e| e.kubelet_endpoint).map_or(AGENT_PORT, |e| e.port);
        Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }
}

/// How agents are reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Agents {
    #[cfg(feature = "tls")]
    tls: Option<std::sync::Arc<rustls::ClientConfig>>,
}

/// A connection to an agent.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Agents {
    #[cfg(feature = "tls")]
    pub(super) fn tls(config: std::sync::Arc<rustls::ClientConfig>) -> Self {
        Self { tls: Some(config) }
    }

    /// Connects to the agent at `HOST:PORT`.
    async fn connect(&self, address: &str) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        #[cfg(feature = "tls")]
        if let Some(config) = &self.tls {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let name = host.trim_matches(['[', ']']).to_owned().try_into().map_err(std::io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            return Ok(Box::new(connector.connect(name, stream).await?));
        }
        Ok(Box::new(stream))
    }
}

/// The agent's refusal as the API's.
async fn agent_error(answer: Response<hyper::body::Incoming>) -> ApiError {
    let code = answer.status().as_u16();
    let text = match http_body_util::Limited::new(answer.into_body(), ERROR_LIMIT).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => format!("the agent's answer cannot be read: {error}"),
    };
    let reason = match code {
        400 => "BadRequest",
        404 => "NotFound",
        _ => "InternalError",
    };
    ApiError::new(code, reason, text)
}
