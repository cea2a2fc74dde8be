use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Identity, client_config, roots, server_config};
use crate::ApiServer;
use crate::http::{Frontend, Listener, serve};
use crate::pki::{Authority, Subject};
use crate::storage::memory::MemoryStorage;

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

struct World {
    authority: Authority,
    address: SocketAddr,
    _stop: DropGuard,
}

impl World {
    async fn new() -> Self {
        let (authority, _) = Authority::generate(now()).expect("an authority");
        let own = authority.issue(&Subject::server("server", ["127.0.0.1"]), now()).expect("a certificate");
        let tls = server_config(Identity::new(&own).expect("an identity"), [authority.der().clone()])
            .expect("a configuration");
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a socket").tls(tls);
        let address = listener.local_addr().expect("an address");
        let server = ApiServer::new(MemoryStorage::new());
        server.bootstrap().await.expect("namespaces");
        let stop = CancellationToken::new();
        tokio::spawn(serve(Frontend::new(server), vec![listener], stop.clone()));
        Self { authority, address, _stop: stop.drop_guard() }
    }

    fn client(&self, by: &Authority) -> Arc<ClientConfig> {
        let credentials = by.issue(&Subject::client("jane").group("people"), now()).expect("a certificate");
        client_config(Identity::new(&credentials).expect("an identity"), [self.authority.der().clone()])
            .expect("a configuration")
    }

    fn anonymous(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots([self.authority.der().clone()]).expect("roots"))
            .with_no_client_auth();
        Arc::new(config)
    }

    async fn get(
        &self,
        tls: Arc<ClientConfig>,
        path: &str,
    ) -> Result<StatusCode, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = "127.0.0.1".try_into()?;
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path).header("host", "test").body(Empty::<Bytes>::new())?;
        let status = sender.send_request(request).await?.status();
        driver.abort();
        Ok(status)
    }
}

#[tokio::test]
async fn a_certificate_of_the_clusters_authority_opens_the_door() {
    let world = World::new().await;
    let status = world.get(world.client(&world.authority), "/api/v1/namespaces").await.expect("an answer");
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn who_shows_nothing_learns_the_version_and_no_more() {
    let world = World::new().await;
    let status = world.get(world.anonymous(), "/api/v1/namespaces").await.expect("an answer");
    assert_eq!(status, StatusCode::FORBIDDEN);
    for path in ["/version", "/healthz", "/livez", "/readyz"] {
        assert_eq!(world.get(world.anonymous(), path).await.expect("an answer"), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_foreign_certificate_gets_no_connection() {
    let world = World::new().await;
    let (foreign, _) = Authority::generate(now()).expect("an authority");
    world.get(world.client(&foreign), "/version").await.expect_err("not ours");
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs() {
    let (authority, _) = Authority::generate(now()).expect("an authority");
    let issue =
        |host: &str| authority.issue(&Subject::server("server", [host]), now()).expect("a certificate");
    let identity = Identity::new(&issue("one.example")).expect("an identity");
    let server = server_config(identity.clone(), [authority.der().clone()]).expect("a configuration");
    let credentials = authority.issue(&Subject::client("jane"), now()).expect("a certificate");
    let client = Identity::new(&credentials).expect("an identity");
    let client = client_config(client, [authority.der().clone()]).expect("a configuration");
    let greet = async |host: &'static str| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connector = tokio_rustls::TlsConnector::from(client.clone());
        let acceptor = tokio_rustls::TlsAcceptor::from(server.clone());
        let name = host.try_into().expect("a name");
        let (asked, _) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        asked.is_ok()
    };
    assert!(greet("one.example").await && !greet("two.example").await);
    identity.replace(&issue("two.example")).expect("a certificate");
    assert!(greet("two.example").await && !greet("one.example").await);
    let mixed = crate::pki::Credentials { key: issue("three.example").key, ..issue("three.example") };
    assert!(identity.replace(&mixed).is_err(), "another certificate's key");
    assert!(greet("two.example").await);
}

#[tokio::test]
async fn nobody_is_let_in_after_the_end_of_their_certificate() {
    let world = World::new().await;
    let year = jiff::SignedDuration::from_hours(366 * 24);
    let old = world.authority.issue(&Subject::client("jane"), now() - year).expect("a certificate");
    let old = client_config(Identity::new(&old).expect("an identity"), [world.authority.der().clone()]);
    world.get(old.expect("a configuration"), "/version").await.expect_err("it has expired");

    // And who was let in before is shown out.
    let (key, request) = crate::pki::ask("jane", "people", &[]).expect("a request");
    let request = crate::pki::CertificateRequest::parse(request.as_bytes()).expect("a request");
    let usages = [crate::pki::Usage::ClientAuth, crate::pki::Usage::DigitalSignature];
    let moment = jiff::SignedDuration::from_secs(5);
    let certificate = world.authority.sign(&request, &usages, Some(moment), now()).expect("a certificate");
    let short = crate::pki::Credentials { certificate, key };
    let short = client_config(Identity::new(&short).expect("an identity"), [world.authority.der().clone()]);
    let stream = TcpStream::connect(world.address).await.expect("a connection");
    let connector = tokio_rustls::TlsConnector::from(short.expect("a configuration"));
    let stream = connector.connect("127.0.0.1".try_into().expect("a name"), stream).await.expect("TLS");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let watch = Request::get("/api/v1/namespaces?watch=1").header("host", "test");
    let response = sender.send_request(watch.body(Empty::<Bytes>::new()).expect("a request")).await;
    let mut body = response.expect("an answer").into_body();
    while let Some(Ok(_)) = http_body_util::BodyExt::frame(&mut body).await {}
}
