//! Label selectors in objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::field::{FieldErrors, FieldPath};
use crate::{meta, name};

pub(super) fn check(errors: &mut FieldErrors, path: &FieldPath, selector: &LabelSelector) {
    if let Some(labels) = &selector.match_labels {
        errors.extend(meta::labels(labels, &path.child("matchLabels")));
    }
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.required(path.child("values"), detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(path.child("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
        }
        errors.invalid_each(&path.child("key"), &expression.key, name::qualified(&expression.key));
        for (i, value) in values.iter().enumerate() {
            errors.invalid_each(&path.child("values").index(i), value, name::label_value(value));
        }
    }
}
