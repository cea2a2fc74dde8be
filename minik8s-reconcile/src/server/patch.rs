//! PATCH.

use minik8s_api::patch::apply::ManagedFields;
use minik8s_api::patch::{self, PatchError};
use minik8s_api::{FieldErrors, FieldPath, Kind};
use serde_json::Value;

use super::key::Scope;
use super::part::Part;
use super::update::{Edited, Write};
use super::{ApiServer, managed_fields};
use crate::error::ApiError;
use crate::request::{ApiResponse, Notes, Patch, PatchFormat, WriteParams};

impl ApiServer {
    pub(super) async fn patch(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        patch: &Patch,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        managed_fields::check_manager("PatchOptions", params)?;
        if patch.format == PatchFormat::Apply {
            return self.apply(scope, name, part, patch, params).await;
        }
        if patch.force {
            let mut errors = FieldErrors::new();
            errors.forbidden(FieldPath::new("force"), "may not be specified for non-apply patch");
            return Err(ApiError::invalid_options("PatchOptions", &errors));
        }
        let body: Value = serde_json::from_slice(&patch.body)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        let kind = scope.kind.clone();
        let edit = |old: &Value, _: &ManagedFields| {
            let patched = patched(&kind, patch.format, &body, old)?;
            Ok(Edited::from(patched))
        };
        // A JSON patch can reach for anything by way of what holds it.
        let whole = patch.format == PatchFormat::Json || body.pointer("/metadata/managedFields").is_some();
        let write = Write { options: "PatchOptions", params, whole };
        self.change(scope, name, part, write, Notes::default(), edit).await
    }
}

/// What a patch, other than one that is applied, makes of `old`. The version of what was patched is no wish of the
/// patch's author, and goes; one in the patch is, and stays.
pub(super) fn patched(
    kind: &Kind,
    format: PatchFormat,
    body: &Value,
    old: &Value,
) -> Result<Value, ApiError> {
    let patched = match format {
        PatchFormat::Json => patch::json::apply(old, body),
        PatchFormat::Merge => Ok(patch::merge::apply(old, body)),
        PatchFormat::StrategicMerge => patch::strategic::apply(kind, old, body),
        PatchFormat::Apply => {
            let message = format!("a {} cannot be applied", kind.kind.to_lowercase());
            Err(PatchError::Unsupported(message))
        }
    };
    let mut patched = patched.map_err(|e| refused(&e))?;
    let wish = match format {
        PatchFormat::Json => {
            patched.pointer("/metadata/resourceVersion") != old.pointer("/metadata/resourceVersion")
        }
        _ => body.pointer("/metadata/resourceVersion").is_some(),
    };
    if !wish && let Some(metadata) = patched.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    Ok(patched)
}

fn refused(error: &PatchError) -> ApiError {
    let reason = match error.code() {
        400 => "BadRequest",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        _ => "Invalid",
    };
    ApiError::new(error.code(), reason, error.to_string())
}
