//! ValidatingAdmissionPolicy: rules in CEL about what is written
//! (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::{
    ParamKind, ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use minik8s_api::crd::{Answer, Bindings, Expression, VARIABLES};
use minik8s_api::{DecodeError, Kind, Selector};
use serde_json::{Value, json};

use super::conditions::{Conditions, Facts};
use super::known::Known;
use super::matching::{Match, Matcher};
use super::{Notes, Request, review};
use crate::error::ApiError;
use crate::server::key::Scope;
use crate::storage::Query;
use crate::stored::Stored;

/// Where violations are noted that are not refused.
const AUDIT: &str = "validation.policy.admission.k8s.io/validation_failure";

type Compiled = Result<Expression, String>;

/// A policy, compiled.
#[derive(Clone, Debug)]
pub(in crate::server) struct Policy {
    name: String,
    matcher: Matcher,
    conditions: Conditions,
    variables: Vec<(String, Compiled)>,
    rules: Vec<Rule>,
    annotations: Vec<(String, Compiled)>,
    params: Option<ParamKind>,
    ignores_failures: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    text: String,
    holds: Compiled,
    message: Option<String>,
    words: Option<Compiled>,
    reason: Option<String>,
}

/// A binding, ready to be used.
#[derive(Clone, Debug)]
pub(in crate::server) struct Binding {
    name: String,
    policy: String,
    matcher: Matcher,
    params: Option<ParamRef>,
    actions: Vec<String>,
}

/// The policy that is stored.
pub(super) fn policy(stored: &Stored) -> Result<Arc<Policy>, DecodeError> {
    let policy = stored.typed::<ValidatingAdmissionPolicy>()?;
    let spec = policy.spec.clone().unwrap_or_default();
    let compile = |text: &str| Expression::compile(text, VARIABLES);
    Ok(Arc::new(Policy {
        name: policy.metadata.name.clone().unwrap_or_default(),
        matcher: Matcher::of_policy(spec.match_constraints.as_ref()),
        conditions: Conditions::compile(spec.match_conditions.as_ref()),
        variables: spec
            .variables
            .iter()
            .flatten()
            .map(|v| (v.name.clone(), compile(&v.expression)))
            .collect(),
        rules: spec
            .validations
            .iter()
            .flatten()
            .map(|v| Rule {
                text: v.expression.trim().to_owned(),
                holds: compile(&v.expression),
                message: v.message.clone().map(|m| m.trim().to_owned()).filter(|m| !m.is_empty()),
                words: v.message_expression.as_deref().filter(|e| !e.is_empty()).map(compile),
                reason: v.reason.clone().filter(|r| !r.is_empty()),
            })
            .collect(),
        annotations: spec
            .audit_annotations
            .iter()
            .flatten()
            .map(|a| (a.key.clone(), compile(&a.value_expression)))
            .collect(),
        params: spec.param_kind.clone(),
        ignores_failures: spec.failure_policy.as_deref() == Some("Ignore"),
    }))
}

/// The binding that is stored.
pub(super) fn binding(stored: &Stored) -> Result<Arc<Binding>, DecodeError> {
    let binding = stored.typed::<ValidatingAdmissionPolicyBinding>()?;
    let spec = binding.spec.clone();
    Ok(Arc::new(Binding {
        name: binding.metadata.name.clone().unwrap_or_default(),
        policy: spec.policy_name,
        matcher: Matcher::of_policy(spec.match_resources.as_ref()),
        params: spec.param_ref,
        actions: spec.validation_actions,
    }))
}

/// Something that a policy is against.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    index: usize,
    message: String,
    reason: Option<String>,
}

/// What a policy does about a violation that was found for one binding.
struct Outcome<'a> {
    policy: &'a Policy,
    binding: &'a Binding,
    violation: Violation,
}

/// Judges the request by all policies.
pub(super) fn validate<'a>(
    known: &'a Known,
    request: &'a Request<'_>,
    notes: &'a mut Notes,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(judge_by_all(known, request, notes))
}

async fn judge_by_all(known: &Known, request: &Request<'_>, notes: &mut Notes) -> Result<(), ApiError> {
    let (Some(policies), Some(bindings)) = (known.policies.all(), known.policy_bindings.all()) else {
        return Ok(());
    };
    let kind = request.kind();
    // Policies do not judge policies: nobody is to lock themselves out.
    if kind.group == "admissionregistration.k8s.io" && kind.kind.contains("Policy") {
        return Ok(());
    }
    let mut audited = Vec::new();
    let mut denied = None;
    for policy in policies.values() {
        let mut bound: Vec<Arc<Binding>> = bindings.values().cloned().collect();
        bound.retain(|b| b.policy == policy.name);
        if bound.is_empty() {
            continue;
        }
        let Some(Match { kind }) = policy.matcher.rules(request) else { continue };
        if !policy.matcher.selects(request).await? {
            continue;
        }
        let mut facts = facts(request, &kind).await?;
        for binding in &bound {
            let meant = binding.matcher.has_no_rules() || binding.matcher.rules(request).is_some();
            if !meant || !binding.matcher.selects(request).await? {
                continue;
            }
            let params = match params(policy, binding, request).await {
                Ok(params) => params,
                Err(_) if policy.ignores_failures => continue,
                Err(why) => {
                    let violation = Violation { index: 0, message: why, reason: None };
                    denied.get_or_insert(refusal(request, &Outcome { policy, binding, violation }));
                    continue;
                }
            };
            for params in params {
                facts.params = params;
                for violation in judge(policy, &facts, request, notes) {
                    let outcome = Outcome { policy, binding, violation };
                    for action in &binding.actions {
                        match action.as_str() {
                            "Deny" => drop(denied.get_or_insert_with(|| refusal(request, &outcome))),
                            "Warn" => notes.warn(format!(
                                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                                policy.name, binding.name, outcome.violation.message
                            )),
                            "Audit" => audited.push(json!({
                                "message": outcome.violation.message,
                                "policy": policy.name,
                                "binding": binding.name,
                                "expressionIndex": outcome.violation.index,
                                "validationActions": binding.actions,
                            })),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    if !audited.is_empty() {
        notes.annotate(AUDIT, Value::Array(audited).to_string());
    }
    denied.map_or(Ok(()), Err)
}

async fn facts(request: &Request<'_>, kind: &Arc<Kind>) -> Result<Facts, ApiError> {
    let namespace = request.namespace_object().await?;
    Ok(Facts {
        request: review::request(request, kind),
        object: review::in_version(request, request.object(), kind).await?,
        old: review::in_version(request, request.old(), kind).await?,
        namespace: match namespace {
            Some(namespace) => serde_json::to_value(&*namespace).map_err(ApiError::internal)?,
            None => Value::Null,
        },
        params: Value::Null,
    })
}

fn refusal(request: &Request<'_>, outcome: &Outcome<'_>) -> ApiError {
    let Outcome { policy, binding, violation } = outcome;
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        policy.name, binding.name, violation.message
    );
    let (code, reason) = match violation.reason.as_deref() {
        Some("Forbidden") => (403, "Forbidden"),
        Some("Unauthorized") => (401, "Unauthorized"),
        Some("RequestEntityTooLarge") => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    request.forbidden(&message).coded(code, reason).with_cause("", message)
}

/// What a policy is against in a request, with one set of parameters.
fn judge(policy: &Policy, facts: &Facts, request: &Request<'_>, notes: &mut Notes) -> Vec<Violation> {
    let mut bindings = facts.bind(request);
    let failed = |index: usize, message: String| {
        (!policy.ignores_failures).then_some(Violation { index, message, reason: None })
    };
    match policy.conditions.hold(&mut bindings) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return failed(0, why).into_iter().collect(),
    }
    for (name, variable) in &policy.variables {
        if let Ok(expression) = variable {
            bindings.define(name, expression);
        }
    }
    let mut found = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let answer = rule.holds.clone().and_then(|expression| bindings.evaluate(&expression));
        match answer {
            Ok(Answer::Bool(true)) => {}
            Ok(Answer::Bool(false)) => {
                let message = words(rule, &mut bindings);
                found.push(Violation { index, message, reason: rule.reason.clone() });
            }
            Ok(_) => found.extend(failed(index, format!("expression '{}' must evaluate to bool", rule.text))),
            Err(why) => {
                found.extend(failed(index, format!("expression '{}' resulted in error: {why}", rule.text)));
            }
        }
    }
    for (key, value) in &policy.annotations {
        match value.clone().and_then(|expression| bindings.evaluate(&expression)) {
            Ok(Answer::Text(text)) if !text.trim().is_empty() => {
                notes.annotate(format!("{}/{key}", policy.name), text.trim());
            }
            Ok(Answer::Text(_) | Answer::Null) => {}
            Ok(_) => {
                found.extend(failed(0, format!("audit annotation {key:?} must evaluate to a string or null")))
            }
            Err(why) => found.extend(failed(0, format!("audit annotation {key:?} resulted in error: {why}"))),
        }
    }
    found
}

/// What to say about a rule that does not hold.
fn words(rule: &Rule, bindings: &mut Bindings<'_>) -> String {
    let made = rule.words.clone().and_then(Result::ok).and_then(|e| bindings.evaluate(&e).ok());
    let made = match made {
        Some(Answer::Text(text)) => {
            Some(text.trim().to_owned()).filter(|t| !t.is_empty() && !t.contains('\n'))
        }
        _ => None,
    };
    made.or_else(|| rule.message.clone()).unwrap_or_else(|| format!("failed expression: {}", rule.text))
}

/// The parameters that a binding gives its policy: each is a case of its own.
async fn params(policy: &Policy, binding: &Binding, request: &Request<'_>) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(reference)) = (&policy.params, &binding.params) else {
        return Ok(vec![Value::Null]);
    };
    let (version, name) =
        (kind.api_version.as_deref().unwrap_or_default(), kind.kind.as_deref().unwrap_or_default());
    let registry = request.server.registry();
    let found = registry.iter().find(|k| k.kind == name && k.api_version() == version);
    let Some(kind) = found.cloned() else {
        return Err(format!("failed to find resource referenced by paramKind: '{version}, Kind={name}'"));
    };
    let namespace = match (kind.namespaced, reference.namespace.clone().filter(|n| !n.is_empty())) {
        (false, None) => None,
        (false, Some(_)) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, Some(namespace)) => Some(namespace),
        (true, None) => match request.namespace() {
            Some(namespace) => Some(namespace.to_owned()),
            None => {
                let why =
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(why.to_owned());
            }
        },
    };
    let scope = Scope { kind: kind.clone(), namespace, user: request.user().clone() };
    let storage = &request.server.storage;
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut stored = Vec::new();
    if let Some(name) = reference.name.as_deref().filter(|n| !n.is_empty()) {
        let key = scope.key(name).map_err(|e| text(&e))?;
        stored.extend(storage.get(&key).await.map_err(|e| text(&e))?);
    } else if let Some(selector) = &reference.selector {
        let selector = Selector::from_label_selector(selector).map_err(|e| text(&e))?;
        let page = storage.list(&Query::prefix(scope.prefix())).await.map_err(|e| text(&e))?;
        for (_, object) in page.items {
            let labels = object.metadata().map_err(|e| text(&e))?.labels.unwrap_or_else(BTreeMap::new);
            if selector.matches(&labels) {
                stored.push(object);
            }
        }
    }
    let mut values = Vec::new();
    for object in stored {
        let served = request.server.served(&kind, &object).await.map_err(|e| text(&e))?;
        values.push(serde_json::from_slice(&served.lean()).map_err(|e| text(&e))?);
    }
    if values.is_empty() && reference.parameter_not_found_action.as_deref() != Some("Allow") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
