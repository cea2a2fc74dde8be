//! Aggregated API services.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use crate::field::{FieldErrors, FieldPath};

/// What is wrong with an APIService.
pub fn api_service(service: &APIService) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &service.spec else {
        errors.required(path, "");
        return errors;
    };
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let expected = format!("{}.{}", text(&spec.version), text(&spec.group));
    let name = text(&service.metadata.name);
    if name != expected {
        let detail = format!("must be `spec.version+\".\"+spec.group`: \"{expected}\"");
        errors.invalid(FieldPath::new("metadata").child("name"), name, detail);
    }
    if !(1..=20_000).contains(&spec.group_priority_minimum) {
        let detail = "must be positive and less than 20000";
        errors.invalid(path.child("groupPriorityMinimum"), spec.group_priority_minimum, detail);
    }
    if !(1..=1000).contains(&spec.version_priority) {
        let detail = "must be positive and less than 1000";
        errors.invalid(path.child("versionPriority"), spec.version_priority, detail);
    }
    if spec.insecure_skip_tls_verify == Some(true) && spec.ca_bundle.as_ref().is_some_and(|b| !b.0.is_empty())
    {
        errors.invalid(path.child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present");
    }
    errors
}
