//! Roles, classes, webhooks and custom resources.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingWebhookConfiguration, RuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition,
};

use super::set;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills in the groups of a RoleBinding.
pub fn role_binding(binding: &mut RoleBinding) {
    groups(&mut binding.role_ref, binding.subjects.as_deref_mut().unwrap_or_default());
}

/// Fills in the groups of a ClusterRoleBinding.
pub fn cluster_role_binding(binding: &mut ClusterRoleBinding) {
    groups(&mut binding.role_ref, binding.subjects.as_deref_mut().unwrap_or_default());
}

fn groups(role: &mut RoleRef, subjects: &mut [Subject]) {
    set(&mut role.api_group, RBAC);
    for subject in subjects.iter_mut().filter(|s| s.kind == "User" || s.kind == "Group") {
        set(&mut subject.api_group, RBAC);
    }
}

/// Fills in a PriorityClass.
pub fn priority_class(class: &mut PriorityClass) {
    set(&mut class.preemption_policy, "PreemptLowerPriority");
    class.value.get_or_insert(0);
}

/// Fills in the names of a CustomResourceDefinition.
pub fn custom_resource(crd: &mut CustomResourceDefinition) {
    let names = &mut crd.spec.names;
    set(&mut names.singular, &names.kind.to_lowercase());
    set(&mut names.list_kind, &format!("{}List", names.kind));
    crd.spec
        .conversion
        .get_or_insert_with(|| CustomResourceConversion { strategy: "None".to_owned(), webhook: None });
}

/// Readies a new CustomResourceDefinition: its storage version is the first one that is stored.
pub fn prepare_custom_resource(crd: &mut CustomResourceDefinition) {
    let storage = crd.spec.versions.iter().filter(|v| v.storage).map(|v| v.name.clone()).collect();
    let status = crd.status.insert(Default::default());
    status.stored_versions = Some(storage);
}

/// Fills in webhooks that check.
pub fn validating(object: &mut ValidatingWebhookConfiguration) {
    for hook in object.webhooks.iter_mut().flatten() {
        set(&mut hook.failure_policy, "Fail");
        set(&mut hook.match_policy, "Equivalent");
        hook.timeout_seconds.get_or_insert(10);
        hook.namespace_selector.get_or_insert_default();
        hook.object_selector.get_or_insert_default();
        rules(hook.rules.as_deref_mut().unwrap_or_default());
        client(&mut hook.client_config);
    }
}

/// Fills in webhooks that change.
pub fn mutating(object: &mut MutatingWebhookConfiguration) {
    for hook in object.webhooks.iter_mut().flatten() {
        set(&mut hook.failure_policy, "Fail");
        set(&mut hook.match_policy, "Equivalent");
        set(&mut hook.reinvocation_policy, "Never");
        hook.timeout_seconds.get_or_insert(10);
        hook.namespace_selector.get_or_insert_default();
        hook.object_selector.get_or_insert_default();
        rules(hook.rules.as_deref_mut().unwrap_or_default());
        client(&mut hook.client_config);
    }
}

/// Fills in a policy.
pub fn policy(policy: &mut ValidatingAdmissionPolicy) {
    let Some(spec) = &mut policy.spec else { return };
    set(&mut spec.failure_policy, "Fail");
    if let Some(constraints) = &mut spec.match_constraints {
        resources(constraints);
    }
}

/// Fills in a binding of a policy.
pub fn policy_binding(binding: &mut ValidatingAdmissionPolicyBinding) {
    if let Some(matched) = &mut binding.spec.match_resources {
        resources(matched);
    }
}

fn resources(matched: &mut MatchResources) {
    set(&mut matched.match_policy, "Equivalent");
    matched.namespace_selector.get_or_insert_default();
    matched.object_selector.get_or_insert_default();
    let rules = matched.resource_rules.iter_mut().chain(&mut matched.exclude_resource_rules).flatten();
    rules.for_each(|rule| set(&mut rule.scope, "*"));
}

fn rules(rules: &mut [RuleWithOperations]) {
    rules.iter_mut().for_each(|rule| set(&mut rule.scope, "*"));
}

fn client(config: &mut WebhookClientConfig) {
    if let Some(service) = &mut config.service {
        service.port.get_or_insert(443);
    }
}
