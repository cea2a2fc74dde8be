//! Requests about objects.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use minik8s_api::{Kind, protobuf};
use serde_json::{Value, json};

use super::audit::Trail;
use super::body::{self, Body};
use super::negotiate::{self, Encoding, Sent, Shape};
use super::params::Query;
use super::route::Place;
use super::table::{self, Include};
use super::{BoxError, Frontend};
use crate::error::ApiError;
use crate::request::{
    ApiRequest, ApiResponse, EventType, ObjectList, Operation, Patch, PatchFormat, Payload, ResponseBody,
    User, WatchEvent, WatchStream,
};
use crate::server::authorizer::{self, Action};
use crate::storage::StorageError;

/// A watch over HTTP ends after that long if the client does not say, so that its connection is renewed.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Events that are written together, if that many are ready.
const WATCH_BATCH: usize = 64;

/// How to answer.
struct Answer {
    kind: Arc<Kind>,
    shape: Shape,
    encoding: Encoding,
    include: Include,
}

impl Frontend {
    pub(super) async fn resource<B>(
        &self,
        place: Place,
        user: User,
        request: Request<B>,
    ) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Before anything else of the request is looked at.
        self.may_begin(&user, &place, request.method(), request.uri()).await?;
        let registry = self.server.registry();
        let kind = registry
            .by_path(&place.group, &place.version, &place.plural)
            .ok_or_else(ApiError::no_such_resource)?
            .clone();
        // Rights in a namespace are none over what is in no namespace.
        let misplaced = place.namespace.is_some() && !kind.namespaced
            || place.namespace.is_none() && kind.namespaced && place.name.is_some();
        if misplaced {
            return Err(ApiError::no_such_resource());
        }
        if let (Some(name), Some(subresource)) = (&place.name, &place.subresource)
            && super::proxy::is_proxied(&kind, subresource)
        {
            return self.proxy(&kind, &place, &user, name, subresource, request).await;
        }
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query());
        let (shape, encoding) = negotiate::accepted(&parts.headers)?;
        let answer = Answer {
            kind: match place.subresource.as_deref() {
                Some("scale") => minik8s_api::scale::kind(),
                _ => kind.clone(),
            },
            shape,
            encoding,
            include: Include::parse(query.get("includeObject"))?,
        };
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let collection = place.name.is_none();
        let operation = match parts.method {
            Method::GET if collection && query.flag("watch")? => {
                let mut params = query.watch(&kind)?;
                params.timeout_s.get_or_insert(WATCH_TIMEOUT.as_secs() as u32);
                let refuses = query.get("sendInitialEvents").is_some() && !params.send_initial_events;
                if refuses && params.resource_version.unwrap_or(0) == 0 {
                    params.resource_version = Some(self.server.storage().revision().await?);
                }
                Operation::Watch(params)
            }
            Method::GET if collection => Operation::List(query.list()?),
            Method::GET => {
                // What is read is the newest there is: recent enough for every revision that has come.
                if let Some(requested) = query.read_version()? {
                    let current = self.server.storage().revision().await?;
                    if requested > current {
                        return Err(StorageError::Future { requested, current }.into());
                    }
                }
                Operation::Get
            }
            Method::POST => {
                let params = query.write(agent, "CreateOptions")?;
                Operation::Create(self.payload(&parts.headers, body).await?, params)
            }
            Method::PUT => {
                let params = query.write(agent, "UpdateOptions")?;
                Operation::Update(self.payload(&parts.headers, body).await?, params)
            }
            Method::PATCH => {
                let format = negotiate::patch_format(&parts.headers)?;
                let body = body::read(&parts.headers, body, &self.limits).await?;
                let force = query.flag("force")?;
                let apply = format == PatchFormat::Apply;
                // Kubernetes refuses `force=false` too.
                let patch = Patch { format, body, force: force || (!apply && query.has("force")) };
                // Who applies has to say who it is.
                Operation::Patch(patch, query.write(if apply { "" } else { agent }, "PatchOptions")?)
            }
            Method::DELETE => {
                let params = query.delete(&self.options(&parts.headers, body).await?)?;
                if collection {
                    Operation::DeleteCollection(query.list()?, params)
                } else {
                    Operation::Delete(params)
                }
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        let trail = parts.extensions.get::<Trail>();
        if let Some(trail) = trail {
            match &operation {
                Operation::Create(Payload::Json(body), _) | Operation::Update(Payload::Json(body), _) => {
                    trail.sent(body);
                }
                Operation::Patch(patch, _) => trail.sent(&patch.body),
                _ => {}
            }
        }
        let request = ApiRequest {
            kind,
            namespace: place.namespace,
            name: place.name,
            subresource: place.subresource,
            operation,
            user,
        };
        let response = self.handled(request).await;
        if let Some(trail) = trail {
            match &response {
                Ok(response) => trail.annotate(&response.annotations),
                Err(error) => error.notes().into_iter().for_each(|notes| trail.annotate(&notes.annotations)),
            }
        }
        self.answer(&answer, response?)
    }

    /// What the server answers. Rules that somebody wrote are compiled and run beside the threads that all requests
    /// share, and few at once.
    async fn handled(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let reads = matches!(request.operation, Operation::Get | Operation::List(_) | Operation::Watch(_));
        let defines = request.kind.group == "apiextensions.k8s.io";
        if reads || !(request.kind.runs_rules || defines) {
            return self.server.handle(request).await;
        }
        let permit = self.rules.clone().acquire_owned().await.map_err(ApiError::internal)?;
        let (server, runtime) = (self.server.clone(), tokio::runtime::Handle::current());
        let handled = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            runtime.block_on(server.handle(request))
        });
        handled.await.map_err(ApiError::internal)?
    }

    /// Whether `user` may do what the request's method and path say.
    async fn may_begin(
        &self,
        user: &User,
        place: &Place,
        method: &Method,
        uri: &Uri,
    ) -> Result<(), ApiError> {
        let query = Query::parse(uri.query());
        let collection = place.name.is_none();
        let verb = verb_of(place, method, uri)?;
        let selector = query.get("fieldSelector").unwrap_or_default();
        let selected = authorizer::selected(selector, "metadata.name").filter(|_| collection);
        let own = place.name.as_deref().filter(|_| place.group.is_empty() && place.plural == "namespaces");
        let action = Action::Resource {
            verb,
            group: &place.group,
            version: &place.version,
            resource: &place.plural,
            subresource: place.subresource.as_deref().unwrap_or_default(),
            namespace: place.namespace.as_deref().or(own).unwrap_or_default(),
            name: place.name.as_deref().or(selected.as_deref()).unwrap_or_default(),
            field_selector: selector,
        };
        self.server.permit(user, &action).await
    }

    fn answer(&self, answer: &Answer, response: ApiResponse) -> Result<Response<Body>, ApiError> {
        let now = self.server.clock().now();
        let mut code = StatusCode::OK;
        let bytes: Bytes = match response.body {
            ResponseBody::Object { object, created } => {
                if created {
                    code = StatusCode::CREATED;
                }
                match answer.shape {
                    Shape::Object => object.json().clone(),
                    Shape::Metadata => table::partial(&object)?.to_string().into(),
                    Shape::Table => {
                        let metadata = json!({ "resourceVersion": object.revision().to_string() });
                        let rows = std::iter::once(&object);
                        table::table(&answer.kind, rows, metadata, answer.include, now)?.to_string().into()
                    }
                }
            }
            ResponseBody::List(list) => list_bytes(answer, &list, now)?,
            ResponseBody::Watch(stream) => return Ok(self.watch_response(answer, stream)),
            ResponseBody::Deleted { name, uid, .. } => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": { "name": name, "group": answer.kind.group, "kind": answer.kind.plural, "uid": uid },
            })
            .to_string()
            .into(),
            ResponseBody::Done => {
                code = StatusCode::CREATED;
                json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
                })
                .to_string()
                .into()
            }
        };
        let mut response_out = match answer.encoding {
            Encoding::Json => super::json(code, bytes),
            Encoding::Yaml => super::respond_with(code, "application/yaml", to_yaml(&bytes)?),
        };
        super::warn(&mut response_out, &response.warnings);
        Ok(response_out)
    }

    fn watch_response(&self, answer: &Answer, stream: WatchStream) -> Response<Body> {
        let kind = answer.kind.clone();
        let (shape, include) = (answer.shape, answer.include);
        let clock = self.server.clock().clone();
        let lines = stream.ready_chunks(WATCH_BATCH).map(move |events| {
            let mut out = BytesMut::new();
            for event in events {
                match event.and_then(|event| Ok((line(&kind, shape, include, &clock, &event)?, event))) {
                    Ok((object, event)) => push_line(&mut out, type_name(event.event), &object),
                    Err(error) => {
                        let status =
                            serde_json::to_vec(&error.to_status()).expect("a Status has string keys");
                        push_line(&mut out, "ERROR", &status);
                    }
                }
            }
            Ok(out.freeze())
        });
        Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CACHE_CONTROL, "no-cache, private")
            .body(Body::stream(lines.take_until(self.closing.clone().cancelled_owned())))
            .expect("the parts are valid")
    }
}

impl Frontend {
    /// The object that a request brings.
    async fn payload<B>(&self, headers: &HeaderMap, body: B) -> Result<Payload, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let sent = negotiate::sent(headers)?;
        json_of(sent, body::read(headers, body, &self.limits).await?).map(Payload::Json)
    }

    /// The options that a DELETE brings, if any.
    async fn options<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let sent = negotiate::sent(headers);
        let bytes = body::read(headers, body, &self.limits).await?;
        match (bytes.is_empty(), sent) {
            // Without a body nobody cares for its type.
            (true, _) => Ok(bytes),
            // Options are no manifest: they come without a kind, too.
            (false, Ok(Sent::Yaml)) => {
                let value: Value = serde_yaml::from_slice(&bytes)
                    .map_err(|e| ApiError::bad_request(format!("the body is not a DeleteOptions: {e}")))?;
                Ok(value.to_string().into())
            }
            (false, sent) => json_of(sent?, bytes),
        }
    }
}

/// What the request's method means for what its path names.
pub(super) fn verb_of(place: &Place, method: &Method, uri: &Uri) -> Result<&'static str, ApiError> {
    let collection = place.name.is_none();
    Ok(match *method {
        Method::GET if collection && Query::parse(uri.query()).flag("watch").unwrap_or(false) => "watch",
        Method::GET if collection => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        _ => return Err(ApiError::method_not_allowed()),
    })
}

fn type_name(event: EventType) -> &'static str {
    match event {
        EventType::Added => "ADDED",
        EventType::Modified => "MODIFIED",
        EventType::Deleted => "DELETED",
        EventType::Bookmark => "BOOKMARK",
    }
}

fn push_line(out: &mut BytesMut, name: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}

/// A watch event's object in the shape that the client wants.
fn line(
    kind: &Kind,
    shape: Shape,
    include: Include,
    clock: &crate::clock::Clock,
    event: &WatchEvent,
) -> Result<Bytes, ApiError> {
    Ok(match shape {
        Shape::Object => event.object.json().clone(),
        Shape::Metadata => table::partial(&event.object)?.to_string().into(),
        Shape::Table => {
            let metadata = json!({ "resourceVersion": event.object.revision().to_string() });
            let rows = std::iter::once(&event.object).filter(|_| event.event != EventType::Bookmark);
            table::table(kind, rows, metadata, include, clock.now())?.to_string().into()
        }
    })
}

fn list_bytes(answer: &Answer, list: &ObjectList, now: jiff::Timestamp) -> Result<Bytes, ApiError> {
    let mut metadata = json!({ "resourceVersion": list.revision.to_string() });
    if !list.continue_.is_empty() {
        metadata["continue"] = list.continue_.clone().into();
        if let Some(remaining) = list.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    let kind = &answer.kind;
    match answer.shape {
        Shape::Object => {
            let size: usize = list.items.iter().map(|o| o.json().len() + 1).sum();
            let mut out = BytesMut::with_capacity(size + 256);
            let head = json!(kind.api_version());
            out.put_slice(format!("{{\"kind\":\"{}List\",\"apiVersion\":{head},", kind.kind).as_bytes());
            out.put_slice(format!("\"metadata\":{metadata},\"items\":[").as_bytes());
            for (index, object) in list.items.iter().enumerate() {
                if index > 0 {
                    out.put_u8(b',');
                }
                out.put_slice(object.json());
            }
            out.put_slice(b"]}");
            Ok(out.freeze())
        }
        Shape::Table => {
            Ok(table::table(kind, list.items.iter(), metadata, answer.include, now)?.to_string().into())
        }
        Shape::Metadata => {
            let items = list.items.iter().map(table::partial).collect::<Result<Vec<_>, _>>()?;
            Ok(json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items,
            })
            .to_string()
            .into())
        }
    }
}

fn to_yaml(json: &[u8]) -> Result<Vec<u8>, ApiError> {
    let value: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    serde_yaml::to_string(&value).map(String::into_bytes).map_err(ApiError::internal)
}

/// A body as JSON.
fn json_of(sent: Sent, bytes: Bytes) -> Result<Bytes, ApiError> {
    match sent {
        Sent::Json => Ok(bytes),
        Sent::Protobuf => match protobuf::to_json(&bytes) {
            Ok(json) => Ok(json.into()),
            Err(error) => Err(ApiError::bad_request(error.to_string())),
        },
        Sent::Yaml => {
            let text =
                std::str::from_utf8(&bytes).map_err(|_| ApiError::bad_request("the body is not UTF-8"))?;
            minik8s_api::manifest::to_json("the body", text).map(Into::into).map_err(ApiError::bad_request)
        }
    }
}
