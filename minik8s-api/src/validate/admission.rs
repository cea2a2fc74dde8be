//! Policies and webhooks.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration, WebhookClientConfig,
};

use super::{one_of, required};
use crate::field::{FieldErrors, FieldPath};
use crate::name;

/// The most match conditions of a webhook or policy.
const CONDITIONS_MAX: usize = 64;

/// What is wrong with webhooks that check.
pub fn validating(object: &ValidatingWebhookConfiguration) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, w) in object.webhooks.iter().flatten().enumerate() {
        let path = FieldPath::new("webhooks").index(i);
        webhook(&mut errors, &path, &w.name, &w.client_config, &w.side_effects, w.timeout_seconds);
        let versions = &w.admission_review_versions;
        policies(&mut errors, &path, versions, w.failure_policy.as_deref(), w.match_policy.as_deref());
        conditions(&mut errors, &path, w.match_conditions.as_ref());
    }
    errors
}

/// What is wrong with webhooks that change.
pub fn mutating(object: &MutatingWebhookConfiguration) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, w) in object.webhooks.iter().flatten().enumerate() {
        let path = FieldPath::new("webhooks").index(i);
        webhook(&mut errors, &path, &w.name, &w.client_config, &w.side_effects, w.timeout_seconds);
        let versions = &w.admission_review_versions;
        policies(&mut errors, &path, versions, w.failure_policy.as_deref(), w.match_policy.as_deref());
        conditions(&mut errors, &path, w.match_conditions.as_ref());
        let again = w.reinvocation_policy.as_deref();
        one_of(&mut errors, path.child("reinvocationPolicy"), again, &["IfNeeded", "Never"]);
    }
    errors
}

fn webhook(
    errors: &mut FieldErrors,
    path: &FieldPath,
    own: &str,
    client: &WebhookClientConfig,
    side_effects: &str,
    timeout_s: Option<i32>,
) {
    let labels = own.split('.').count();
    let mut wrong = name::dns_subdomain(own);
    if wrong.is_empty() && labels < 3 {
        wrong.push("should be a domain with at least three segments separated by dots".to_owned());
    }
    errors.invalid_each(&path.child("name"), own, wrong);
    let config = path.child("clientConfig");
    match (client.url.as_deref(), &client.service) {
        (Some(url), None) => {
            if !url.starts_with("https://") {
                errors.invalid(config.child("url"), url, "'https' is the only allowed URL scheme");
            }
        }
        (None, Some(service)) => {
            required(errors, config.child("service").child("name"), Some(&service.name));
            required(errors, config.child("service").child("namespace"), Some(&service.namespace));
        }
        _ => errors.required(config, "exactly one of url or service is required"),
    }
    // What has effects cannot be asked in a dry run; since version 1 it has to say that it has none then.
    one_of(errors, path.child("sideEffects"), Some(side_effects), &["None", "NoneOnDryRun"]);
    if let Some(seconds) = timeout_s.filter(|s| !(1..=30).contains(s)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(path.child("timeoutSeconds"), seconds, detail);
    }
}

fn policies(
    errors: &mut FieldErrors,
    path: &FieldPath,
    versions: &[String],
    failure: Option<&str>,
    matching: Option<&str>,
) {
    let of_versions = path.child("admissionReviewVersions");
    if versions.is_empty() {
        errors.required(of_versions, "must specify one of v1, v1beta1");
    } else if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
        errors.invalid(of_versions, versions, "must include at least one of v1, v1beta1");
    }
    one_of(errors, path.child("failurePolicy"), failure, &["Fail", "Ignore"]);
    one_of(errors, path.child("matchPolicy"), matching, &["Equivalent", "Exact"]);
}

fn conditions(errors: &mut FieldErrors, path: &FieldPath, conditions: Option<&Vec<MatchCondition>>) {
    let path = path.child("matchConditions");
    let mut seen = std::collections::BTreeSet::new();
    for (i, condition) in conditions.into_iter().flatten().enumerate() {
        if i == CONDITIONS_MAX {
            errors.too_many(path.clone(), conditions.map_or(0, Vec::len), CONDITIONS_MAX);
        }
        let path = path.index(i);
        if required(errors, path.child("name"), Some(&condition.name)).is_some() {
            errors.invalid_each(&path.child("name"), &condition.name, name::qualified(&condition.name));
            if !seen.insert(&condition.name) {
                errors.duplicate(path.child("name"), &condition.name);
            }
        }
        expression(errors, path.child("expression"), &condition.expression);
    }
}

#[cfg(feature = "cel")]
fn expression(errors: &mut FieldErrors, path: FieldPath, text: &str) {
    if required(errors, path.clone(), Some(text.trim())).is_some()
        && let Err(why) = crate::crd::Expression::compile(text, crate::crd::VARIABLES)
    {
        errors.invalid(path, text, format!("compilation failed: {why}"));
    }
}

#[cfg(not(feature = "cel"))]
fn expression(errors: &mut FieldErrors, path: FieldPath, text: &str) {
    errors.invalid(path, text, "this server was built without support for expressions");
}

/// What is wrong with a policy.
pub fn policy(policy: &ValidatingAdmissionPolicy) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &policy.spec else {
        errors.required(path, "");
        return errors;
    };
    one_of(&mut errors, path.child("failurePolicy"), spec.failure_policy.as_deref(), &["Fail", "Ignore"]);
    let constraints = path.child("matchConstraints");
    let rules = spec.match_constraints.as_ref().and_then(|m| m.resource_rules.as_ref());
    if spec.match_constraints.is_none() {
        errors.required(constraints, "");
    } else if rules.is_none_or(Vec::is_empty) {
        errors.required(constraints.child("resourceRules"), "");
    }
    if let Some(kind) = &spec.param_kind {
        let path = path.child("paramKind");
        required(&mut errors, path.child("apiVersion"), kind.api_version.as_deref());
        required(&mut errors, path.child("kind"), kind.kind.as_deref());
    }
    conditions(&mut errors, &path, spec.match_conditions.as_ref());
    let mut seen = std::collections::BTreeSet::new();
    for (i, variable) in spec.variables.iter().flatten().enumerate() {
        let path = path.child("variables").index(i);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let own = &variable.name;
        if required(&mut errors, path.child("name"), Some(own)).is_some() {
            if !own.chars().all(plain) || own.starts_with(|c: char| c.is_ascii_digit()) {
                errors.invalid(path.child("name"), own, "name is not a valid CEL identifier");
            }
            if !seen.insert(own) {
                errors.duplicate(path.child("name"), own);
            }
        }
        expression(&mut errors, path.child("expression"), &variable.expression);
    }
    let (validations, annotations) =
        (spec.validations.iter().flatten(), spec.audit_annotations.iter().flatten());
    if validations.clone().next().is_none() && annotations.clone().next().is_none() {
        let detail = "validations or auditAnnotations must be provided";
        errors.required(path.child("validations"), detail);
    }
    for (i, validation) in validations.enumerate() {
        let path = path.child("validations").index(i);
        expression(&mut errors, path.child("expression"), &validation.expression);
        if let Some(text) = validation.message_expression.as_deref().filter(|t| !t.is_empty()) {
            expression(&mut errors, path.child("messageExpression"), text);
        }
        if validation.message.as_deref().is_some_and(|m| m.contains('\n')) {
            errors.invalid(
                path.child("message"),
                &validation.message,
                "message must not contain line breaks",
            );
        }
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        if let Some(reason) = validation.reason.as_deref().filter(|r| !r.is_empty()) {
            one_of(&mut errors, path.child("reason"), Some(reason), &reasons);
        }
    }
    for (i, annotation) in annotations.enumerate() {
        let path = path.child("auditAnnotations").index(i);
        required(&mut errors, path.child("key"), Some(&annotation.key));
        expression(&mut errors, path.child("valueExpression"), &annotation.value_expression);
    }
    errors
}

/// What is wrong with a binding of a policy.
pub fn policy_binding(binding: &ValidatingAdmissionPolicyBinding) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &binding.spec);
    required(&mut errors, path.child("policyName"), Some(&spec.policy_name));
    let actions = path.child("validationActions");
    if spec.validation_actions.is_empty() {
        errors.required(actions.clone(), "at least one validation action is required");
    }
    for (i, action) in spec.validation_actions.iter().enumerate() {
        one_of(&mut errors, actions.index(i), Some(action), &["Audit", "Deny", "Warn"]);
        if spec.validation_actions[..i].contains(action) {
            errors.duplicate(actions.index(i), action);
        }
    }
    let has = |action: &str| spec.validation_actions.iter().any(|a| a == action);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        errors.invalid(actions, &spec.validation_actions, detail);
    }
    if let Some(reference) = &spec.param_ref {
        let path = path.child("paramRef");
        let named = reference.name.as_deref().is_some_and(|n| !n.is_empty());
        if named == reference.selector.is_some() {
            errors.required(path.child("name"), "one of name or selector must be specified");
        }
        let action = reference.parameter_not_found_action.as_deref();
        one_of(&mut errors, path.child("parameterNotFoundAction"), action, &["Allow", "Deny"]);
    }
    errors
}

#[cfg(all(test, feature = "cel"))]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn webhooks_say_what_they_are() {
        let read = |change: Value| {
            let good = json!({ "name": "a.example.dev", "clientConfig": { "url": "https://a.example/" },
                "sideEffects": "None", "admissionReviewVersions": ["v1"] });
            let hook = crate::patch::merge::apply(&good, &change);
            let mut object: ValidatingWebhookConfiguration =
                serde_json::from_value(json!({ "webhooks": [hook] })).unwrap();
            crate::default::cluster::validating(&mut object);
            validating(&object).to_string()
        };
        assert_eq!(read(json!({})), "[]");
        for (change, expected) in [
            (
                json!({ "name": "a" }),
                "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three",
            ),
            (json!({ "sideEffects": "Some" }), "webhooks[0].sideEffects: Unsupported value: \"Some\""),
            (
                json!({ "timeoutSeconds": 31 }),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value",
            ),
            (json!({ "clientConfig": { "url": "http://a" } }), "webhooks[0].clientConfig.url: Invalid value"),
            (
                json!({ "clientConfig": { "url": null } }),
                "webhooks[0].clientConfig: Required value: exactly one",
            ),
            (
                json!({ "admissionReviewVersions": ["v2"] }),
                "webhooks[0].admissionReviewVersions: Invalid value",
            ),
            (
                json!({ "matchConditions": [{ "name": "x", "expression": "nobody == 1" }] }),
                "webhooks[0].matchConditions[0].expression: Invalid value: \"nobody == 1\": compilation failed: ERROR: \
                 <input>:1:1: undeclared reference to 'nobody'",
            ),
        ] {
            let got = read(change);
            assert!(got.starts_with(expected), "{got}");
        }
    }

    #[test]
    fn policies_compile() {
        let read = |change: Value| {
            let good = json!({ "failurePolicy": "Fail", "matchConstraints": { "resourceRules": [{}] },
                "validations": [{ "expression": "object.spec.replicas < 5" }] });
            let spec = crate::patch::merge::apply(&good, &change);
            policy(&serde_json::from_value(json!({ "spec": spec })).unwrap()).to_string()
        };
        assert_eq!(read(json!({})), "[]");
        for (change, expected) in [
            (
                json!({ "validations": [] }),
                "spec.validations: Required value: validations or auditAnnotations",
            ),
            (json!({ "matchConstraints": null }), "spec.matchConstraints: Required value"),
            (
                json!({ "validations": [{ "expression": "object.spec.replicas <" }] }),
                "spec.validations[0].expression: Invalid value: \"object.spec.replicas <\": compilation failed: ",
            ),
            (
                json!({ "variables": [{ "name": "1x", "expression": "1" }] }),
                "spec.variables[0].name: Invalid value: \"1x\": name is not a valid CEL identifier",
            ),
        ] {
            let got = read(change);
            assert!(got.starts_with(expected), "{got}");
        }
        let binding = |spec: Value| {
            policy_binding(&serde_json::from_value(json!({ "spec": spec })).unwrap()).to_string()
        };
        assert_eq!(binding(json!({ "policyName": "p", "validationActions": ["Deny", "Audit"] })), "[]");
        let both = binding(json!({ "policyName": "p", "validationActions": ["Deny", "Warn"] }));
        assert!(both.contains("must not contain both Deny and Warn"), "{both}");
    }
}
