//! A [`Client`] of a server in another process, over [`kube::Client`], which brings kubeconfig, TLS and credentials.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, BodyStream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use minik8s_api::{Kind, Registry};
use serde::Deserialize;
use serde_json::value::RawValue;
use tower::Service;

use crate::client::Client;
use crate::error::ApiError;
use crate::request::{
    ApiRequest, ApiResponse, DeleteParams, EventType, FieldValidation, ListParams, Notes, ObjectList,
    Operation, PatchFormat, Payload, ResponseBody, VersionMatch, WatchEvent, WatchParams, WatchStream,
    WriteParams,
};
use crate::stored::Stored;

/// A line of a watch is as long as its object at most; more than this is no watch.
const LINE_LIMIT: usize = 16 * 1024 * 1024;

impl Client {
    /// A client of the server that `client` talks to, any Kubernetes API server. The kinds of `registry` can be asked
    /// for.
    pub fn remote(client: kube::Client, registry: Arc<Registry>) -> Self {
        Self::connected(Connection::new(client), registry)
    }

    /// Like [`Self::remote`], over whatever `connection` is at the time of a request.
    pub fn connected(connection: Connection, registry: Arc<Registry>) -> Self {
        Self::new(Remote { connection }, registry)
    }
}

/// How a server is reached. It can be replaced while clients use it, for example by one with a newer certificate: later
/// requests take the new one, and those under way end as they began. Clones are the same connection.
#[derive(Clone)]
pub struct Connection(Arc<RwLock<kube::Client>>);

impl Connection {
    /// Reaches the server through `client`.
    pub fn new(client: kube::Client) -> Self {
        Self(Arc::new(RwLock::new(client)))
    }

    /// Reaches it through `client` from now on.
    pub fn replace(&self, client: kube::Client) {
        *self.0.write().expect("no writer panics") = client;
    }

    fn current(&self) -> kube::Client {
        self.0.read().expect("no writer panics").clone()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Turns requests into HTTP and back.
#[derive(Clone)]
struct Remote {
    connection: Connection,
}

impl Service<ApiRequest> for Remote {
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<ApiResponse, ApiError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        Box::pin(exchange(self.connection.current(), request))
    }
}

async fn exchange(client: kube::Client, request: ApiRequest) -> Result<ApiResponse, ApiError> {
    let kind = request.kind.clone();
    let path = path(&request);
    let mut query = Query(Vec::new());
    let mut body = Bytes::new();
    let mut content_type = "application/json";
    let method = match request.operation {
        Operation::Get => Method::GET,
        Operation::List(params) => {
            query.list(&params);
            Method::GET
        }
        Operation::Watch(params) => {
            query.watch(&params);
            let request = build(Method::GET, &path, &query, content_type, body)?;
            let response = send(&client, request).await?;
            return Ok(ResponseBody::Watch(watch(response.into_body())).into());
        }
        Operation::Create(payload, params) => {
            query.write(&params);
            body = json(payload);
            Method::POST
        }
        Operation::Update(payload, params) => {
            query.write(&params);
            body = json(payload);
            Method::PUT
        }
        Operation::Patch(patch, params) => {
            query.write(&params);
            if patch.force {
                query.push("force", "true");
            }
            content_type = match patch.format {
                PatchFormat::Json => "application/json-patch+json",
                PatchFormat::Merge => "application/merge-patch+json",
                PatchFormat::StrategicMerge => "application/strategic-merge-patch+json",
                PatchFormat::Apply => "application/apply-patch+yaml",
            };
            body = patch.body;
            Method::PATCH
        }
        Operation::Delete(params) => {
            body = delete_options(&params);
            Method::DELETE
        }
        Operation::DeleteCollection(list, params) => {
            query.list(&list);
            body = delete_options(&params);
            Method::DELETE
        }
    };
    let is_list = method == Method::GET && request.name.is_none();
    let response = send(&client, build(method, &path, &query, content_type, body)?).await?;
    let created = response.status() == http::StatusCode::CREATED;
    let warnings = response.headers().get_all(header::WARNING).iter();
    let warnings = warnings.filter_map(|w| w.to_str().ok().map(warning_text)).collect();
    let bytes = response.into_body().collect().await.map_err(away)?.to_bytes();
    let body = if is_list { list(&bytes)? } else { object(&kind, bytes, created)? };
    Ok(ApiResponse::noted(body, Notes { warnings, ..Notes::default() }))
}

/// The text of `299 - "text"`.
fn warning_text(header: &str) -> String {
    header.splitn(3, ' ').nth(2).unwrap_or(header).trim_matches('"').to_owned()
}

fn away(error: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("the API server cannot be reached: {error}"))
}

async fn send(client: &kube::Client, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let response = client.send(request).await.map_err(away)?;
    if response.status().is_success() {
        return Ok(response);
    }
    let code = response.status();
    let bytes = response.into_body().collect().await.map_err(away)?.to_bytes();
    Err(match serde_json::from_slice::<Status>(&bytes) {
        Ok(status) if status.status.as_deref() == Some("Failure") => ApiError::from_status(status),
        _ => ApiError::new(code.as_u16(), "", format!("{code}: {}", String::from_utf8_lossy(&bytes).trim())),
    })
}

fn build(
    method: Method,
    path: &str,
    query: &Query,
    content_type: &str,
    body: Bytes,
) -> Result<Request<Body>, ApiError> {
    let builder = Request::builder()
        .method(method)
        .uri(format!("{path}?{}", query.encode()))
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, content_type);
    builder.body(Body::from(body)).map_err(|e| ApiError::bad_request(e.to_string()))
}

fn path(request: &ApiRequest) -> String {
    let kind = &request.kind;
    let mut path = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let mut push = |segment: &str| {
        path.push('/');
        path.extend(form_urlencoded::byte_serialize(segment.as_bytes()));
    };
    if let Some(namespace) = &request.namespace {
        push("namespaces");
        push(namespace);
    }
    push(&kind.plural);
    request.name.iter().for_each(|n| push(n));
    request.subresource.iter().for_each(|s| push(s));
    path
}

struct Query(Vec<(&'static str, String)>);

impl Query {
    fn push(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    fn text(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.push(name, value);
        }
    }

    fn list(&mut self, params: &ListParams) {
        self.text("labelSelector", &params.label_selector);
        self.text("fieldSelector", &params.field_selector);
        self.text("continue", &params.continue_);
        if params.limit > 0 {
            self.push("limit", params.limit.to_string());
        }
        if let Some(version) = params.resource_version.filter(|_| params.continue_.is_empty()) {
            self.push("resourceVersion", version.to_string());
            if params.version_match == VersionMatch::Exact {
                self.push("resourceVersionMatch", "Exact");
            }
        }
    }

    fn watch(&mut self, params: &WatchParams) {
        self.push("watch", "true");
        self.text("labelSelector", &params.label_selector);
        self.text("fieldSelector", &params.field_selector);
        if let Some(version) = params.resource_version {
            self.push("resourceVersion", version.to_string());
        }
        if params.bookmarks {
            self.push("allowWatchBookmarks", "true");
        }
        if params.send_initial_events {
            self.push("sendInitialEvents", "true");
            self.push("resourceVersionMatch", "NotOlderThan");
        }
        if let Some(seconds) = params.timeout_s {
            self.push("timeoutSeconds", seconds.to_string());
        }
    }

    fn write(&mut self, params: &WriteParams) {
        self.text("fieldManager", &params.field_manager);
        if params.dry_run {
            self.push("dryRun", "All");
        }
        self.push(
            "fieldValidation",
            match params.field_validation {
                FieldValidation::Ignore => "Ignore",
                FieldValidation::Warn => "Warn",
                FieldValidation::Strict => "Strict",
            },
        );
    }

    fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

fn json(payload: Payload) -> Bytes {
    match payload {
        Payload::Json(json) => json,
        Payload::Typed(object) => object.to_json().into(),
    }
}

fn delete_options(params: &DeleteParams) -> Bytes {
    let mut options = serde_json::json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
    if let Some(seconds) = params.grace_period_s {
        options["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = params.propagation {
        options["propagationPolicy"] = propagation.name().into();
    }
    if let Some(uid) = &params.uid {
        options["preconditions"]["uid"] = uid.as_str().into();
    }
    if let Some(version) = params.resource_version {
        options["preconditions"]["resourceVersion"] = version.to_string().into();
    }
    if params.dry_run {
        options["dryRun"] = serde_json::json!(["All"]);
    }
    options.to_string().into()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_: String,
    remaining_item_count: Option<u64>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    kind: String,
    metadata: Option<Meta>,
}

fn malformed(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("the API server's answer cannot be read: {error}"))
}

fn header(json: &[u8]) -> Result<(Header, u64), ApiError> {
    let header: Header = serde_json::from_slice(json).map_err(malformed)?;
    let revision = header.metadata.as_ref().and_then(|m| m.resource_version.parse().ok()).unwrap_or(0);
    Ok((header, revision))
}

fn stored(json: Bytes) -> Result<Stored, ApiError> {
    let (_, revision) = header(&json)?;
    Ok(Stored::new(json, revision))
}

fn object(kind: &Kind, json: Bytes, created: bool) -> Result<ResponseBody, ApiError> {
    let (header, revision) = header(&json)?;
    if header.kind == kind.kind {
        return Ok(ResponseBody::Object { object: Stored::new(json, revision), created });
    }
    if header.kind != "Status" {
        return Ok(match header.kind.strip_suffix("List") {
            // What a deletecollection removed.
            Some(of) if of == kind.kind => ResponseBody::Done,
            // What a subresource shows: a scale, a token.
            _ => ResponseBody::Object { object: Stored::new(json, revision), created },
        });
    }
    let status: Status = serde_json::from_slice(&json).map_err(malformed)?;
    Ok(match status.details {
        Some(details) if details.uid.is_some() => ResponseBody::Deleted {
            name: details.name.unwrap_or_default(),
            uid: details.uid.unwrap_or_default(),
            // Not told: whoever waits for the caches will see the removal when it comes.
            revision: 0,
        },
        _ => ResponseBody::Done,
    })
}

fn list(json: &[u8]) -> Result<ResponseBody, ApiError> {
    #[derive(Deserialize)]
    struct Items<'a> {
        metadata: Meta,
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    let list: Items<'_> = serde_json::from_slice(json).map_err(malformed)?;
    let items = list.items.iter().map(|raw| stored(Bytes::copy_from_slice(raw.get().as_bytes())));
    Ok(ResponseBody::List(ObjectList {
        items: items.collect::<Result<_, _>>()?,
        revision: list.metadata.resource_version.parse().unwrap_or(0),
        continue_: list.metadata.continue_,
        remaining: list.metadata.remaining_item_count,
    }))
}

fn watch(body: Body) -> WatchStream {
    let lines = Lines { body: BodyStream::new(body), buffer: BytesMut::new(), scanned: 0 };
    let events = futures::stream::unfold(Some(lines), |lines| async {
        let mut lines = lines?;
        match lines.next().await {
            Ok(Some(line)) => match event(&line) {
                Ok(event) => Some((Ok(event), Some(lines))),
                Err(error) => Some((Err(error), None)),
            },
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    WatchStream::new(events)
}

/// Splits a body into lines.
struct Lines {
    body: BodyStream<Body>,
    buffer: BytesMut,
    /// No newline before this offset.
    scanned: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|&b| b == b'\n') {
                let line = self.buffer.split_to(self.scanned + at + 1).freeze();
                self.scanned = 0;
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > LINE_LIMIT {
                return Err(malformed("a line of a watch is too long"));
            }
            match self.body.next().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(away(error)),
                None => return Ok(None),
            }
        }
    }
}

fn event(line: &Bytes) -> Result<WatchEvent, ApiError> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type")]
        type_: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let parsed: Line<'_> = serde_json::from_slice(line).map_err(malformed)?;
    let json = line.slice_ref(parsed.object.get().as_bytes());
    let event = match parsed.type_ {
        "ADDED" => EventType::Added,
        "MODIFIED" => EventType::Modified,
        "DELETED" => EventType::Deleted,
        "BOOKMARK" => EventType::Bookmark,
        _ => {
            let status: Status = serde_json::from_slice(&json).map_err(malformed)?;
            return Err(ApiError::from_status(status));
        }
    };
    let (header, revision) = header(&json)?;
    let annotated = |m: Meta| m.annotations.get("k8s.io/initial-events-end").is_some_and(|v| v == "true");
    let initial_events_end = event == EventType::Bookmark && header.metadata.is_some_and(annotated);
    Ok(WatchEvent { event, object: Stored::new(json, revision), initial_events_end })
}
