//! A webhook on this machine, for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::pki::{Authority, Subject};

type Answer = Arc<dyn Fn(&Value) -> Option<Value> + Send + Sync>;

/// A webhook on this machine.
pub(in crate::server) struct Hook {
    pub(in crate::server) address: SocketAddr,
    pub(in crate::server) ca: String,
    asked: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Hook {
    /// Serves a webhook that answers reviews so; `None` for no answer at all.
    pub(in crate::server) async fn serve(
        answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        let (authority, _) = Authority::generate(crate::clock::Clock::system().now()).expect("an authority");
        let subject = Subject::server("hook", ["127.0.0.1", "hook.default.svc"]);
        let credentials =
            authority.issue(&subject, crate::clock::Clock::system().now()).expect("a certificate");
        let identity = crate::http::tls::Identity::new(&credentials).expect("an identity");
        let config = crate::http::tls::server_config(identity, [authority.der().clone()]).expect("TLS");
        let mut config = (*config).clone();
        config.alpn_protocols.clear();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let (answer, count): (Answer, _) = (Arc::new(answer), asked.clone());
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = stopped.cancelled() => return,
                    stream = listener.accept() => stream.expect("accept").0,
                };
                let (acceptor, answer, count) = (acceptor.clone(), answer.clone(), count.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| respond(request, answer.clone(), count.clone()));
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let ca = BASE64_STANDARD.encode(authority.certificate());
        Self { address, ca, asked, _stop: stop.drop_guard() }
    }

    /// How it is configured.
    pub(in crate::server) fn client(&self) -> Value {
        json!({ "url": format!("https://{}/admit?x=1", self.address), "caBundle": self.ca })
    }

    /// How often it has been asked.
    pub(in crate::server) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn respond(
    request: Request<hyper::body::Incoming>,
    answer: Answer,
    count: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    assert_eq!(request.uri().path(), "/admit");
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    count.fetch_add(1, Ordering::SeqCst);
    let Some(mut response) = answer(&review["request"]) else {
        return std::future::pending().await;
    };
    response["uid"] = review["request"]["uid"].clone();
    let (version, kind) = (&review["apiVersion"], &review["kind"]);
    let review = json!({ "apiVersion": version, "kind": kind, "response": response });
    Ok(Response::new(Full::new(review.to_string().into())))
}
