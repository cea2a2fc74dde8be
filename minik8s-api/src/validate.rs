//! Validation: what is wrong with an object, with Kubernetes' words and field paths. Metadata is the matter of
//! [`crate::meta`].

pub mod admission;
pub mod aggregation;
pub mod certificate;
pub mod cluster;
mod container;
pub mod data;
mod env;
mod label_selector;
pub mod limits;
pub mod network;
pub mod pod;
pub mod pod_parts;
mod probe;
mod resources;
mod scheduling;
mod security;
pub mod service;
mod volume;
pub mod workload;

use crate::field::{FieldErrors, FieldPath};

pub(crate) const IMMUTABLE: &str = "field is immutable";
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Complains about a field that is set to less than nothing.
fn not_negative(errors: &mut FieldErrors, path: FieldPath, value: Option<impl Into<i64>>) {
    if let Some(value) = value.map(Into::into).filter(|&v| v < 0) {
        errors.invalid(path, value, NOT_NEGATIVE);
    }
}

/// Complains about a field that is unset or none of `supported`.
pub(crate) fn one_of(errors: &mut FieldErrors, path: FieldPath, value: Option<&str>, supported: &[&str]) {
    match value {
        None | Some("") => errors.required(path, ""),
        Some(value) if supported.contains(&value) => {}
        Some(value) => errors.not_supported(path, value, supported),
    }
}

/// Complains about a text that is unset or empty; otherwise gives it back.
pub(crate) fn required<'a>(
    errors: &mut FieldErrors,
    path: FieldPath,
    value: Option<&'a str>,
) -> Option<&'a str> {
    let value = value.filter(|v| !v.is_empty());
    if value.is_none() {
        errors.required(path, "");
    }
    value
}

/// Complains about a path that leaves the directory it starts from.
fn inner_path(errors: &mut FieldErrors, path: &FieldPath, value: &str) {
    if value.starts_with('/') {
        errors.invalid(path.clone(), value, "must be a relative path");
    }
    no_parents(errors, path, value);
}

/// Complains about a path that leads upwards.
fn no_parents(errors: &mut FieldErrors, path: &FieldPath, value: &str) {
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path.clone(), value, "must not contain '..'");
    }
}
