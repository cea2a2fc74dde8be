//! Pulling, from a registry of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use minik8s_runtime::containerd::Containerd;
use minik8s_runtime::runtime::RegistryAuth;
use minik8s_runtime::{ImageStore, RuntimeError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::daemon::Daemon;
use crate::image::{Blobs, blobs};

/// `user:secret`, as a browser would send it.
const CREDENTIALS: &str = "Basic dXNlcjpzZWNyZXQ=";

/// Serves one image as `open/busybox:1` to everyone, and as `closed/busybox:1` to who knows the password.
async fn registry() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let Blobs { manifest, others } = blobs();
    let mut paths = BTreeMap::new();
    for name in ["open", "closed"] {
        let digest = crate::image::sha(&manifest);
        for tag in ["1", digest.as_str()] {
            paths.insert(format!("/v2/{name}/busybox/manifests/{tag}"), manifest.clone());
        }
        for blob in &others {
            paths.insert(format!("/v2/{name}/busybox/blobs/{}", crate::image::sha(blob)), blob.clone());
        }
    }
    let paths = Arc::new(paths);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(BufReader::new(stream), paths.clone()));
        }
    });
    address
}

async fn serve(mut stream: BufReader<tokio::net::TcpStream>, paths: Arc<BTreeMap<String, Vec<u8>>>) {
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let path = path.split('?').next().unwrap();
        let allowed = !path.contains("/closed/") || request.contains(CREDENTIALS);
        let (status, body): (&str, &[u8]) = match paths.get(path) {
            _ if !allowed => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", b""),
            Some(body) => ("200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json", body),
            None => ("404 Not Found", b""),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if method == "HEAD" { &[] } else { body };
        if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(body).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn images_come_from_a_registry() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let registry = registry().await;
    let containerd = Containerd::connect(daemon.socket(), daemon.config("k8s.io")).await.unwrap();
    let open = format!("{registry}/open/busybox:1");
    assert_eq!(containerd.find(&open).await.unwrap(), None);
    let pulled = containerd.pull(&open, None).await.unwrap();
    assert_eq!(pulled.reference, open);
    assert_eq!(containerd.find(&open).await.unwrap(), Some(pulled.clone()));
    // The plugin gives it further names, which are not for people.
    assert_eq!(containerd.list().await.unwrap(), [pulled]);
    containerd.remove(&open).await.unwrap();
    assert_eq!(containerd.list().await.unwrap(), []);

    let closed = format!("{registry}/closed/busybox:1");
    let refused = containerd.pull(&closed, None).await.unwrap_err().to_string();
    assert!(refused.starts_with(&format!("failed to pull image \"{closed}\": unauthorized: ")), "{refused}");
    let auth = RegistryAuth { username: "user".into(), password: "secret".into() };
    assert_eq!(containerd.pull(&closed, Some(&auth)).await.unwrap().reference, closed);

    let missing = containerd.pull(&format!("{registry}/open/none:1"), None).await.unwrap_err().to_string();
    assert!(missing.contains("\": not found: "), "{missing}");
    let invalid = containerd.pull("Not/A Name", None).await.unwrap_err();
    assert!(matches!(invalid, RuntimeError::InvalidImageName(_)));
    containerd.remove(&closed).await.unwrap();
}
