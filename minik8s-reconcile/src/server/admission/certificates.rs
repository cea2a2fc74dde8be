//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: approving and signing are rights of their
//! own, by signer
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization>).

use async_trait::async_trait;

use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;
use crate::server::certificate;
use crate::server::part::Part;

pub(super) struct Certificates;

#[async_trait]
impl Admission for Certificates {
    fn name(&self) -> &'static str {
        "Certificates"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        matches!(request.verb(), Verb::Create | Verb::Update) && certificate::is_request(request.kind())
    }

    async fn validate(&self, request: &Request<'_>, _: &mut Notes) -> Result<(), ApiError> {
        let Some(new) = request.object() else { return Ok(()) };
        let subresource = Some(request.subresource()).filter(|s| !s.is_empty());
        let part = Part::of(request.kind(), subresource)?;
        let old = request.old().map(|old| (part, old));
        request.server.admit_certificate(request.scope, old, new).await
    }
}
