//! Checking definitions.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    CustomResourceSubresourceScale, JSONSchemaProps,
};
use serde_json::Value;

use super::json_path::JsonPath;
use super::names::API_APPROVED;
use super::structural;
use crate::field::{FieldErrors, FieldPath};
use crate::name;
use crate::validate::{IMMUTABLE, one_of, required};

/// The most fields that a kind's objects can be selected by.
const SELECTABLE_MAX: usize = 8;

/// What is wrong with a CustomResourceDefinition.
pub fn validate(crd: &CustomResourceDefinition) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &crd.spec);
    let own = crd.metadata.name.as_deref().unwrap_or_default();
    let expected = format!("{}.{}", spec.names.plural, spec.group);
    if own != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(FieldPath::new("metadata").child("name"), own, detail);
    }
    if required(&mut errors, path.child("group"), Some(&spec.group)).is_some() {
        errors.invalid_each(&path.child("group"), &spec.group, name::dns_subdomain(&spec.group));
        if !spec.group.contains('.') {
            errors.invalid(path.child("group"), &spec.group, "should be a domain with at least one dot");
        }
    }
    approval(&mut errors, crd);
    one_of(&mut errors, path.child("scope"), Some(&spec.scope), &["Cluster", "Namespaced"]);
    names(&mut errors, &path.child("names"), crd);
    versions(&mut errors, &path.child("versions"), crd);
    conversion(&mut errors, &path.child("conversion"), crd);
    if spec.preserve_unknown_fields == Some(true) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.invalid(path.child("preserveUnknownFields"), true, detail);
    }
    errors
}

/// Groups of the Kubernetes community need its consent.
fn approval(errors: &mut FieldErrors, crd: &CustomResourceDefinition) {
    let group = crd.spec.group.as_str();
    let protected = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return;
    }
    let path = FieldPath::new("metadata").child("annotations").key(API_APPROVED);
    let words = crd.metadata.annotations.as_ref().and_then(|a| a.get(API_APPROVED)).map(String::as_str);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match words.unwrap_or_default() {
        "" => errors.required(
            path,
            format!("protected groups must have approval annotation {API_APPROVED:?}, {see}"),
        ),
        words
            if words.starts_with("unapproved")
                || words.starts_with("https://")
                || words.starts_with("http://") => {}
        words => {
            let detail = format!(
                "protected groups must have approval annotation {API_APPROVED:?} with either a URL or a reason \
                 starting with \"unapproved\", {see}"
            );
            errors.invalid(path, words, detail);
        }
    }
}

fn names(errors: &mut FieldErrors, path: &FieldPath, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    for (field, value) in [("plural", Some(names.plural.as_str())), ("singular", names.singular.as_deref())] {
        if let Some(value) = required(errors, path.child(field), value) {
            errors.invalid_each(&path.child(field), value, name::dns_1035_label(value));
        }
    }
    for (field, value) in [("kind", Some(names.kind.as_str())), ("listKind", names.list_kind.as_deref())] {
        if let Some(value) = required(errors, path.child(field), value) {
            // CamelCase, but otherwise a label.
            let wrong = name::dns_1035_label(&value.to_lowercase());
            let wrong =
                wrong.into_iter().map(|w| format!("may have mixed case, but should otherwise match: {w}"));
            errors.invalid_each(&path.child(field), value, wrong.collect());
        }
    }
    for (field, list) in [("shortNames", &names.short_names), ("categories", &names.categories)] {
        for (i, value) in list.iter().flatten().enumerate() {
            errors.invalid_each(&path.child(field).index(i), value, name::dns_1035_label(value));
        }
    }
    if names.list_kind.as_deref() == Some(&names.kind) {
        errors.invalid(path.child("listKind"), &names.list_kind, "kind and listKind may not be the same");
    }
}

fn versions(errors: &mut FieldErrors, path: &FieldPath, crd: &CustomResourceDefinition) {
    let mut seen = BTreeSet::new();
    for (i, version) in crd.spec.versions.iter().enumerate() {
        let path = path.index(i);
        errors.invalid_each(&path.child("name"), &version.name, name::dns_1035_label(&version.name));
        if !seen.insert(&version.name) {
            errors.duplicate(path.child("name"), &version.name);
        }
        if version.deprecation_warning.is_some() && version.deprecated != Some(true) {
            let detail = "can only be set for deprecated versions";
            errors.invalid(path.child("deprecationWarning"), &version.deprecation_warning, detail);
        }
        let schema_path = path.child("schema").child("openAPIV3Schema");
        match version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) {
            Some(schema) => {
                errors.extend(structural::check(schema, &schema_path));
                selectable(errors, &path.child("selectableFields"), version, schema);
            }
            None => errors.required(schema_path, "schemas are required"),
        }
        for (i, column) in version.additional_printer_columns.iter().flatten().enumerate() {
            self::column(errors, &path.child("additionalPrinterColumns").index(i), column);
        }
        if let Some(scale) = version.subresources.as_ref().and_then(|s| s.scale.as_ref()) {
            self::scale(errors, &path.child("subresources").child("scale"), scale);
        }
    }
    let stored = crd.spec.versions.iter().filter(|v| v.storage).count();
    if stored != 1 {
        let names: Vec<_> = crd.spec.versions.iter().map(|v| &v.name).collect();
        errors.invalid(path.clone(), names, "must have exactly one version marked as storage version");
    }
}

fn column(errors: &mut FieldErrors, path: &FieldPath, column: &CustomResourceColumnDefinition) {
    required(errors, path.child("name"), Some(&column.name));
    let types = ["boolean", "date", "integer", "number", "string"];
    one_of(errors, path.child("type"), Some(&column.type_), &types);
    if let Some(format) = column.format.as_deref().filter(|f| !f.is_empty()) {
        let formats = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
        one_of(errors, path.child("format"), Some(format), &formats);
    }
    if let Some(text) = required(errors, path.child("jsonPath"), Some(&column.json_path)) {
        let wrong = match text.parse::<JsonPath>() {
            Err(e) => Some(e.to_string()),
            Ok(_) if !text.starts_with('.') => Some("must be a json path that starts with a dot".to_owned()),
            Ok(_) => None,
        };
        if let Some(wrong) = wrong {
            errors.invalid(path.child("jsonPath"), text, format!("is an invalid path: {wrong}"));
        }
    }
}

fn scale(errors: &mut FieldErrors, path: &FieldPath, scale: &CustomResourceSubresourceScale) {
    let mut check = |field: &str, text: Option<&str>, roots: &[&str]| {
        let path = path.child(field);
        let Some(text) = text else { return };
        let parsed = text.parse::<JsonPath>().ok();
        let fields = parsed.as_ref().and_then(JsonPath::fields).unwrap_or_default();
        match fields.as_slice() {
            _ if text.is_empty() => errors.required(path, ""),
            [] => errors.invalid(path, text, "should be a json path without array notation"),
            [root, _, ..] if roots.contains(root) => {}
            _ => {
                let roots: Vec<_> = roots.iter().map(|r| format!(".{r}")).collect();
                errors.invalid(path, text, format!("should be a json path under {}", roots.join(" or ")));
            }
        }
    };
    check("specReplicasPath", Some(&scale.spec_replicas_path), &["spec"]);
    check("statusReplicasPath", Some(&scale.status_replicas_path), &["status"]);
    check(
        "labelSelectorPath",
        scale.label_selector_path.as_deref().filter(|p| !p.is_empty()),
        &["spec", "status"],
    );
}

fn selectable(
    errors: &mut FieldErrors,
    path: &FieldPath,
    version: &CustomResourceDefinitionVersion,
    schema: &JSONSchemaProps,
) {
    let fields = version.selectable_fields.as_deref().unwrap_or_default();
    if fields.len() > SELECTABLE_MAX {
        errors.too_many(path.clone(), fields.len(), SELECTABLE_MAX);
    }
    let mut seen = BTreeSet::new();
    for (i, field) in fields.iter().enumerate() {
        let path = path.index(i).child("jsonPath");
        let Some(text) = required(errors, path.clone(), Some(&field.json_path)) else { continue };
        if !seen.insert(text) {
            errors.duplicate(path.clone(), text);
        }
        let parsed = text.parse::<JsonPath>();
        let Some(names) = parsed.as_ref().ok().and_then(JsonPath::fields).filter(|_| text.starts_with('.'))
        else {
            errors.invalid(path, text, "is an invalid path: must be a simple json path in child notation");
            continue;
        };
        if names.first() == Some(&"metadata") {
            errors.invalid(path, text, "is an invalid path: must not point to fields in metadata");
            continue;
        }
        let end = names.iter().try_fold(schema, |schema, name| schema.properties.as_ref()?.get(*name));
        match end.and_then(|s| s.type_.as_deref()) {
            Some("string" | "boolean" | "integer") => {}
            Some(other) => {
                let detail = format!(
                    "is an invalid path: must point to a field of type string, boolean or integer, not {other}"
                );
                errors.invalid(path, text, detail);
            }
            None => errors.invalid(path, text, "is an invalid path: does not refer to a valid field"),
        }
    }
}

fn conversion(errors: &mut FieldErrors, path: &FieldPath, crd: &CustomResourceDefinition) {
    let Some(conversion) = &crd.spec.conversion else { return };
    one_of(errors, path.child("strategy"), Some(&conversion.strategy), &["None", "Webhook"]);
    let webhook = path.child("webhook");
    match (conversion.strategy.as_str(), &conversion.webhook) {
        ("None", Some(_)) => {
            errors.forbidden(webhook, "should not be set when strategy is not set to Webhook");
        }
        ("Webhook", None) => {
            errors.required(webhook.child("clientConfig"), "required when strategy is set to Webhook");
        }
        ("Webhook", Some(hook)) => {
            match &hook.client_config {
                None => {
                    errors.required(webhook.child("clientConfig"), "required when strategy is set to Webhook")
                }
                Some(client) if client.url.is_some() == client.service.is_some() => {
                    let detail = "exactly one of url or service is required";
                    errors.required(webhook.child("clientConfig"), detail);
                }
                Some(_) => {}
            }
            let known: Vec<_> =
                hook.conversion_review_versions.iter().filter(|v| *v == "v1" || *v == "v1beta1").collect();
            if hook.conversion_review_versions.is_empty() {
                errors.required(webhook.child("conversionReviewVersions"), "");
            } else if known.is_empty() {
                let detail = "must include at least one of v1, v1beta1";
                errors.invalid(
                    webhook.child("conversionReviewVersions"),
                    &hook.conversion_review_versions,
                    detail,
                );
            }
        }
        _ => {}
    }
}

/// What is wrong with a change of a CustomResourceDefinition.
pub fn validate_update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    for (path, new, old) in [
        (path.child("group"), &new.spec.group, &old.spec.group),
        (path.child("scope"), &new.spec.scope, &old.spec.scope),
        (path.child("names").child("kind"), &new.spec.names.kind, &old.spec.names.kind),
        (path.child("names").child("plural"), &new.spec.names.plural, &old.spec.names.plural),
    ] {
        if new != old {
            errors.invalid(path, new, IMMUTABLE);
        }
    }
    let stored = old.status.iter().flat_map(|s| s.stored_versions.iter().flatten());
    for (i, version) in stored.enumerate() {
        if !new.spec.versions.iter().any(|v| v.name == *version) {
            let detail = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {version} and removes \
                 {version} from status.storedVersions"
            );
            let path = FieldPath::new("status").child("storedVersions").index(i);
            errors.invalid(path, Value::from(version.as_str()), detail);
        }
    }
    errors
}
