//! The cluster's own certificate authority.

use std::fmt;
use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{
    CertificateRequest, Credentials, PkiError, Subject, Usage, Validity, fingerprint, names, pem, subject,
    write_private,
};

/// How long an authority's own certificate lasts: ten years.
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long the certificates last that it issues: one year.
const LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Certificates are valid from a little before they are made: clocks differ.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    der: CertificateDer<'static>,
    valid: Validity,
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
        let credentials = Credentials { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok((Self::from_credentials(&credentials)?, credentials))
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
        let valid = Validity::of(&der).ok_or_else(|| PkiError::Malformed("no certificate".to_owned()))?;
        Ok(Self { issuer, certificate: credentials.certificate.clone(), der, valid })
    }

    /// Whether the key is that of the certificate.
    fn is_whole(&self) -> bool {
        let parsed = x509_parser::parse_x509_certificate(&self.der);
        parsed.is_ok_and(|(_, certificate)| {
            *certificate.public_key().subject_public_key.data == *self.issuer.key().public_key_raw()
        })
    }

    /// The authority whose `ca.crt` and `ca.key` are in `dir`. It is made where there is none; of several processes
    /// that do so at once, one wins and all get the same.
    ///
    /// # Errors
    /// The files cannot be read or written, do not hold an authority, or hold one that is not valid at `now`.
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
                let authority = Self::from_credentials(&credentials).map_err(malformed)?;
                if !authority.is_whole() {
                    return Err(PkiError::Mismatch { certificate, key });
                }
                let Validity { from, until } = authority.valid;
                if now < from || now >= until {
                    return Err(PkiError::Untimely { path: certificate, from, until, now });
                }
                Ok(authority)
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

    /// When its own certificate is valid.
    pub fn validity(&self) -> Validity {
        self.valid
    }

    /// The SHA-256 of its public key, as `sha256:HEX`: what tells it from others, and what those who join are given to
    /// know it by.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.der).unwrap_or_default()
    }

    /// Issues a certificate, valid for a year from `now`.
    ///
    /// # Errors
    /// A host is neither a name nor an address.
    pub fn issue(&self, subject: &Subject, now: Timestamp) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = names(&subject.hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if subject.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if !subject.hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let encoded = subject::encode(&subject.name, &subject.groups);
        let certificate = self.certify(params, &key, &encoded, LIFETIME, now)?;
        Ok(Credentials { certificate, key: key.serialize_pem() })
    }

    /// Signs what is asked for: a certificate, as PEM, for `usages`, that lasts `lifetime` from `now`, or a year if that is
    /// shorter. Whether it is to be signed is for the caller to say: see [`Signer::check`].
    ///
    /// # Errors
    /// The machine has no randomness.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[Usage],
        lifetime: Option<SignedDuration>,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names.clone_from(&request.params.params.subject_alt_names);
        params.key_usages = usages.iter().filter_map(|u| u.key()).collect();
        params.extended_key_usages = usages.iter().filter_map(|u| u.extended()).collect();
        let lifetime = lifetime.unwrap_or(LIFETIME).min(LIFETIME);
        self.certify(params, &request.params.public_key, &request.subject, lifetime, now)
    }

    fn certify(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        subject: &[u8],
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        params.use_authority_key_identifier_extension = true;
        // Nothing outlives the authority.
        let left = self.valid.until.duration_since(now).max(SignedDuration::ZERO);
        lasting(&mut params, now, lifetime.min(left))?;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(pem(&subject::put(certificate.der(), subject, self.issuer.key())?))
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
