//! TLS for the server's listeners, and for its calls of nodes' agents.

use std::fmt;
use std::sync::{Arc, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use crate::pki::{Credentials, PkiError, Validity};

/// The certificate that a program shows, and its key. It can be replaced while the program runs: connections that are
/// made afterwards show the new one.
pub struct Identity(RwLock<Shown>);

struct Shown {
    key: Arc<CertifiedKey>,
    valid: Validity,
}

impl Identity {
    /// Shows `credentials`.
    ///
    /// # Errors
    /// They are malformed, or the key is that of another certificate.
    pub fn new(credentials: &Credentials) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(Self(RwLock::new(Shown::read(credentials)?))))
    }

    /// Shows `credentials` from now on.
    ///
    /// # Errors
    /// They are malformed: what was shown goes on being shown.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), PkiError> {
        let shown = Shown::read(credentials)?;
        *self.0.write().expect("no writer panics") = shown;
        Ok(())
    }

    /// When the certificate that is shown now is valid.
    pub fn validity(&self) -> Validity {
        self.0.read().expect("no writer panics").valid
    }

    fn key(&self) -> Arc<CertifiedKey> {
        self.0.read().expect("no writer panics").key.clone()
    }
}

impl Shown {
    fn read(credentials: &Credentials) -> Result<Self, PkiError> {
        let (chain, key) = credentials.der()?;
        let valid = chain.first().and_then(Validity::of).ok_or_else(|| malformed("no certificate"))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(malformed)?;
        Ok(Self { key: Arc::new(key), valid })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.validity())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// How a server that shows `identity` speaks TLS, to clients that may show certificates of the authorities
/// `clients`. HTTP/2 and HTTP/1.1 are offered.
///
/// # Errors
/// The authority is malformed.
pub fn server_config(
    identity: Arc<Identity>,
    clients: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ServerConfig>, PkiError> {
    let provider = Arc::new(provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(clients)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(malformed)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(malformed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// How a client that shows `identity` speaks TLS, to servers with certificates of the authorities `servers`.
///
/// # Errors
/// The authority is malformed.
pub fn client_config(
    identity: Arc<Identity>,
    servers: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, PkiError> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(malformed)?
        .with_root_certificates(roots(servers)?)
        .with_client_cert_resolver(identity);
    Ok(Arc::new(config))
}

fn roots(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(malformed)?;
    }
    Ok(roots)
}

fn malformed(error: impl std::fmt::Display) -> PkiError {
    PkiError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests;
