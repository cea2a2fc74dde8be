//! Environment variables.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};

use super::{one_of, required};
use crate::field::{FieldErrors, FieldPath};
use crate::name;
use crate::quantity::Quantity;

/// The fields of a pod that its environment may show.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields of a pod that its files may show.
pub(super) const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const MORE_THAN_ONE: &str = "may not have more than one field specified at a time";

pub(super) fn env(errors: &mut FieldErrors, path: &FieldPath, env: &[EnvVar]) {
    for (i, variable) in env.iter().enumerate() {
        let path = path.index(i);
        if required(errors, path.child("name"), Some(&variable.name)).is_some() {
            errors.invalid_each(&path.child("name"), &variable.name, name::env_var(&variable.name));
        }
        if let Some(from) = &variable.value_from {
            let path = path.child("valueFrom");
            if variable.value.as_deref().is_some_and(|v| !v.is_empty()) {
                errors.invalid(path.clone(), "", "may not be specified when `value` is not empty");
            }
            source(errors, &path, from);
        }
    }
}

fn source(errors: &mut FieldErrors, path: &FieldPath, source: &EnvVarSource) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(errors, &path.child("fieldRef"), field, &ENV_FIELDS);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_field_ref(errors, &path.child("resourceFieldRef"), resource, false);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        key_ref(errors, &path.child("configMapKeyRef"), &key.name, &key.key);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        key_ref(errors, &path.child("secretKeyRef"), &key.name, &key.key);
    }
    if source.file_key_ref.is_some() {
        sources += 1;
        errors.forbidden(path.child("fileKeyRef"), "is not supported by this server");
    }
    match sources {
        0 => {
            let detail =
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            errors.invalid(path.clone(), "", detail);
        }
        1 => {}
        _ => errors.invalid(path.clone(), "", MORE_THAN_ONE),
    }
}

fn key_ref(errors: &mut FieldErrors, path: &FieldPath, of: &str, key: &str) {
    required(errors, path.child("name"), Some(of));
    if required(errors, path.child("key"), Some(key)).is_some() {
        errors.invalid_each(&path.child("key"), key, name::data_key(key));
    }
}

pub(super) fn field_ref(
    errors: &mut FieldErrors,
    path: &FieldPath,
    field: &ObjectFieldSelector,
    supported: &[&str],
) {
    one_of(errors, path.child("apiVersion"), field.api_version.as_deref(), &["v1"]);
    let path = path.child("fieldPath");
    let Some(given) = required(errors, path.clone(), Some(&field.field_path)) else {
        return;
    };
    let subscript = given.strip_suffix("']").and_then(|g| g.split_once("['"));
    match subscript {
        Some(("metadata.labels", key)) => errors.invalid_each(&path, given, name::qualified(key)),
        Some(("metadata.annotations", key)) => {
            errors.invalid_each(&path, given, name::qualified(&key.to_lowercase()));
        }
        Some((of, _)) => {
            errors.invalid(path, of, "does not support subscript");
        }
        None if supported.contains(&given) => {}
        None => errors.not_supported(path, given, supported),
    }
}

pub(super) fn resource_field_ref(
    errors: &mut FieldErrors,
    path: &FieldPath,
    resource: &ResourceFieldSelector,
    in_volume: bool,
) {
    if in_volume {
        required(errors, path.child("containerName"), resource.container_name.as_deref());
    }
    let given = resource.resource.as_str();
    if required(errors, path.child("resource"), Some(given)).is_none() {
        return;
    }
    let pages = given.strip_prefix("limits.").or(given.strip_prefix("requests."));
    if !RESOURCES.contains(&given) && !pages.is_some_and(|p| p.starts_with("hugepages-")) {
        errors.not_supported(path.child("resource"), given, &RESOURCES);
        return;
    }
    let Some(divisor) = &resource.divisor else { return };
    let path = path.child("divisor");
    let divisor = match Quantity::try_from(divisor) {
        Ok(divisor) => divisor,
        Err(error) => return errors.invalid(path, &divisor.0, error.to_string()),
    };
    let (allowed, detail): (&[&str], _) = if given.ends_with(".cpu") {
        (&["0", "1m", "1"], "only divisor's values 1m and 1 are supported with the cpu resource")
    } else {
        (
            &["0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
             memory resource",
        )
    };
    if !allowed.iter().any(|a| Quantity::parse(a) == Ok(divisor)) {
        errors.invalid(path, divisor.to_string(), detail);
    }
}

pub(super) fn env_from(errors: &mut FieldErrors, path: &FieldPath, sources: &[EnvFromSource]) {
    for (i, source) in sources.iter().enumerate() {
        let path = path.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            errors.invalid_each(&path.child("prefix"), prefix, name::env_var(prefix));
        }
        for (field, of) in [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| &r.name)),
            ("secretRef", source.secret_ref.as_ref().map(|r| &r.name)),
        ] {
            if let Some(of) = of
                && required(errors, path.child(field).child("name"), Some(of)).is_some()
            {
                errors.invalid_each(&path.child(field).child("name"), of, name::dns_subdomain(of));
            }
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => {
                errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
            }
            (Some(_), Some(_)) => errors.invalid(path, "", MORE_THAN_ONE),
            _ => {}
        }
    }
}
