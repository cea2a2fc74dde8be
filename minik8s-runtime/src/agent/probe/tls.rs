//! TLS towards a container that is probed. As with Kubernetes, its certificate proves nothing and is not looked at: the
//! question is whether the container answers, not who it is.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Speaks TLS on the connection.
pub(super) async fn connect(host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(CONFIG.get_or_init(config).clone()).connect(name, stream).await
}

fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let verifier = Arc::new(Whoever(provider));
    let config =
        versions.expect("the provider speaks them").dangerous().with_custom_certificate_verifier(verifier);
    Arc::new(config.with_no_client_auth())
}

/// Takes every certificate, of any version, and hence every signature by one.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A certificate that nobody vouches for, for another name, long expired; and its key. Good for this test only.
    const CERTIFICATE: &str = "MIIBbjCCAROgAwIBAgIUYfPKh/EqI8z2TXSQ0kWwMMRYZoowCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBdDAeFw0yNj\
        ExMjMwMDUwMDdaFw0yNjExMjQwMDUwMDdaMAwxCjAIBgNVBAMMAXQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASp\
        nyZNooEEWR/uqUSColch7kNFAnhElvtf/cEHBQRhqS7m31V/5UwSTnr0mfkgaPKwTxybXXWEeEPMWWLE63Gko1MwUT\
        AdBgNVHQ4EFgQUx+qtAcLy/Pzqt0TDI0V3EnmUGlAwHwYDVR0jBBgwFoAUx+qtAcLy/Pzqt0TDI0V3EnmUGlAwDwYD\
        VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEA9sdp8KX18AKVCqdKZYZh/knSG591H1A6Fvagmjuhr+ICIQ\
        DaiA1OFiqv7qgSfg+TDpTTYet6ZmhoIkffHmWG+H8YrA==";
    const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgdKyQENIhEWXI6/eqvCU4MZ5iIBDNlp2q06gi//vEeM\
        GhRANCAASpnyZNooEEWR/uqUSColch7kNFAnhElvtf/cEHBQRhqS7m31V/5UwSTnr0mfkgaPKwTxybXXWEeEPMWWLE\
        63Gk";

    #[tokio::test]
    async fn a_certificate_that_proves_nothing_is_good_enough() {
        let key = PrivatePkcs8KeyDer::from(STANDARD.decode(KEY).unwrap());
        let certificate = CertificateDer::from(STANDARD.decode(CERTIFICATE).unwrap());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            let mut seen = [0; 13];
            stream.read_exact(&mut seen).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            seen
        });
        let action = serde_json::json!({"port": port, "path": "/health", "scheme": "HTTPS"});
        let action = serde_json::from_value(action).unwrap();
        assert_eq!(super::super::http::get("127.0.0.1", port, &action).await, Ok(()));
        assert_eq!(&server.await.unwrap(), b"GET /health H");
    }

    #[tokio::test]
    async fn what_does_not_speak_tls_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            listener.accept().await.unwrap().0.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        });
        let action = serde_json::from_value(serde_json::json!({"port": port, "scheme": "HTTPS"})).unwrap();
        let words = super::super::http::get("127.0.0.1", port, &action).await.unwrap_err();
        assert!(words.starts_with(&format!("Get \"https://127.0.0.1:{port}\": ")), "{words}");
        server.await.unwrap();
    }
}
