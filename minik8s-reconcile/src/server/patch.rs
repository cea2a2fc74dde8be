//! PATCH.

use minik8s_api::patch::{self, PatchError};
use serde_json::Value;

use super::ApiServer;
use super::key::Scope;
use super::update::Part;
use crate::error::ApiError;
use crate::request::{ApiResponse, Patch, PatchFormat, WriteParams};

impl ApiServer {
    pub(super) async fn patch(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        patch: &Patch,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        if patch.format == PatchFormat::Apply {
            return Err(ApiError::unsupported_media_type(
                "the body of the request was in an unsupported format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json",
            ));
        }
        let body: Value = serde_json::from_slice(&patch.body)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        let kind = scope.kind.clone();
        let edit = |old: &Value| {
            let patched = match patch.format {
                PatchFormat::Json => patch::json::apply(old, &body),
                PatchFormat::Merge => Ok(patch::merge::apply(old, &body)),
                PatchFormat::StrategicMerge => patch::strategic::apply(&kind, old, &body),
                PatchFormat::Apply => unreachable!("refused above"),
            };
            let mut patched = patched.map_err(|e: PatchError| refused(&e))?;
            // The version of the object that was patched is no wish of the patch's author; one in the patch is.
            let wish = match patch.format {
                PatchFormat::Json => {
                    patched.pointer("/metadata/resourceVersion") != old.pointer("/metadata/resourceVersion")
                }
                _ => body.pointer("/metadata/resourceVersion").is_some(),
            };
            if !wish && let Some(metadata) = patched.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("resourceVersion");
            }
            Ok(patched)
        };
        self.change(scope, name, part, params, edit).await
    }
}

pub(super) fn refused(error: &PatchError) -> ApiError {
    let reason = match error.code() {
        400 => "BadRequest",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        _ => "Invalid",
    };
    ApiError::new(error.code(), reason, error.to_string())
}
