//! Requests and limits.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::NOT_NEGATIVE;
use crate::field::{FieldErrors, FieldPath};
use crate::name;
use crate::quantity::Quantity;

pub(super) fn check(errors: &mut FieldErrors, path: &FieldPath, needs: &ResourceRequirements) {
    let limits = path.child("limits");
    for (resource, limit) in needs.limits.iter().flatten() {
        resource_name(errors, &limits.key(resource), resource);
        amount(errors, &limits.key(resource), resource, limit);
    }
    let requests = path.child("requests");
    for (resource, request) in needs.requests.iter().flatten() {
        resource_name(errors, &requests.key(resource), resource);
        let Some(request) = amount(errors, &requests.key(resource), resource, request) else {
            continue;
        };
        let limit = needs.limits.as_ref().and_then(|l| l.get(resource));
        let limit = limit.and_then(|l| Quantity::try_from(l).ok());
        let exact = !may_overcommit(resource);
        match limit {
            Some(limit) if exact && request != limit => {
                let detail = format!("must be equal to {resource} limit of {limit}");
                errors.invalid(requests.clone(), request.to_string(), detail);
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {resource} limit of {limit}");
                errors.invalid(requests.clone(), request.to_string(), detail);
            }
            None if exact => {
                errors.required(path.child("limits"), "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    for (i, claim) in needs.claims.iter().flatten().enumerate() {
        super::required(errors, path.child("claims").index(i).child("name"), Some(&claim.name));
    }
}

/// Complains about what is no amount of `resource`; otherwise gives it.
pub(super) fn amount(
    errors: &mut FieldErrors,
    path: &FieldPath,
    resource: &str,
    amount: &ApiQuantity,
) -> Option<Quantity> {
    let quantity = match Quantity::try_from(amount) {
        Ok(quantity) => quantity,
        Err(error) => {
            errors.invalid(path.clone(), &amount.0, error.to_string());
            return None;
        }
    };
    if quantity.is_negative() {
        errors.invalid(path.clone(), quantity.to_string(), NOT_NEGATIVE);
    }
    let whole = Quantity::new(quantity.value(), quantity.format()) == quantity;
    if !may_overcommit(resource) && !whole {
        errors.invalid(path.clone(), quantity.to_string(), "must be an integer");
    }
    Some(quantity)
}

/// Whether more of it may be promised than there is. Devices and huge pages are whole and one's own.
fn may_overcommit(resource: &str) -> bool {
    let native = !resource.contains('/') || resource.contains("kubernetes.io/");
    native && !resource.starts_with("hugepages-")
}

fn resource_name(errors: &mut FieldErrors, path: &FieldPath, resource: &str) {
    let wrong = name::qualified(resource);
    let standard = matches!(resource, "cpu" | "memory" | "ephemeral-storage" | "storage")
        || resource.starts_with("hugepages-");
    if wrong.is_empty() && !resource.contains('/') && !standard {
        errors.invalid(path.clone(), resource, "must be a standard resource for containers");
    }
    errors.invalid_each(path, resource, wrong);
}
