//! Requests over HTTP: paths, queries, headers, and bodies down to the storage.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_reconcile::ApiServer;
use minik8s_reconcile::clock::Clock;
use minik8s_reconcile::http::{Body, Frontend};
use minik8s_reconcile::rng::Rng;
use minik8s_reconcile::storage::memory::MemoryStorage;
use serde_json::Value;

/// No request is the server's fault: it is answered with anything but a 500, and every refusal is a `Status` with the
/// response's code. An object that has been made stays as it is when what the server says of it is written back. The input
/// is a request as HTTP/1.1 has it, the version left out.
pub(crate) fn holds(data: &[u8]) {
    let Some(request) = parse(data) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let builder = ApiServer::builder().registry(crate::registry().clone());
        let clock = Clock::tokio(jiff::Timestamp::UNIX_EPOCH);
        let server = builder.clock(clock).rng(Rng::from_seed(1)).build(MemoryStorage::new());
        server.bootstrap().await.expect("namespaces");
        let mut config = ConfigMap::default();
        config.metadata.name = Some("a".to_owned());
        server.client().namespaced("default").create(&config).await.expect("an object");
        let frontend = Frontend::new(server);

        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let wants_json = request.headers().get(header::ACCEPT).is_none();
        let dry = request
            .uri()
            .query()
            .is_some_and(|q| q.to_ascii_lowercase().contains("dryrun") || q.contains('%'));
        let response = frontend.handle(request).await;
        let code = response.status();
        let Some(bytes) = whole(response).await else { return };
        is_proper(code, &bytes);
        if method == Method::POST && code == StatusCode::CREATED && wants_json && !dry {
            stays(&frontend, &path, &bytes).await;
        }
    });
}

/// The body of an answer that is no stream.
async fn whole(response: Response<Body>) -> Option<Bytes> {
    let exact = http_body::Body::size_hint(response.body()).exact().is_some();
    if !exact {
        return None;
    }
    Some(response.into_body().collect().await.expect("a body").to_bytes())
}

fn is_proper(code: StatusCode, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Impersonation of groups without a user is a 500 in Kubernetes too.
    let known = text.contains("without impersonating a user name") || code == StatusCode::GATEWAY_TIMEOUT;
    assert!(!code.is_server_error() || known, "{code}: {text}");
    if code.is_client_error() {
        let status: Value = serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], code.as_u16());
        assert!(status["message"].as_str().is_some_and(|m| !m.is_empty()), "{text}");
    }
}

/// What was made in the collection at `path` is what the server says it is.
async fn stays(frontend: &Frontend, path: &str, made: &Bytes) {
    let made: Value = serde_json::from_slice(made).expect("JSON");
    let (Some(name), Some(version)) = (
        made.pointer("/metadata/name").and_then(Value::as_str),
        made.pointer("/metadata/resourceVersion").and_then(Value::as_str),
    ) else {
        return;
    };
    let uri = format!("{}/{name}", path.trim_end_matches('/'));
    let get = Request::get(&uri).body(Full::new(Bytes::new())).expect("a request");
    let response = frontend.handle(get).await;
    if response.status() != StatusCode::OK {
        return;
    }
    let read = whole(response).await.expect("an object");
    assert_eq!(serde_json::from_slice::<Value>(&read).expect("JSON"), made);
    let put = Request::put(&uri).header(header::CONTENT_TYPE, "application/json").body(Full::new(read));
    let response = frontend.handle(put.expect("a request")).await;
    let code = response.status();
    let written = whole(response).await.expect("an answer");
    let text = String::from_utf8_lossy(&written);
    if code == StatusCode::METHOD_NOT_ALLOWED {
        return;
    }
    assert_eq!(code, StatusCode::OK, "{text}");
    let written: Value = serde_json::from_slice(&written).expect("JSON");
    assert_eq!(written.pointer("/metadata/resourceVersion").and_then(Value::as_str), Some(version), "{made}");
}

/// `METHOD TARGET`, headers on a line each, an empty line, a body.
fn parse(data: &[u8]) -> Option<Request<Full<Bytes>>> {
    let mut rest = data;
    let mut line = || {
        let end = rest.iter().position(|b| *b == b'\n')?;
        let (line, after) = rest.split_at(end);
        rest = &after[1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    };
    let first = line()?;
    let space = first.iter().position(|b| *b == b' ')?;
    let mut request = Request::builder().method(&first[..space]).uri(&first[space + 1..]);
    loop {
        match line()? {
            [] => break,
            header => {
                let colon = header.iter().position(|b| *b == b':')?;
                request = request.header(&header[..colon], header[colon + 1..].trim_ascii());
            }
        }
    }
    request.body(Full::new(Bytes::copy_from_slice(rest))).ok()
}
