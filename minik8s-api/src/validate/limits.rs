//! Limit ranges and quotas.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{IMMUTABLE, NOT_NEGATIVE};
use crate::field::{FieldErrors, FieldPath};
use crate::name;
use crate::quantity::Quantity;

type Amounts = BTreeMap<String, ApiQuantity>;

/// What is wrong with a LimitRange.
pub fn limit_range(range: &LimitRange) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec").child("limits");
    let mut types = BTreeSet::new();
    for (i, item) in range.spec.iter().flat_map(|s| &s.limits).enumerate() {
        let path = path.index(i);
        errors.invalid_each(&path.child("type"), &item.type_, name::qualified(&item.type_));
        if !types.insert(&item.type_) {
            errors.duplicate(path.child("type"), &item.type_);
        }
        self::item(&mut errors, &path, item);
    }
    errors
}

fn item(errors: &mut FieldErrors, path: &FieldPath, item: &LimitRangeItem) {
    let mut read = |field: &str, list: &Option<Amounts>| {
        let path = path.child(field);
        let mut amounts = BTreeMap::new();
        for (resource, amount) in list.iter().flatten() {
            errors.invalid_each(&path.key(resource), resource, name::qualified(resource));
            match Quantity::try_from(amount) {
                Ok(quantity) => drop(amounts.insert(resource.clone(), quantity)),
                Err(error) => errors.invalid(path.key(resource), &amount.0, error.to_string()),
            }
        }
        amounts
    };
    let (min, max) = (read("min", &item.min), read("max", &item.max));
    let (limit, request) = (read("default", &item.default), read("defaultRequest", &item.default_request));
    let ratio = read("maxLimitRequestRatio", &item.max_limit_request_ratio);
    match item.type_.as_str() {
        "Pod" => {
            for (field, given) in [("default", &limit), ("defaultRequest", &request)] {
                if !given.is_empty() {
                    let detail = "may not be specified when `type` is 'Pod'";
                    errors.forbidden(path.child(field), detail);
                }
            }
        }
        "PersistentVolumeClaim" if !min.contains_key("storage") && !max.contains_key("storage") => {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.required(path.child("limits"), detail);
        }
        _ => {}
    }
    let mut ordered = |field: &str,
                       (small, name): (&BTreeMap<String, Quantity>, &str),
                       (large, other): (&BTreeMap<String, Quantity>, &str)| {
        for (resource, value) in small {
            if let Some(bound) = large.get(resource).filter(|bound| value > *bound) {
                let shown = if field == name_of_field(other) { bound } else { value };
                let detail = format!("{name} value {value} is greater than {other} value {bound}");
                errors.invalid(path.child(field).key(resource), shown.to_string(), detail);
            }
        }
    };
    ordered("min", (&min, "min"), (&max, "max"));
    ordered("defaultRequest", (&min, "min"), (&request, "default request"));
    ordered("defaultRequest", (&request, "default request"), (&max, "max"));
    ordered("defaultRequest", (&request, "default request"), (&limit, "default limit"));
    ordered("default", (&min, "min"), (&limit, "default"));
    ordered("default", (&limit, "default"), (&max, "max"));
    for (resource, value) in &ratio {
        let path = path.child("maxLimitRequestRatio").key(resource);
        if *value < Quantity::from_milli(1000) {
            errors.invalid(path.clone(), value.to_string(), format!("ratio {value} is less than 1"));
        }
    }
}

/// The field of that a complaint calls so.
fn name_of_field(words: &str) -> &str {
    match words {
        "default request" => "defaultRequest",
        other => other,
    }
}

/// The resources that quotas have plain names for.
const RESOURCES: [&str; 23] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
    "limits.hugepages",
    "requests.hugepages",
    "hugepages",
];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Resources that are no whole numbers.
const FRACTIONS: [&str; 3] = ["cpu", "limits.cpu", "requests.cpu"];

/// What is wrong with a ResourceQuota.
pub fn quota(quota: &ResourceQuota) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &quota.spec else { return errors };
    let hard = path.child("hard");
    for (resource, amount) in spec.hard.iter().flatten() {
        let path = hard.key(resource);
        let wrong = name::qualified(resource);
        let plain = RESOURCES.contains(&resource.as_str())
            || resource.starts_with("hugepages-")
            || resource.starts_with("requests.hugepages-");
        if wrong.is_empty() && !resource.contains('/') && !plain {
            errors.invalid(path.clone(), resource, "must be a standard resource for quota");
        }
        errors.invalid_each(&path, resource, wrong);
        match Quantity::try_from(amount) {
            Err(error) => errors.invalid(path, &amount.0, error.to_string()),
            Ok(quantity) if quantity.is_negative() => {
                errors.invalid(path, quantity.to_string(), NOT_NEGATIVE);
            }
            Ok(quantity) => {
                let whole = Quantity::new(quantity.value(), quantity.format()) == quantity;
                if !whole && !FRACTIONS.contains(&resource.as_str()) && !resource.contains("memory") {
                    errors.invalid(path, quantity.to_string(), "must be an integer");
                }
            }
        }
    }
    scopes(&mut errors, &path, spec);
    errors
}

fn scopes(errors: &mut FieldErrors, path: &FieldPath, spec: &ResourceQuotaSpec) {
    let list = path.child("scopes");
    for (i, scope) in spec.scopes.iter().flatten().enumerate() {
        if !SCOPES.contains(&scope.as_str()) {
            errors.invalid(list.index(i), scope, "unsupported scope");
        }
    }
    let has = |scope: &str| spec.scopes.iter().flatten().any(|s| s == scope);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            errors.invalid(list.clone(), &spec.scopes, "conflicting scopes");
        }
    }
    let expressions = path.child("scopeSelector").child("matchExpressions");
    let given = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    for (i, requirement) in given.enumerate() {
        let path = expressions.index(i);
        if !SCOPES.contains(&requirement.scope_name.as_str()) {
            errors.invalid(path.child("scopeName"), &requirement.scope_name, "unsupported scope");
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        let by_value = matches!(requirement.scope_name.as_str(), "PriorityClass" | "VolumeAttributesClass");
        match requirement.operator.as_str() {
            _ if !by_value && requirement.operator != "Exists" => {
                let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                              ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                              ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
                errors.invalid(path.child("operator"), &requirement.operator, detail);
            }
            "In" | "NotIn" if values.is_empty() => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(path.child("values"), detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(path.child("values"), values, detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
        }
    }
}

/// What is wrong with a change of a ResourceQuota.
pub fn quota_update(new: &ResourceQuota, old: &ResourceQuota) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let of = |q: &ResourceQuota| -> BTreeSet<String> {
        q.spec.iter().flat_map(|s| s.scopes.clone().unwrap_or_default()).collect()
    };
    if of(new) != of(old) {
        let scopes = new.spec.as_ref().and_then(|s| s.scopes.clone());
        errors.invalid(FieldPath::new("spec").child("scopes"), scopes, IMMUTABLE);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn limits_are_in_their_order() {
        let cases = [
            (json!({ "type": "Container", "min": { "cpu": "1" }, "max": { "cpu": "2" } }), "[]"),
            (
                json!({ "type": "Container", "min": { "cpu": "2" }, "max": { "cpu": "1" } }),
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                json!({ "type": "Container", "default": { "cpu": "2" }, "max": { "cpu": "1" } }),
                "spec.limits[0].default[cpu]: Invalid value: \"2\": default value 2 is greater than max value 1",
            ),
            (
                json!({ "type": "Container", "defaultRequest": { "cpu": "2" }, "default": { "cpu": "1" } }),
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than \
                 default limit value 1",
            ),
            (
                json!({ "type": "Container", "min": { "cpu": "2" }, "defaultRequest": { "cpu": "1" } }),
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request \
                 value 1",
            ),
            (
                json!({ "type": "Pod", "default": { "cpu": "2" } }),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!({ "type": "PersistentVolumeClaim" }),
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but \
                 neither was provided",
            ),
            (
                json!({ "type": "Container", "maxLimitRequestRatio": { "cpu": "500m" } }),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ),
        ];
        for (item, expected) in cases {
            let range = serde_json::from_value(json!({ "spec": { "limits": [item] } })).unwrap();
            assert_eq!(limit_range(&range).to_string(), expected);
        }
    }

    #[test]
    fn quotas_name_what_there_is() {
        let cases = [
            (
                json!({ "hard": { "pods": "1", "requests.nvidia.com/gpu": "1", "count/jobs.batch": "3",
                "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "limits.cpu": "1500m" } }),
                "[]",
            ),
            (
                json!({ "hard": { "cats": "1" } }),
                "spec.hard[cats]: Invalid value: \"cats\": must be a standard resource for quota",
            ),
            (
                json!({ "hard": { "pods": "1500m" } }),
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            ),
            (
                json!({ "scopes": ["Sometimes"] }),
                "spec.scopes[0]: Invalid value: \"Sometimes\": unsupported scope",
            ),
        ];
        for (spec, expected) in cases {
            let object: ResourceQuota = serde_json::from_value(json!({ "spec": spec })).unwrap();
            assert_eq!(quota(&object).to_string(), expected);
        }
        let conflicting: Value = json!({ "spec": { "scopes": ["BestEffort", "NotBestEffort"] } });
        let object: ResourceQuota = serde_json::from_value(conflicting).unwrap();
        assert!(quota(&object).to_string().ends_with("conflicting scopes"));
    }
}
