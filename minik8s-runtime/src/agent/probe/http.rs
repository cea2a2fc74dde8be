//! Probes over HTTP and gRPC.

use std::io;

use k8s_openapi::api::core::v1::HTTPGetAction;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tls;

/// More than this of a response's head is not read.
const MOST: usize = 16 << 10;

/// Asks for a page; a status of 200 to 399 is well. Redirects are not followed.
pub(super) async fn get(host: &str, port: u16, get: &HTTPGetAction) -> Result<(), String> {
    let tls = get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
    let scheme = if tls { "https" } else { "http" };
    let failed = |e: std::io::Error| format!("Get \"{scheme}://{host}:{port}\": {e}");
    let request = request(host, port, get)?;
    let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    let head = if tls {
        let stream = tls::connect(host, stream).await.map_err(failed)?;
        exchange(stream, &request).await
    } else {
        exchange(stream, &request).await
    };
    match status(&head.map_err(failed)?) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("Get \"{scheme}://{host}:{port}\": malformed HTTP response")),
    }
}

/// What is answered, up to the end of its first line.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.contains(&b'\n') && head.len() < MOST {
        match stream.read(&mut chunk).await? {
            0 => break,
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(head)
}

fn request(host: &str, port: u16, get: &HTTPGetAction) -> Result<String, String> {
    let path = get.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut headers = vec![
        ("Host".to_owned(), authority),
        ("User-Agent".to_owned(), "kube-probe/1".to_owned()),
        ("Accept".to_owned(), "*/*".to_owned()),
        ("Connection".to_owned(), "close".to_owned()),
    ];
    for header in get.http_headers.iter().flatten() {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&header.name));
        // An empty value takes a header of ours away.
        if !header.value.is_empty() {
            headers.push((header.name.clone(), header.value.clone()));
        }
    }
    let unfit = |text: &str| text.contains(|c: char| c.is_ascii_control());
    if unfit(path) || path.contains(' ') || headers.iter().any(|(name, value)| unfit(name) || unfit(value)) {
        return Err("the probe's path or headers contain what cannot be sent".to_owned());
    }
    let mut out = format!("GET {slash}{path} HTTP/1.1\r\n");
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    Ok(out)
}

/// The status of `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    words.next().filter(|w| w.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks `grpc.health.v1.Health`.
pub(super) async fn grpc_health(host: &str, port: u16, service: &str) -> Result<(), String> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{authority}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await.map_err(|e| format!("failed to connect to {authority}: {e}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthRequest, HealthResponse>::default();
    let request = tonic::Request::new(HealthRequest { service: service.to_owned() });
    match client.unary(request, path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(answer) => Err(format!("service unhealthy (responded with status {})", answer.get_ref().status)),
        Err(status) => Err(format!("health rpc failed: {}", status.message())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    async fn answer(with: &'static str, action: serde_json::Value) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            let mut chunk = [0; 512];
            while !seen.ends_with(b"\r\n\r\n") {
                let n = stream.read(&mut chunk).await.unwrap();
                seen.extend_from_slice(&chunk[..n]);
            }
            stream.write_all(with.as_bytes()).await.unwrap();
            String::from_utf8(seen).unwrap()
        });
        let action: HTTPGetAction = serde_json::from_value(action).unwrap();
        let result = get("127.0.0.1", port, &action).await;
        (result, server.await.unwrap())
    }

    #[tokio::test]
    async fn the_status_decides() {
        let action = json!({"port": 1, "path": "health",
                            "httpHeaders": [{"name": "host", "value": "h"}, {"name": "X", "value": "1"}]});
        let (ok, request) = answer("HTTP/1.1 204 No Content\r\n\r\n", action).await;
        assert!(ok.is_ok());
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nhost: h\r\n") && request.contains("\r\nX: 1\r\n"), "{request}");
        assert!(!request.contains("Host: 127"), "{request}");
        let (bad, _) = answer("HTTP/1.0 503 Nope\r\n\r\n", json!({"port": 1})).await;
        assert_eq!(bad.unwrap_err(), "HTTP probe failed with statuscode: 503");
        let (odd, _) = answer("SSH-2.0\r\n", json!({"port": 1})).await;
        assert!(odd.unwrap_err().contains("malformed"));
    }

    #[test]
    fn headers_cannot_smuggle() {
        let action: HTTPGetAction =
            serde_json::from_value(json!({"port": 1, "httpHeaders": [{"name": "A", "value": "b\r\nC: d"}]}))
                .unwrap();
        assert!(request("h", 1, &action).is_err());
    }
}
