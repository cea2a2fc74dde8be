//! Disruption budgets, leases, classes, certificates, admission and custom resources.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{NONE, UNSET, age, columns, created, name, row, text};
use crate::kind::{Cell, Column, human_duration};

pub(crate) fn budget_columns() -> Vec<Column> {
    columns![
        "Min Available" "How many pods must stay.",
        "Max Unavailable" "How many pods may go.",
        "Allowed Disruptions" "How many pods may go now.": int,
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn budget(budget: &PodDisruptionBudget, now: Timestamp) -> Vec<Cell> {
    let spec = budget.spec.as_ref();
    let value = |v: Option<&IntOrString>| match v {
        Some(IntOrString::Int(n)) => n.to_string(),
        Some(IntOrString::String(s)) => s.clone(),
        None => "N/A".to_owned(),
    };
    row![
        name(&budget.metadata),
        value(spec.and_then(|s| s.min_available.as_ref())),
        value(spec.and_then(|s| s.max_unavailable.as_ref())),
        budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0),
        age(&budget.metadata, now),
    ]
}

pub(crate) fn lease_columns() -> Vec<Column> {
    columns!["Holder" "Who holds it.", "Age" "How long ago the object was created."]
}

pub(crate) fn lease(lease: &Lease, now: Timestamp) -> Vec<Cell> {
    let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
    row![name(&lease.metadata), holder, age(&lease.metadata, now)]
}

pub(crate) fn priority_columns() -> Vec<Column> {
    columns![
        "Value" "The priority of its pods.": int,
        "Global-Default" "Whether it is for pods that do not say.",
        "Age" "How long ago the object was created.",
        "PreemptionPolicy" "Whether its pods may push out others.",
    ]
}

pub(crate) fn priority(class: &PriorityClass, now: Timestamp) -> Vec<Cell> {
    row![
        name(&class.metadata),
        class.value.unwrap_or(0),
        class.global_default.unwrap_or(false),
        age(&class.metadata, now),
        text(class.preemption_policy.as_deref(), "PreemptLowerPriority"),
    ]
}

pub(crate) fn runtime_columns() -> Vec<Column> {
    columns!["Handler" "What runs its pods.", "Age" "How long ago the object was created."]
}

pub(crate) fn runtime(class: &RuntimeClass, now: Timestamp) -> Vec<Cell> {
    row![name(&class.metadata), class.handler.clone(), age(&class.metadata, now)]
}

pub(crate) fn csr_columns() -> Vec<Column> {
    columns![
        "Age" "How long ago the object was created.",
        "SignerName" "Who is asked to sign.",
        "Requestor" "Who asks.",
        "RequestedDuration" "For how long.",
        "Condition" "What became of it.",
    ]
}

pub(crate) fn csr(csr: &CertificateSigningRequest, now: Timestamp) -> Vec<Cell> {
    let status = csr.status.as_ref();
    let has = |type_: &str| {
        status.into_iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == type_)
    };
    let mut words = match (has("Approved"), has("Denied")) {
        (_, true) => vec!["Denied"],
        (true, false) => vec!["Approved"],
        (false, false) => vec!["Pending"],
    };
    if has("Failed") {
        words.push("Failed");
    }
    if status.and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty()) {
        words.push("Issued");
    }
    let duration = csr.spec.expiration_seconds.map(|s| human_duration(s.into()));
    row![
        name(&csr.metadata),
        age(&csr.metadata, now),
        text(Some(&csr.spec.signer_name), NONE),
        csr.spec.username.clone().unwrap_or_default(),
        text(duration.as_deref(), NONE),
        words.join(","),
    ]
}

pub(crate) fn crd_columns() -> Vec<Column> {
    columns!["Created At" "When the object was created."]
}

pub(crate) fn crd(crd: &CustomResourceDefinition, _: Timestamp) -> Vec<Cell> {
    row![name(&crd.metadata), created(&crd.metadata)]
}

pub(crate) fn webhook_columns() -> Vec<Column> {
    columns!["Webhooks" "How many webhooks it has.": int, "Age" "How long ago the object was created."]
}

pub(crate) fn validating(object: &ValidatingWebhookConfiguration, now: Timestamp) -> Vec<Cell> {
    let webhooks = object.webhooks.iter().flatten().count();
    row![name(&object.metadata), webhooks, age(&object.metadata, now)]
}

pub(crate) fn mutating(object: &MutatingWebhookConfiguration, now: Timestamp) -> Vec<Cell> {
    let webhooks = object.webhooks.iter().flatten().count();
    row![name(&object.metadata), webhooks, age(&object.metadata, now)]
}

pub(crate) fn policy_columns() -> Vec<Column> {
    columns![
        "Validations" "How many checks it makes.": int,
        "ParamKind" "The kind of its parameters.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn policy(policy: &ValidatingAdmissionPolicy, now: Timestamp) -> Vec<Cell> {
    let spec = policy.spec.as_ref();
    let kind = spec.and_then(|s| s.param_kind.as_ref()).map(|k| {
        let part = |p: &Option<String>| p.clone().unwrap_or_default();
        format!("{}/{}", part(&k.api_version), part(&k.kind))
    });
    row![
        name(&policy.metadata),
        spec.map_or(0, |s| s.validations.iter().flatten().count()),
        text(kind.as_deref(), UNSET),
        age(&policy.metadata, now),
    ]
}

pub(crate) fn policy_binding_columns() -> Vec<Column> {
    columns![
        "PolicyName" "The policy it puts in force.",
        "ParamRef" "The parameters of the policy.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn policy_binding(binding: &ValidatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Cell> {
    let parameters = binding.spec.param_ref.as_ref().map(|p| match (&p.name, &p.namespace) {
        (Some(name), Some(namespace)) => format!("{namespace}/{name}"),
        (Some(name), None) => format!("*/{name}"),
        (None, _) => super::selector(p.selector.as_ref()),
    });
    row![
        name(&binding.metadata),
        binding.spec.policy_name.clone(),
        text(parameters.as_deref(), UNSET),
        age(&binding.metadata, now),
    ]
}
