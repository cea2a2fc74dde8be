//! Validation of `metadata`, the same for every kind but for the form of names.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::field::{FieldErrors, FieldPath};
use crate::kind::Kind;
use crate::{name, patch::merge_keys};

/// The most bytes that the keys and values of all annotations of an object may have together: 256 KiB.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;

const IMMUTABLE: &str = "field is immutable";

/// What is wrong with the metadata of an object of `kind`. A generated name must have been filled in.
pub fn validate(meta: &ObjectMeta, kind: &Kind) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("metadata");
    let check = name_check(kind);
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        for wrong in check(&masked(prefix)) {
            errors.invalid(path.child("generateName"), prefix, wrong);
        }
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.required(path.child("name"), "name or generateName is required"),
        given => {
            // Every name is a segment of a URL, whatever else its kind allows.
            for wrong in
                if name::path_segment(given).is_empty() { check(given) } else { name::path_segment(given) }
            {
                errors.invalid(path.child("name"), given, wrong);
            }
        }
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    match (kind.namespaced, namespace) {
        (true, "") => errors.required(path.child("namespace"), ""),
        (true, given) => {
            for wrong in name::dns_label(given) {
                errors.invalid(path.child("namespace"), given, wrong);
            }
        }
        (false, "") => {}
        (false, _) => errors.forbidden(path.child("namespace"), "not allowed on this type"),
    }
    errors.extend(changeable(meta, kind, &path));
    errors
}

/// What is wrong with `new` metadata in place of `old`. Whether a version must be given is the server's matter.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, kind: &Kind) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("metadata");
    if old.deletion_timestamp.is_some() {
        let before: BTreeSet<_> = old.finalizers.iter().flatten().collect();
        let added: Vec<_> = new.finalizers.iter().flatten().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let list: Vec<_> = added.iter().map(|f| format!("{f:?}")).collect();
            errors.forbidden(
                path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers \
                     []string{{{}}}",
                    list.join(", ")
                ),
            );
        }
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        errors.invalid(path.child("generation"), new.generation, "must not be decremented");
    }
    let mut same = |field: &str, new: &Option<String>, old: &Option<String>| {
        if new.as_deref().unwrap_or_default() != old.as_deref().unwrap_or_default() {
            errors.invalid(path.child(field), new, IMMUTABLE);
        }
    };
    same("name", &new.name, &old.name);
    same("namespace", &new.namespace, &old.namespace);
    same("uid", &new.uid, &old.uid);
    if new.creation_timestamp != old.creation_timestamp {
        errors.invalid(path.child("creationTimestamp"), &new.creation_timestamp, IMMUTABLE);
    }
    if new.deletion_timestamp != old.deletion_timestamp {
        errors.invalid(path.child("deletionTimestamp"), &new.deletion_timestamp, IMMUTABLE);
    }
    if new.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        let value = new.deletion_grace_period_seconds;
        errors.invalid(path.child("deletionGracePeriodSeconds"), value, IMMUTABLE);
    }
    errors.extend(changeable(new, kind, &path));
    errors
}

/// The form of the names of `kind`.
fn name_check(kind: &Kind) -> fn(&str) -> Vec<String> {
    match (&*kind.group, &*kind.kind) {
        ("", "Namespace") => name::dns_label,
        ("", "Service") => name::dns_1035_label,
        ("rbac.authorization.k8s.io" | "certificates.k8s.io", _) => name::path_segment,
        ("networking.k8s.io", "IPAddress") => name::ip,
        _ => name::dns_subdomain,
    }
}

/// `web-` stands for names such as `web-x7k2p`.
fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

/// The parts that a client may change.
fn changeable(meta: &ObjectMeta, kind: &Kind, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(generation) = meta.generation.filter(|&g| g < 0) {
        errors.invalid(path.child("generation"), generation, "must be greater than or equal to 0");
    }
    if let Some(map) = &meta.labels {
        errors.extend(labels(map, &path.child("labels")));
    }
    if let Some(map) = &meta.annotations {
        errors.extend(annotations(map, &path.child("annotations")));
    }
    if let Some(owners) = &meta.owner_references {
        errors.extend(owner_references(owners, &path.child("ownerReferences")));
    }
    if let Some(list) = &meta.finalizers {
        errors.extend(finalizers(list, kind, &path.child("finalizers")));
    }
    errors
}

/// What is wrong with labels, here or in a template.
pub fn labels(labels: &BTreeMap<String, String>, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (key, value) in labels {
        for wrong in name::qualified(key) {
            errors.invalid(path.clone(), key, wrong);
        }
        for wrong in name::label_value(value) {
            errors.invalid(path.clone(), value, wrong);
        }
    }
    errors
}

/// What is wrong with annotations, here or in a template.
pub fn annotations(annotations: &BTreeMap<String, String>, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for key in annotations.keys() {
        // Prefixes in upper case are an old habit that is still allowed.
        for wrong in name::qualified(&key.to_lowercase()) {
            errors.invalid(path.clone(), key, wrong);
        }
    }
    if annotations.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > ANNOTATIONS_MAX {
        errors.too_long(path.clone(), ANNOTATIONS_MAX);
    }
    errors
}

fn owner_references(owners: &[OwnerReference], path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            errors.invalid(path.child("apiVersion"), &owner.api_version, "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(path.child(field), value, "must not be empty");
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errors.invalid(path.clone(), owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for \
                         {first} and {this}"
                    );
                    errors.invalid(path.clone(), owners, detail);
                }
                None => controller = Some(this),
            }
        }
    }
    errors
}

fn finalizers(list: &[String], kind: &Kind, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, finalizer) in list.iter().enumerate() {
        for wrong in name::qualified(finalizer) {
            errors.invalid(path.clone(), finalizer, wrong);
        }
        let standard = matches!(finalizer.as_str(), "kubernetes" | "orphan" | "foregroundDeletion")
            || finalizer == crate::crd::names::FINALIZER;
        if merge_keys::is_built_in(&kind.group) && !finalizer.contains('/') && !standard {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(path.index(i), finalizer, detail);
        }
    }
    let has = |name: &str| list.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path.clone(), list, detail);
    }
    errors
}

#[cfg(test)]
mod tests;
