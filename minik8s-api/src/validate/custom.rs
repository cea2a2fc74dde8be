//! CustomResourceDefinitions.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::{IMMUTABLE, one_of, required};
use crate::field::{FieldErrors, FieldPath};
use crate::name;

/// What is wrong with a CustomResourceDefinition. What its schemas say is not looked at.
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
    one_of(&mut errors, path.child("scope"), Some(&spec.scope), &["Cluster", "Namespaced"]);
    names(&mut errors, &path.child("names"), crd);
    versions(&mut errors, &path.child("versions"), crd);
    if let Some(conversion) = &spec.conversion {
        let path = path.child("conversion").child("strategy");
        one_of(&mut errors, path, Some(&conversion.strategy), &["None", "Webhook"]);
    }
    errors
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
        let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
        if schema.is_none() {
            errors.required(path.child("schema").child("openAPIV3Schema"), "schemas are required");
        }
    }
    let stored = crd.spec.versions.iter().filter(|v| v.storage).count();
    if stored != 1 {
        let names: Vec<_> = crd.spec.versions.iter().map(|v| &v.name).collect();
        errors.invalid(path.clone(), names, "must have exactly one version marked as storage version");
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
    for version in stored.filter(|v| !new.spec.versions.iter().any(|n| n.name == **v)) {
        let detail =
            format!("must have exactly one version in spec.versions for the stored version {version}");
        errors.invalid(FieldPath::new("status").child("storedVersions"), version, detail);
    }
    errors
}
