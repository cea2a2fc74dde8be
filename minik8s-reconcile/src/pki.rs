//! The cluster's own certificate authority, and what certificates say of their holders.
//!
//! A certificate names a user in its common name and the user's groups in its organisations, as in
//! [Kubernetes](https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates).

mod signing;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::request::User;

pub use signing::SigningKey;

/// How long an authority's own certificate lasts: ten years.
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long the certificates last that it issues: one year.
const LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Certificates are valid from a little before they are made: clocks differ.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file of the authority cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Only one of the authority's two files is there.
    #[error("{} is missing beside {}: restore it from a backup, or remove both to begin with a new authority, \
             which no present kubeconfig trusts", missing.display(), present.display())]
    Incomplete {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// What should be a certificate or a key is none.
    #[error("{0}")]
    Malformed(String),
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A certificate with its private key, both as PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its PKCS #8 private key.
    pub key: String,
}

impl Credentials {
    /// The parts as TLS wants them.
    ///
    /// # Errors
    /// One of them is no PEM.
    pub(crate) fn der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let malformed = |e: rustls::pki_types::pem::Error| PkiError::Malformed(e.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(malformed)?;
        Ok((chain.map_err(malformed)?, key))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub struct Subject {
    name: String,
    groups: Vec<String>,
    client: bool,
    hosts: Vec<String>,
}

impl Subject {
    /// The user `name`, who shows the certificate as a client.
    pub fn client(name: impl Into<String>) -> Self {
        Self { name: name.into(), groups: Vec::new(), client: true, hosts: Vec::new() }
    }

    /// A server that is reached under these names and addresses.
    pub fn server(name: impl Into<String>, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { client: false, ..Self::client(name) }.hosts(hosts)
    }

    /// One more group that the user is in.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// Names and addresses under which the holder serves, too.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts.extend(hosts.into_iter().map(Into::into));
        self
    }
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    der: CertificateDer<'static>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub fn generate(now: Timestamp) -> Result<(Self, Credentials), PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "minik8s");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        lasting(&mut params, now, AUTHORITY_LIFETIME)?;
        let certificate = params.self_signed(&key)?;
        let (der, certificate) = (certificate.der().clone(), certificate.pem());
        let credentials = Credentials { certificate: certificate.clone(), key: key.serialize_pem() };
        Ok((Self { issuer: Issuer::new(params, key), certificate, der }, credentials))
    }

    /// The authority with this certificate and key.
    ///
    /// # Errors
    /// They are none.
    pub fn from_credentials(credentials: &Credentials) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&credentials.key)?;
        let issuer = Issuer::from_ca_cert_pem(&credentials.certificate, key)?;
        let der = CertificateDer::from_pem_slice(credentials.certificate.as_bytes())
            .map_err(|e| PkiError::Malformed(e.to_string()))?;
        Ok(Self { issuer, certificate: credentials.certificate.clone(), der })
    }

    /// The authority whose `ca.crt` and `ca.key` are in `dir`. It is made where there is none; of several processes
    /// that do so at once, one wins and all get the same.
    ///
    /// # Errors
    /// The files cannot be read or written, or do not hold an authority.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| PkiError::File { path, error }
        };
        fs::create_dir_all(dir).map_err(at(dir))?;
        let lock = fs::File::create(dir.join(".lock")).map_err(at(dir))?;
        lock.lock().map_err(at(dir))?;
        match (certificate.exists(), key.exists()) {
            (true, true) => {
                let read = |path: &Path| fs::read_to_string(path).map_err(at(path));
                let credentials = Credentials { certificate: read(&certificate)?, key: read(&key)? };
                let malformed = |e: PkiError| {
                    PkiError::Malformed(format!("{}: no certificate authority: {e}", dir.display()))
                };
                Self::from_credentials(&credentials).map_err(malformed)
            }
            (false, false) => {
                let (authority, credentials) = Self::generate(now)?;
                // The key first: a certificate without a key says that something was lost, not that something
                // was never finished.
                write_private(&key, &credentials.key).map_err(at(&key))?;
                write_private(&certificate, &credentials.certificate).map_err(at(&certificate))?;
                Ok(authority)
            }
            (true, false) => Err(PkiError::Incomplete { present: certificate, missing: key }),
            (false, true) => Err(PkiError::Incomplete { present: key, missing: certificate }),
        }
    }

    /// The authority's certificate, as PEM: what clients trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's certificate in its binary form.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Issues a certificate, valid for a year from `now`.
    ///
    /// # Errors
    /// A host is neither a name nor an address.
    pub fn issue(&self, subject: &Subject, now: Timestamp) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.name.as_str());
        for group in &subject.groups {
            params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if subject.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if !subject.hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for host in &subject.hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        params.use_authority_key_identifier_extension = true;
        lasting(&mut params, now, LIFETIME)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credentials { certificate, key: key.serialize_pem() })
    }
}

fn lasting(params: &mut CertificateParams, now: Timestamp, lifetime: SignedDuration) -> Result<(), PkiError> {
    let time = |at: Timestamp| {
        time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|e| {
            PkiError::Malformed(format!("the clock says {now}, which no certificate can hold: {e}"))
        })
    };
    params.not_before = time(now - SKEW)?;
    params.not_after = time(now + lifetime)?;
    Ok(())
}

/// Writes a file that only its owner may read: whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// Whom a certificate names: its common name, and its organisations as groups. `None` if it names nobody.
pub fn holder(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|n| !n.is_empty())?;
    let groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(ToOwned::to_owned).collect();
    Some(User::authenticated(name, groups))
}

#[cfg(test)]
mod tests;
