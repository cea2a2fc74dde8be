//! The small groups that concern the cluster itself: admission, custom resources, certificates, leases, scheduling,
//! nodes and the newer events.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::conversion;
use crate::crd::definition;
use crate::default::cluster as default;
use crate::kind::Kind;
use crate::table::cluster as table;
use crate::validate::{admission, certificate, cluster as validate};

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<ValidatingWebhookConfiguration>()
            .defaults(default::validating)
            .validate(admission::validating)
            .table(table::webhook_columns(), table::validating)
            .categories(&["api-extensions"])
            .generation(true)
            .schema()
            .build(),
        Kind::of::<MutatingWebhookConfiguration>()
            .defaults(default::mutating)
            .validate(admission::mutating)
            .table(table::webhook_columns(), table::mutating)
            .categories(&["api-extensions"])
            .generation(true)
            .schema()
            .build(),
        Kind::of::<ValidatingAdmissionPolicy>()
            .defaults(default::policy)
            .validate(admission::policy)
            .table(table::policy_columns(), table::policy)
            .categories(&["api-extensions"])
            .status()
            .prepare_for_create(|p| p.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<ValidatingAdmissionPolicyBinding>()
            .defaults(default::policy_binding)
            .validate(admission::policy_binding)
            .table(table::policy_binding_columns(), table::policy_binding)
            .categories(&["api-extensions"])
            .generation(true)
            .schema()
            .build(),
        Kind::of::<CustomResourceDefinition>()
            .defaults(default::custom_resource)
            .validate(definition::validate)
            .validate_update(definition::validate_update)
            .table(table::crd_columns(), table::crd)
            .short_names(&["crd", "crds"])
            .categories(&["api-extensions"])
            .status()
            .prepare_for_create(default::prepare_custom_resource)
            .schema()
            .build(),
        Kind::of::<CertificateSigningRequest>()
            .validate(certificate::validate)
            .validate_update(certificate::validate_update)
            .table(table::csr_columns(), table::csr)
            .short_names(&["csr"])
            .status()
            .generation(false)
            .subresources(&["approval"])
            .prepare_for_create(|c| c.status = Some(Default::default()))
            .selectable("spec.signerName", |c| c.spec.signer_name.clone())
            .schema()
            .build(),
        Kind::of::<Lease>()
            .validate(validate::lease)
            .table(table::lease_columns(), table::lease)
            .schema()
            .build(),
        Kind::of::<PriorityClass>()
            .defaults(default::priority_class)
            .validate(validate::priority_class)
            .validate_update(validate::priority_class_update)
            .table(table::priority_columns(), table::priority)
            .short_names(&["pc"])
            .generation(true)
            .schema()
            .build(),
        Kind::of::<RuntimeClass>()
            .validate(validate::runtime_class)
            .validate_update(validate::runtime_class_update)
            .table(table::runtime_columns(), table::runtime)
            .schema()
            .build(),
        event(),
    ]
}

/// The same objects as the core group's events, under their newer names.
fn event() -> Kind {
    type Reference = k8s_openapi::api::core::v1::ObjectReference;
    fn regarding(event: &Event, field: fn(&Reference) -> &Option<String>) -> String {
        event.regarding.as_ref().and_then(|r| field(r).clone()).unwrap_or_default()
    }
    Kind::of::<Event>()
        .table(crate::table::event::columns(), crate::table::event::new_row)
        .short_names(&["ev"])
        .selectable("regarding.kind", |e| regarding(e, |o| &o.kind))
        .selectable("regarding.namespace", |e| regarding(e, |o| &o.namespace))
        .selectable("regarding.name", |e| regarding(e, |o| &o.name))
        .selectable("regarding.uid", |e| regarding(e, |o| &o.uid))
        .selectable("reason", |e| e.reason.clone().unwrap_or_default())
        .selectable("reportingController", |e| e.reporting_controller.clone().unwrap_or_default())
        .selectable("type", |e| e.type_.clone().unwrap_or_default())
        .stored_as(conversion::to_core, conversion::from_core)
        .schema()
        .build()
}
