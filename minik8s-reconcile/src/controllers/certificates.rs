//! Certificate signing requests: those of nodes are approved, approved ones are signed, old ones are forgotten
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>).

mod approve;
mod clean;
mod sign;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

pub use approve::controller as approver;
pub use clean::controller as cleaner;
pub use sign::controller as signer;

/// The condition of that type, if it holds.
fn condition<'a>(
    request: &'a CertificateSigningRequest,
    type_: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|c| c.type_ == type_ && c.status != "False")
}

/// Whether the certificate is there.
fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

/// Adds a condition, dated by the server.
fn add_condition(request: &mut CertificateSigningRequest, type_: &str, reason: &str, message: String) {
    let condition = CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..CertificateSigningRequestCondition::default()
    };
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
}

#[cfg(test)]
mod tests;
