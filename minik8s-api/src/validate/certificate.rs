//! Certificate signing requests.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::IMMUTABLE;
use crate::field::{FieldErrors, FieldPath};

/// What is wrong with a CertificateSigningRequest.
pub fn validate(csr: &CertificateSigningRequest) -> FieldErrors {
    const HEAD: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let spec = &csr.spec;
    if !spec.request.0.windows(HEAD.len()).any(|w| w == HEAD) {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        errors.invalid(path.child("request"), String::from_utf8_lossy(&spec.request.0), detail);
    }
    if spec.usages.as_ref().is_none_or(Vec::is_empty) {
        errors.required(path.child("usages"), "");
    }
    match spec.signer_name.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {}
        _ if spec.signer_name.is_empty() => errors.required(path.child("signerName"), ""),
        _ => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.invalid(path.child("signerName"), &spec.signer_name, detail);
        }
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|&s| s < 600) {
        errors.invalid(
            path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    let status = csr.status.as_ref();
    let has = |type_: &str| {
        status.into_iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == type_)
    };
    if has("Approved") && has("Denied") {
        let path = FieldPath::new("status").child("conditions");
        errors.invalid(path, "Denied", "Approved and Denied conditions are mutually exclusive");
    }
    errors
}

/// What is wrong with a change of a CertificateSigningRequest: what was asked for stays.
pub fn validate_update(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new.spec != old.spec {
        errors.invalid(FieldPath::new("spec"), &new.spec, IMMUTABLE);
    }
    errors
}
