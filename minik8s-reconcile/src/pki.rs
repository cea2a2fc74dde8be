//! The cluster's own certificate authority, and what certificates say of their holders.
//!
//! A certificate names a user in its common name and the user's groups in its organisations, as in
//! [Kubernetes](https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates).

mod authority;
mod request;
mod signer;
mod signing;
mod subject;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use x509_parser::extensions::GeneralName;

use crate::request::User;

pub use authority::Authority;
pub use request::{CertificateRequest, Usage};
pub use signer::{NODE, NODES, Signer, node_of};
pub use signing::SigningKey;

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
    /// The authority's key is that of another certificate.
    #[error("{} is not the key of the certificate in {}: restore both from one backup", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The authority's certificate is not valid at this time.
    #[error("the certificate in {} is valid from {from} to {until}, and this machine's clock says {now}: {}",
            path.display(),
            if now < from { "set the clock" }
            else { "set the clock if it is wrong; else the cluster needs a new authority: move its folder away, \
                    start the server, and let nodes and users join anew" })]
    Untimely {
        /// The certificate's file.
        path: PathBuf,
        /// When it begins.
        from: Timestamp,
        /// When it ends.
        until: Timestamp,
        /// Now, as far as this machine knows.
        now: Timestamp,
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

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub from: Timestamp,
    /// Until then.
    pub until: Timestamp,
}

impl Validity {
    /// When the certificate is valid; `None` if it is none.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Some(Self { from: at(parsed.validity().not_before)?, until: at(parsed.validity().not_after)? })
    }

    /// When it is time for the next certificate: when two thirds of this one's life are over.
    pub fn renewal(&self) -> Timestamp {
        let third = self.until.duration_since(self.from) / 3;
        self.until.saturating_sub(third).unwrap_or(self.until)
    }
}

/// A key, and the request for a certificate of it, both as PEM: for `name` in `groups`, reached under `hosts`.
///
/// # Errors
/// A host is neither a name nor an address, or the machine has no randomness.
pub fn ask(name: &str, group: &str, hosts: &[String]) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = names(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok((key.serialize_pem(), params.serialize_request(&key)?.pem()?))
}

/// The SHA-256 of a certificate's public key, as `sha256:HEX`; `None` if it is no certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, parsed.public_key().raw);
    Some(digest.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// A certificate's text form.
pub fn pem(der: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// Whether a server may show the certificate, to those who reach it under any of these names and addresses.
pub fn serves(certificate: &CertificateDer<'_>, hosts: &[String]) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let usage = parsed.extended_key_usage().ok().flatten();
    let names = parsed.subject_alternative_name().ok().flatten();
    let has = |host: &String| {
        let mut names = names.iter().flat_map(|n| &n.value.general_names);
        names.any(|name| match (name, host.parse::<IpAddr>()) {
            (GeneralName::DNSName(name), Err(_)) => *name == host,
            (GeneralName::IPAddress(bytes), Ok(IpAddr::V4(address))) => *bytes == address.octets(),
            (GeneralName::IPAddress(bytes), Ok(IpAddr::V6(address))) => *bytes == address.octets(),
            _ => false,
        })
    };
    usage.is_some_and(|u| u.value.server_auth) && hosts.iter().all(has)
}

/// `length` characters of `alphabet`, as nobody can guess them; `None` if the machine has no randomness.
///
/// # Panics
/// The alphabet is empty, or has more than 256 characters.
pub fn random(length: usize, alphabet: &[u8]) -> Option<String> {
    assert!((1..=256).contains(&alphabet.len()), "an alphabet of {} characters", alphabet.len());
    let random = SystemRandom::new();
    // Bytes beyond the last whole multiple would make some characters likelier than others.
    let fair = 256 - 256 % alphabet.len();
    let mut text = String::new();
    let mut bytes = [0; 64];
    while text.len() < length {
        random.fill(&mut bytes).ok()?;
        let fit = bytes.iter().map(|&b| usize::from(b)).filter(|&b| b < fair);
        text.extend(fit.take(length - text.len()).map(|b| char::from(alphabet[b % alphabet.len()])));
    }
    Some(text)
}

fn names(hosts: &[String]) -> Result<Vec<SanType>, PkiError> {
    let name = |host: &String| match host.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(host.as_str().try_into()?)),
    };
    hosts.iter().map(name).collect()
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
