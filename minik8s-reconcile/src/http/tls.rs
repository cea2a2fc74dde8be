//! TLS for the server's listeners, and for its calls of nodes' agents.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::pki::{Credentials, PkiError};

/// How a server that shows `credentials` speaks TLS, to clients that may show certificates of the authorities
/// `clients`. HTTP/2 and HTTP/1.1 are offered.
///
/// # Errors
/// The credentials or the authority are malformed.
pub fn server_config(
    credentials: &Credentials,
    clients: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ServerConfig>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(clients)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(malformed)?;
    let (chain, key) = credentials.der()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(malformed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(malformed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// How a client that shows `credentials` speaks TLS, to servers with certificates of the authorities `servers`.
///
/// # Errors
/// The credentials or the authority are malformed.
pub fn client_config(
    credentials: &Credentials,
    servers: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, PkiError> {
    let (chain, key) = credentials.der()?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(malformed)?
        .with_root_certificates(roots(servers)?)
        .with_client_auth_cert(chain, key)
        .map_err(malformed)?;
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
