//! `/scale`: how many there should be, read and written in one form for every kind that can be scaled.

use k8s_openapi::api::autoscaling::v1::Scale;
use minik8s_api::patch::apply::ManagedFields;
use minik8s_api::scale::{self, ScalePaths};
use serde_json::Value;

use super::key::Scope;
use super::patch::patched;
use super::update::{Edited, Part, Write};
use super::{ApiServer, encoding};
use crate::error::ApiError;
use crate::request::{ApiResponse, Notes, Operation, ResponseBody};
use crate::stored::Stored;

impl ApiServer {
    /// Reads or changes the scale of `name`.
    pub(super) async fn scale(
        &self,
        scope: &Scope,
        name: &str,
        operation: Operation,
    ) -> Result<ApiResponse, ApiError> {
        let paths = scope.kind.scale.clone().ok_or_else(ApiError::no_such_resource)?;
        let mut response = match operation {
            Operation::Get => self.get(scope, name).await?,
            Operation::Update(payload, params) => {
                let mut notes = Notes::default();
                let kind = scale::kind();
                let wanted = encoding::read(&kind, payload, params.field_validation, &mut notes.warnings)?;
                let wanted = wanted.to_value();
                let edit = |_: &Value| Ok(wanted.clone());
                let write = Write { options: "UpdateOptions", params: &params, whole: false };
                self.rescale(scope, name, &paths, write, notes, edit).await?
            }
            Operation::Patch(patch, params) => {
                let body: Value = serde_json::from_slice(&patch.body)
                    .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
                let edit = |old: &Value| patched(&scale::kind(), patch.format, &body, old);
                let write = Write { options: "PatchOptions", params: &params, whole: false };
                self.rescale(scope, name, &paths, write, Notes::default(), edit).await?
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        if let ResponseBody::Object { object, .. } = &mut response.body {
            let value: Value = serde_json::from_slice(object.json()).map_err(ApiError::internal)?;
            let scale = paths.read(&value).ok_or_else(|| {
                let path = &paths.spec_replicas;
                ApiError::internal(format!("the spec replicas field \"{path}\" does not exist"))
            })?;
            *object = Stored::new(scale.to_string().into(), object.revision());
        }
        Ok(response)
    }

    /// Lets `edit` change the scale, and the object with it.
    async fn rescale(
        &self,
        scope: &Scope,
        name: &str,
        paths: &ScalePaths,
        write: Write<'_>,
        notes: Notes,
        edit: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<ApiResponse, ApiError> {
        let kind = scale::kind();
        let change = |old: &Value, _: &ManagedFields| {
            let mut new = old.clone();
            let shown = paths.read(old).or_else(|| {
                paths.write(&mut new, 0);
                paths.read(&new)
            });
            let wanted = edit(&shown.ok_or_else(ApiError::no_such_resource)?)?;
            let decoded = encoding::checked(
                &kind,
                kind.decode_value(&wanted),
                write.params.field_validation,
                &mut Vec::new(),
            )?;
            let wanted = decoded.downcast_ref::<Scale>().expect("the kind decodes scales");
            if wanted.metadata.name.as_deref().is_some_and(|n| !n.is_empty() && n != name) {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({name})",
                    wanted.metadata.name.as_deref().unwrap_or_default()
                )));
            }
            let errors = scale::validate(wanted);
            if !errors.is_empty() {
                return Err(ApiError::invalid(&kind, name, &errors));
            }
            paths.write(&mut new, wanted.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0));
            new["metadata"]["resourceVersion"] =
                wanted.metadata.resource_version.clone().unwrap_or_default().into();
            if let Some(uid) = wanted.metadata.uid.as_ref().filter(|u| !u.is_empty()) {
                new["metadata"]["uid"] = uid.clone().into();
            }
            Ok(Edited::from(new))
        };
        self.change(scope, name, Part::Main, write, notes, change).await
    }
}

#[cfg(test)]
mod tests;
