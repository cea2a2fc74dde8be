//! Approves what nodes ask for themselves: a certificate to join with or to go on with, if the asker has the right to,
//! and one to serve with under the node's own name and addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;

use super::{add_condition, condition};
use crate::controller::Controller;
use crate::cx::Cx;
use crate::error::ApiError;
use crate::key::Key;
use crate::pki::{CertificateRequest, NODES, Signer, node_of};
use crate::reconciler::{Action, Reconciler, Result, reconcile_fn};
use crate::request::{ApiRequest, Operation, Payload, WriteParams};
use crate::server::node::LEASES;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

/// The controller, to be given to a [`crate::Manager`].
pub fn controller() -> Controller<impl Reconciler> {
    // A node that asks for a serving certificate may not have said yet where it is.
    Controller::new("certificate-approver", reconcile_fn(approve)).maps_with(
        |node: &Node, requests: &crate::cache::Cache<CertificateSigningRequest>| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let own = |request: &Arc<CertificateSigningRequest>| {
                request.spec.username.as_deref().and_then(|u| u.strip_prefix(crate::pki::NODE)) == Some(name)
            };
            requests.list().iter().filter(|r| own(r)).map(|r| Key::of(&**r)).collect()
        },
    )
}

/// What there is to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether the asker has the right to `create` this subresource of requests; if so, and if no node of that name is
    /// at work, a certificate is due.
    May { subresource: &'static str, joins: Option<String> },
    /// Whether the node has that name and these addresses.
    Serves { node: String, names: Vec<String>, addresses: Vec<IpAddr> },
}

/// What is to be decided about a request; nothing, if that is left to somebody else.
pub(super) fn question(request: &CertificateSigningRequest) -> Option<Question> {
    if condition(request, "Approved").or(condition(request, "Denied")).is_some() {
        return None;
    }
    let spec = &request.spec;
    let signer = Signer::find(&spec.signer_name)?;
    let wanted = CertificateRequest::parse(&spec.request.0).ok()?;
    signer.check(&wanted, spec.usages.as_deref().unwrap_or_default()).ok()?;
    let node = node_of(&wanted)?.to_owned();
    let asker = spec.username.as_deref().unwrap_or_default();
    let own = asker == &*wanted.holder().name && spec.groups.iter().flatten().any(|g| g == NODES);
    match signer {
        Signer::NodeClient if own => Some(Question::May { subresource: "selfnodeclient", joins: None }),
        Signer::NodeClient => Some(Question::May { subresource: "nodeclient", joins: Some(node) }),
        Signer::NodeServing if own => Some(Question::Serves {
            node,
            names: wanted.names().map(ToOwned::to_owned).collect(),
            addresses: wanted.addresses().collect(),
        }),
        Signer::NodeServing | Signer::Client => None,
    }
}

/// Whether all the names and addresses are the node's own.
pub(super) fn is_own(node: &Node, names: &[String], addresses: &[IpAddr]) -> bool {
    let known = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    let known: Vec<&str> = known.map(|a| a.address.as_str()).collect();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    // Others are told apart by their names: a node cannot say that it has another's.
    names.iter().all(|n| n == name)
        && addresses.iter().all(|address| known.iter().any(|k| k.parse() == Ok(*address)))
}

/// Whether the lease is one that is being renewed.
pub(super) fn is_held(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let (Some(renewed), Some(seconds)) = (&spec.renew_time, spec.lease_duration_seconds) else {
        return false;
    };
    now.duration_since(renewed.0) < SignedDuration::from_secs(seconds.into())
}

async fn approve(request: Arc<CertificateSigningRequest>, cx: Cx) -> Result<Action> {
    let (type_, reason, message) = match question(&request) {
        None => return Ok(Action::Done),
        Some(Question::Serves { node, names, addresses }) => {
            match cx.cache::<Node>().get(&Key::new("", &node)) {
                Some(node) if is_own(&node, &names, &addresses) => (
                    "Approved",
                    "AutoApproved",
                    "the node serves under its own name and addresses".to_owned(),
                ),
                // It may yet say so.
                _ => return Ok(Action::Done),
            }
        }
        Some(Question::May { subresource, joins }) => {
            if !may(&cx, &request, subresource).await? {
                return Ok(Action::Done);
            }
            match joins {
                Some(node) if is_at_work(&cx, &node).await? => {
                    let message = format!(
                        "a node called {node} is at work: give the new one another name, or stop the old one first"
                    );
                    ("Denied", "NodeExists", message)
                }
                _ => {
                    let who = request.spec.username.as_deref().unwrap_or_default();
                    ("Approved", "AutoApproved", format!("{who} may have a node's certificate"))
                }
            }
        }
    };
    let mut decided = (*request).clone();
    add_condition(&mut decided, type_, reason, message);
    let kind =
        cx.client().registry().of::<CertificateSigningRequest>().expect("a kind of the server").clone();
    let operation = Operation::Update(Payload::Typed(Box::new(decided)), WriteParams::default());
    let call = ApiRequest {
        name: request.metadata.name.clone(),
        subresource: Some("approval".to_owned()),
        ..cx.client().request(kind, None, operation)
    };
    match cx.client().call(call).await {
        Err(error) if error.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Action::Done),
    }
}

/// Whether whoever asked has the right to ask for that.
async fn may(
    cx: &Cx,
    request: &CertificateSigningRequest,
    subresource: &str,
) -> std::result::Result<bool, ApiError> {
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone().map(|extra| extra.into_iter().collect::<BTreeMap<_, _>>()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some(RESOURCE.to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: Some("create".to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = cx.client().all::<SubjectAccessReview>().create(&review).await?;
    Ok(answer.status.as_ref().is_some_and(|s| s.allowed))
}

/// Whether a node of that name has been heard of lately.
async fn is_at_work(cx: &Cx, node: &str) -> std::result::Result<bool, ApiError> {
    let lease = cx.client().namespaced::<Lease>(LEASES).get_opt(node).await?;
    let known = cx.cache::<Node>().get(&Key::new("", node)).is_some();
    Ok(known && lease.is_some_and(|lease| is_held(&lease, cx.now())))
}
