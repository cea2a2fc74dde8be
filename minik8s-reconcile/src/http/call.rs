//! Calls of webhooks, over HTTPS.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::call::Target;

/// The most bytes of an answer.
const ANSWER_LIMIT: usize = 3 * 1024 * 1024;
/// Bytes of an error's text that are passed on.
const ERROR_LIMIT: usize = 1024;
/// Where machines keep the authorities that they know.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Sends `body`, which is JSON, and gives back the answer.
///
/// # Errors
/// There is no answer, or it is an error; the words say why.
pub(crate) async fn post(target: &Target, body: Bytes) -> Result<Bytes, String> {
    let config = config(target.authorities.as_deref())?;
    let name = target.host.clone().try_into().map_err(|_| format!("{:?} is no host", target.host))?;
    let stream = connect(&target.addresses).await?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // Ends with the connection, which ends when the answer has been read and its sender is dropped.
    let connection = tokio::spawn(connection);
    let request = Request::post(&target.path)
        .header(header::HOST, host(target))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("minik8s/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|e| e.to_string())?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|e| format!("its answer cannot be read: {e}"))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_LIMIT)]).trim().to_owned();
        Err(format!("it answers {status}: {text}"))
    };
    let answer = asked.await;
    connection.abort();
    answer
}

fn host(target: &Target) -> String {
    let authority = target.url.strip_prefix("https://").unwrap_or(&target.url);
    authority.split('/').next().unwrap_or(&target.host).to_owned()
}

/// A connection to the first that takes one.
async fn connect(addresses: &[String]) -> Result<TcpStream, String> {
    let mut last = "there is no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|e| e.to_string())?;
                return Ok(stream);
            }
            Err(error) => last = format!("dial tcp {address}: {error}"),
        }
    }
    Err(last)
}

/// How to speak TLS to servers of these authorities.
fn config(authorities: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let roots = match authorities {
        Some(pem) => roots(pem)?,
        None => {
            static SYSTEM: LazyLock<Result<RootCertStore, String>> = LazyLock::new(|| {
                let found = SYSTEM_AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
                let pem = found.ok_or(
                    "its clientConfig has no caBundle, and this machine has no list of authorities of its own",
                )?;
                roots(&pem)
            });
            SYSTEM.clone()?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("its caBundle is no PEM: {e}"))?;
        // One that nobody can use is no reason not to use the others.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() { Err("its caBundle holds no certificate".to_owned()) } else { Ok(roots) }
}
