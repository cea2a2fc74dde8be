//! Forgets requests that nobody needs any more, after the times that Kubernetes leaves them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use minik8s_api::{Kind, Registry};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{condition, is_issued};
use crate::cache::Caches;
use crate::controller::Controller;
use crate::pki::Validity;
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;
use crate::request::DeleteParams;

/// How long a request is kept after it was decided upon.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// How long a request waits for a decision or its signer.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// The controller, to be given to a [`crate::Manager`].
///
/// # Panics
/// The registry has no certificate signing requests.
pub fn controller(registry: &Registry) -> Controller<impl Reconciler> {
    let kind = registry.of::<CertificateSigningRequest>().expect("a kind of the server").clone();
    Controller::new("certificate-cleaner", Planned(Cleaning { kind }))
}

pub(super) struct Cleaning {
    pub(super) kind: Arc<Kind>,
}

/// When the request may go.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let made = request.metadata.creation_timestamp.as_ref()?.0;
    let since = |type_: &str| {
        condition(request, type_).map(|c| c.last_update_time.as_ref().map_or(made, |time| time.0))
    };
    let decided = match is_issued(request) {
        true => since("Approved"),
        false => since("Denied").or_else(|| since("Failed")),
    };
    let expired = || {
        let certificate = request.status.as_ref()?.certificate.as_ref()?;
        let der = CertificateDer::from_pem_slice(&certificate.0).ok()?;
        Some(Validity::of(&der)?.until)
    };
    let end = match decided {
        Some(decided) => decided.saturating_add(DECIDED),
        None => made.saturating_add(PENDING),
    };
    [end.ok(), expired()].into_iter().flatten().min()
}

impl Planner for Cleaning {
    type Object = CertificateSigningRequest;
    type World = ();

    fn observe(&self, _: &CertificateSigningRequest, _: &Caches) {}

    fn plan(&self, request: &CertificateSigningRequest, (): &(), now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(end) = end(request) else { return plan };
        match end.duration_since(now).try_into() {
            Ok(left) if now < end => plan.requeue = Some(left),
            _ => {
                let params = DeleteParams { uid: request.metadata.uid.clone(), ..DeleteParams::default() };
                let name = request.metadata.name.clone().unwrap_or_default();
                plan.changes.push(Change::Delete(self.kind.clone(), String::new(), name, params));
            }
        }
        plan
    }
}
