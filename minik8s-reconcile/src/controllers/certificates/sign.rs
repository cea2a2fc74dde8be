//! Signs approved requests of Kubernetes' own signers.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use minik8s_api::{Kind, Registry};

use super::{add_condition, condition, is_issued};
use crate::cache::Caches;
use crate::controller::Controller;
use crate::pki::{Authority, CertificateRequest, Signer};
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;

/// The controller, to be given to a [`crate::Manager`]: `authority` signs.
///
/// # Panics
/// The registry has no certificate signing requests.
pub fn controller(registry: &Registry, authority: Arc<Authority>) -> Controller<impl Reconciler> {
    let kind = registry.of::<CertificateSigningRequest>().expect("a kind of the server").clone();
    Controller::new("certificate-signer", Planned(Signing { kind, authority }))
}

pub(super) struct Signing {
    pub(super) kind: Arc<Kind>,
    pub(super) authority: Arc<Authority>,
}

impl Signing {
    /// The certificate, or why there is none.
    fn certificate(
        &self,
        signer: Signer,
        request: &CertificateSigningRequest,
        now: Timestamp,
    ) -> Result<String, String> {
        let spec = &request.spec;
        let wanted = CertificateRequest::parse(&spec.request.0).map_err(|e| e.to_string())?;
        let usages = signer.check(&wanted, spec.usages.as_deref().unwrap_or_default())?;
        let lifetime = spec.expiration_seconds.map(|s| SignedDuration::from_secs(s.into()));
        self.authority.sign(&wanted, &usages, lifetime, now).map_err(|e| e.to_string())
    }
}

impl Planner for Signing {
    type Object = CertificateSigningRequest;
    type World = ();

    fn observe(&self, _: &CertificateSigningRequest, _: &Caches) {}

    fn plan(&self, request: &CertificateSigningRequest, (): &(), now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let due = condition(request, "Approved").is_some()
            && condition(request, "Denied").or(condition(request, "Failed")).is_none()
            && !is_issued(request);
        let Some(signer) = Signer::find(&request.spec.signer_name).filter(|_| due) else { return plan };
        let mut signed = request.clone();
        match self.certificate(signer, request, now) {
            Ok(certificate) => {
                signed.status.get_or_insert_default().certificate =
                    Some(ByteString(certificate.into_bytes()));
            }
            Err(why) => add_condition(&mut signed, "Failed", "SignerValidationFailure", why),
        }
        plan.changes.push(Change::UpdateStatus(Box::new(signed), self.kind.clone()));
        plan
    }
}
