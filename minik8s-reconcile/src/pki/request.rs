//! Requests for certificates: what somebody who has a key would like to be called
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>).

use std::fmt;
use std::net::IpAddr;

use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::PkiError;
use crate::request::User;

/// A request for a certificate, signed with the key that it is about.
pub struct CertificateRequest {
    pub(super) params: CertificateSigningRequestParams,
    pub(super) subject: Vec<u8>,
    holder: User,
}

impl CertificateRequest {
    /// Reads a request in PEM.
    ///
    /// # Errors
    /// It is none, its signature is not that of its key, or it asks for what no certificate here has.
    pub fn parse(pem: &[u8]) -> Result<Self, PkiError> {
        let malformed =
            |what: &dyn fmt::Display| PkiError::Malformed(format!("no certificate request: {what}"));
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|e| malformed(&e))?;
        let params = CertificateSigningRequestParams::from_der(&der).map_err(|e| malformed(&e))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| malformed(&e))?;
        let subject = &parsed.certification_request_info.subject;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().map(ToOwned::to_owned).map_err(|e| malformed(&e))
        };
        let name = subject.iter_common_name().next().map(text).transpose()?.unwrap_or_default();
        let groups = subject.iter_organization().map(text).collect::<Result<Vec<_>, _>>()?;
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        Ok(Self { subject: subject.as_raw().to_vec(), holder: User::named(&name, &groups), params })
    }

    /// The user that the certificate would name, and the user's groups.
    pub fn holder(&self) -> &User {
        &self.holder
    }

    /// The host names under which it would serve.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.params.params.subject_alt_names.iter().filter_map(|san| match san {
            SanType::DnsName(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The addresses under which it would serve.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.params.params.subject_alt_names.iter().filter_map(|san| match san {
            SanType::IpAddress(address) => Some(*address),
            _ => None,
        })
    }

    /// Whether it asks for another kind of name than hosts' and addresses.
    pub fn has_other_names(&self) -> bool {
        let known = |san: &SanType| matches!(san, SanType::DnsName(_) | SanType::IpAddress(_));
        !self.params.params.subject_alt_names.iter().all(known)
    }

    /// Whether it wants to sign certificates of others.
    pub fn is_for_authority(&self) -> bool {
        matches!(self.params.params.is_ca, IsCa::Ca(_))
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateRequest({})", self.holder.name)
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// `digital signature`
    DigitalSignature,
    /// `key encipherment`
    KeyEncipherment,
    /// `client auth`
    ClientAuth,
    /// `server auth`
    ServerAuth,
}

impl Usage {
    /// The usage as a CertificateSigningRequest calls it; `None` for those that no certificate here has.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "digital signature" => Self::DigitalSignature,
            "key encipherment" => Self::KeyEncipherment,
            "client auth" => Self::ClientAuth,
            "server auth" => Self::ServerAuth,
            _ => return None,
        })
    }

    pub(super) fn key(self) -> Option<KeyUsagePurpose> {
        match self {
            Self::DigitalSignature => Some(KeyUsagePurpose::DigitalSignature),
            Self::KeyEncipherment => Some(KeyUsagePurpose::KeyEncipherment),
            Self::ClientAuth | Self::ServerAuth => None,
        }
    }

    pub(super) fn extended(self) -> Option<ExtendedKeyUsagePurpose> {
        match self {
            Self::ClientAuth => Some(ExtendedKeyUsagePurpose::ClientAuth),
            Self::ServerAuth => Some(ExtendedKeyUsagePurpose::ServerAuth),
            Self::DigitalSignature | Self::KeyEncipherment => None,
        }
    }
}
