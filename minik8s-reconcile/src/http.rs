//! The API server on the network: Kubernetes' REST API over HTTP/1.1 and HTTP/2, as JSON or YAML.
//!
//! [`Frontend`] is a [`tower::Service`] of HTTP requests. [`serve`] puts it behind listeners; `kube::Client::new` takes
//! it as it is, with no socket in between.

mod aggregated_discovery;
pub mod audit;
#[cfg(feature = "embedded")]
mod backup;
mod body;
#[cfg(feature = "tls")]
pub(crate) mod call;
mod connections;
mod discovery;
mod health;
mod identity;
mod limits;
mod negotiate;
mod output;
mod params;
mod proxy;
mod resource;
mod route;
mod serve;
mod stall;
mod table;
#[cfg(feature = "tls")]
pub mod tls;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::error::ApiError;
use crate::fairness::Fairness;
use crate::server::ApiServer;
use crate::server::authorizer::Action;

use self::audit::Trail;
use self::identity::Identified;

pub use body::Body;
pub use limits::Limits;
pub use serve::{Listener, serve};

/// The largest body of a request if nothing else is said, as in Kubernetes: 3 MiB.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Requests that run rules at once.
const RULES_AT_ONCE: usize = 2;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An [`ApiServer`] that speaks HTTP. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Frontend {
    server: ApiServer,
    documents: Arc<Mutex<Arc<discovery::Discovery>>>,
    /// Ends what would never end by itself: watches, and logs that are followed.
    closing: CancellationToken,
    agents: proxy::Agents,
    limits: Limits,
    fairness: Option<Fairness>,
    /// How many requests may run rules at once.
    rules: Arc<Semaphore>,
    audit: Option<audit::Audit>,
}

impl Frontend {
    /// The HTTP face of `server`.
    pub fn new(server: ApiServer) -> Self {
        let discovery = Arc::new(discovery::Discovery::new(server.registry()));
        Self {
            server,
            documents: Arc::new(Mutex::new(discovery)),
            closing: CancellationToken::new(),
            agents: proxy::Agents::default(),
            limits: Limits::default(),
            fairness: None,
            rules: Arc::new(Semaphore::new(RULES_AT_ONCE)),
            audit: None,
        }
    }

    /// Takes no more from clients than `limits`, instead of the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Has clients take turns. Without it, requests are answered as they come.
    #[must_use]
    pub fn with_fairness(mut self, fairness: Fairness) -> Self {
        self.fairness = Some(fairness);
        self
    }

    /// Speaks TLS to nodes' agents, in this way; without it, it speaks to them in the clear.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_agent_tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.agents = proxy::Agents::tls(config);
        self
    }

    /// Notes requests in `audit`.
    #[must_use]
    pub fn with_audit(mut self, audit: audit::Audit) -> Self {
        self.audit = Some(audit);
        self
    }

    /// The documents about the kinds that are served now.
    fn discovery(&self) -> Arc<discovery::Discovery> {
        let registry = self.server.registry();
        let mut documents = self.documents.lock().expect("no writer panics");
        if !documents.is_about(&registry) {
            *documents = Arc::new(documents.succeeded_by(registry));
        }
        documents.clone()
    }

    /// Answers one request. It never fails: errors are `Status` responses.
    ///
    /// Who asks is the [`User`](crate::request::User) among the request's extensions; without one it is this process
    /// itself, which may do everything. [`serve`] puts in whom a connection's certificate names. Headers can say on
    /// whose behalf it is, if that is permitted.
    pub async fn handle<B>(&self, mut request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let wishes = output::Wishes::of(&request);
        let trail = self.audit.as_ref().map(|audit| audit.begin(&request));
        if let Some(trail) = &trail {
            request.extensions_mut().insert(trail.clone());
        }
        let mut response = self.respond(request).await.unwrap_or_else(|error| error_response(&error));
        if let Some(trail) = trail {
            response = trail.close(response);
        }
        wishes.grant(response).await
    }

    async fn respond<B>(&self, request: Request<B>) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let uri = request.uri();
        let length = uri.path().len() + uri.query().map_or(0, |q| q.len() + 1);
        if length > self.limits.uri {
            return Err(ApiError::uri_too_long(self.limits.uri));
        }
        let Identified { sender, user } =
            self.identify(request.extensions().get().cloned(), request.headers()).await?;
        let route = route::Route::parse(request.uri().path());
        let place = if let Ok(route::Route::Resource(place)) = &route { Some(place) } else { None };
        if let Some(trail) = request.extensions().get::<Trail>() {
            let path = request.uri().path();
            let verb = match place {
                Some(place) => {
                    resource::verb_of(place, request.method(), request.uri()).unwrap_or_default().to_owned()
                }
                None => request.method().as_str().to_ascii_lowercase(),
            };
            trail.about(&sender, &user, &verb, path, place);
        }
        let _seat = match &self.fairness {
            // Whether the server is well is not a question to wait for.
            Some(fairness) if !matches!(route, Ok(route::Route::Health(..))) => {
                Some(fairness.admit(&user).await?)
            }
            _ => None,
        };
        if let Ok(route::Route::Resource(place)) = route {
            return self.resource(place, user, request).await;
        }
        let verb = request.method().as_str().to_ascii_lowercase();
        let action = Action::NonResource { verb: &verb, path: request.uri().path() };
        self.server.permit(&user, &action).await?;
        match route? {
            route::Route::Health(endpoint, check) if request.method() == Method::GET => {
                self.health(&endpoint, check.as_deref(), request.uri().query()).await
            }
            #[cfg(feature = "embedded")]
            route::Route::Backup if request.method() == Method::GET => self.backup().await,
            route @ (route::Route::OpenIdConfiguration | route::Route::KeySet)
                if request.method() == Method::GET =>
            {
                let tokens = self.server.tokens().ok_or_else(ApiError::no_such_resource)?;
                Ok(match route {
                    route::Route::KeySet => {
                        let keys = tokens.key_set().to_string();
                        respond_with(StatusCode::OK, "application/jwk-set+json", keys)
                    }
                    _ => json(StatusCode::OK, tokens.openid_configuration().to_string()),
                })
            }
            other if request.method() == Method::GET => self.discovery().get(&other, request.headers()),
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}

impl<B> Service<Request<B>> for Frontend
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let frontend = self.clone();
        Box::pin(async move { Ok(frontend.handle(request).await) })
    }
}

fn json(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    respond_with(code, "application/json", body)
}

fn text(body: impl Into<Bytes>) -> Response<Body> {
    respond_with(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn respond_with(code: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(code)
        .header(http::header::CONTENT_TYPE, content_type)
        .header(http::header::CACHE_CONTROL, "no-cache, private")
        .body(Body::from(body.into()))
        .expect("the parts are valid")
}

fn error_response(error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let status = serde_json::to_vec(&error.to_status()).expect("a Status has string keys");
    let mut response = json(code, status);
    if let Some(seconds) = error.retry_after_s() {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    if let Some(notes) = error.notes() {
        warn(&mut response, &notes.warnings);
    }
    response
}

/// Tells whoever asks, in `Warning` headers.
fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let mut text = String::with_capacity(warning.len() + 8);
        for c in warning.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => text.push(' '),
                c => text.push(c),
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests;
