use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::ApiServer;
use crate::http::{Body, Frontend, Limits, Listener, serve};
use crate::storage::memory::MemoryStorage;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
/// Far longer than anything here should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn frontend(limits: Limits) -> Frontend {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("namespaces");
    Frontend::new(server).with_limits(limits)
}

async fn status(response: Response<Body>) -> (StatusCode, Value) {
    let code = response.status();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn nested(levels: usize, (open, inner, close): (&str, &str, &str)) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

#[tokio::test]
async fn what_is_too_much_is_refused_in_words() {
    let small = Limits::default().body(100_000).uri(2000);
    let frontend = frontend(small).await;
    let object = |data: &str| format!(r#"{{"metadata":{{"name":"a"}},"data":{data}}}"#);
    let aliases = {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(",")));
        }
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  x: y\n{bomb}")
    };
    let (json, yaml, gzip) =
        ("content-type: application/json", "content-type: application/yaml", "content-encoding: gzip");
    let post = |header: &str, body: String| {
        let (name, value) = header.split_once(": ").expect("a header");
        Request::post(CONFIGS).header(name, value).body(Full::new(Bytes::from(body))).expect("a request")
    };
    let merge = |body: String| {
        let request =
            Request::patch(format!("{CONFIGS}/a")).header("content-type", "application/merge-patch+json");
        request.body(Full::new(Bytes::from(body))).expect("a request")
    };
    let to = |query: String| {
        Request::post(format!("{CONFIGS}?{query}")).body(Full::new(object("{}").into())).expect("a request")
    };
    let deep_yaml = nested(1000, ("{a: ", "1", "}"));
    let deep_yaml = format!("kind: ConfigMap\napiVersion: v1\ndata: {deep_yaml}");
    let large = object(&format!(r#"{{"k":"{}"}}"#, "x".repeat(100_000)));
    for (what, request, code, reason, words) in [
        ("a body", post(json, large), 413, "RequestEntityTooLarge", "limit is 100000"),
        (
            "a path",
            to(format!("labelSelector={}", "b".repeat(2000))),
            414,
            "RequestURITooLong",
            "limit is 2000 bytes",
        ),
        ("a compressed body", post(gzip, object("{}")), 415, "UnsupportedMediaType", "Content-Encoding"),
        ("deep JSON", merge(nested(1000, (r#"{"a":"#, "1", "}"))), 400, "BadRequest", "recursion"),
        ("deep lists", merge(nested(10_000, ("[", "", "]"))), 400, "BadRequest", "recursion"),
        ("deep YAML", post(yaml, deep_yaml), 400, "BadRequest", ""),
        ("aliases of aliases", post(yaml, aliases), 400, "BadRequest", ""),
        ("a manager's name", to(format!("fieldManager={}", "m".repeat(200))), 422, "Invalid", "fieldManager"),
    ] {
        let (got, status) = status(frontend.handle(request).await).await;
        assert_eq!((got.as_u16(), status["reason"].as_str()), (code, Some(reason)), "{what}: {status}");
        assert!(status["message"].as_str().is_some_and(|m| m.contains(words)), "{what}: {status}");
        assert_eq!(
            (&status["kind"], status["code"].as_u64()),
            (&"Status".into(), Some(code.into())),
            "{what}"
        );
    }
    let request = Request::get(CONFIGS).body(Full::new(Bytes::new())).expect("a request");
    let (code, list) = self::status(frontend.handle(request).await).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)), "nothing was made");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_is_not_waited_for() {
    let frontend = frontend(Limits::default().body_time(Duration::from_secs(60))).await;
    let trickle = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Some((Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Bytes::from_static(b" ")), ()))
    });
    let request = Request::post(CONFIGS).body(Body::stream(trickle.boxed())).expect("a request");
    let before = tokio::time::Instant::now();
    let (code, status) = status(frontend.handle(request).await).await;
    assert_eq!(before.elapsed(), Duration::from_secs(60));
    assert_eq!((code, status["reason"].as_str()), (StatusCode::REQUEST_TIMEOUT, Some("Timeout")));
}

struct World {
    address: SocketAddr,
    _stop: DropGuard,
}

impl World {
    async fn new(limits: Limits) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        tokio::spawn(serve(frontend(limits).await, vec![listener], stop.clone()));
        Self { address, _stop: stop.drop_guard() }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }
}

/// Sends and reads the head of the answer, and all of a short body; empty when the other side hangs up.
async fn exchange(stream: &mut TcpStream, sent: &[u8]) -> String {
    // Who is refused early may be hung up on while writing.
    let _ = stream.write_all(sent).await;
    let mut answer = vec![0; 64 * 1024];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn heads_have_bounds_and_the_server_goes_on() {
    let world = World::new(Limits::default().headers(8192).uri(1000)).await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(2000));
    let large = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    let many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    for (sent, code, goes_on) in [
        (long, 414, true),
        (large, 431, false),
        (many, 431, false),
        ("nonsense\r\n\r\n".to_owned(), 400, false),
    ] {
        let mut stream = world.connect().await;
        let answer = exchange(&mut stream, sent.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
        if goes_on {
            assert!(exchange(&mut stream, LIVEZ).await.starts_with("HTTP/1.1 200"), "the same connection");
        }
        assert!(exchange(&mut world.connect().await, LIVEZ).await.starts_with("HTTP/1.1 200"), "another one");
    }
}

#[tokio::test]
async fn for_one_more_connection_the_one_that_was_never_used_goes() {
    let world = World::new(Limits::default().connections(2)).await;
    let mut used = world.connect().await;
    assert!(exchange(&mut used, LIVEZ).await.starts_with("HTTP/1.1 200"));
    let mut stranger = world.connect().await;
    let mut third = world.connect().await;
    assert!(exchange(&mut third, LIVEZ).await.starts_with("HTTP/1.1 200"));
    assert_eq!(exchange(&mut stranger, b"").await, "", "it has been closed");
    assert!(exchange(&mut used, LIVEZ).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_does_nothing_is_closed() {
    let world = World::new(Limits::default().idle(Duration::from_secs(2))).await;
    let mut used = world.connect().await;
    assert!(exchange(&mut used, LIVEZ).await.starts_with("HTTP/1.1 200"));
    assert_eq!(exchange(&mut used, b"").await, "");
    assert_eq!(exchange(&mut world.connect().await, b"").await, "");
}
