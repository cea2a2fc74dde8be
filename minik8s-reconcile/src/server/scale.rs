//! `/scale`: how many there should be, read and written in one form for every kind that can be scaled.

use k8s_openapi::api::autoscaling::v1::Scale;
use minik8s_api::patch::apply::ManagedFields;
use minik8s_api::scale::{self, ScalePaths};
use minik8s_api::{Object, Unstructured};
use serde_json::{Value, json};

use super::admission::{Options, Request, Verb};
use super::key::Scope;
use super::part::Part;
use super::patch::patched;
use super::update::{Edited, Write};
use super::{ApiServer, apply, encoding, managed_fields};
use crate::error::ApiError;
use crate::request::{ApiResponse, Notes, Operation, Patch, PatchFormat, ResponseBody, WriteParams};
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
                managed_fields::check_manager("PatchOptions", &params)?;
                let write = Write { options: "PatchOptions", params: &params, whole: false };
                if patch.format == PatchFormat::Apply {
                    return self.apply_scale(scope, name, &paths, &patch, &params).await;
                }
                let body: Value = serde_json::from_slice(&patch.body)
                    .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
                let edit = |old: &Value| patched(&scale::kind(), patch.format, &body, old);
                self.rescale(scope, name, &paths, write, Notes::default(), edit).await?
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        show(&mut response, &paths)?;
        Ok(response)
    }

    /// Applies a configuration of the scale.
    async fn apply_scale(
        &self,
        scope: &Scope,
        name: &str,
        paths: &ScalePaths,
        patch: &Patch,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let kind = scale::kind();
        let config = apply::read(&kind, scope, name, &patch.body)?;
        let mut notes = Notes::default();
        let decoded = kind.decode_value(&config);
        let decoded = encoding::checked(&kind, decoded, params.field_validation, &mut notes.warnings)?;
        let wanted = decoded.downcast_ref::<Scale>().expect("the kind decodes scales");
        let errors = scale::validate(wanted);
        if !errors.is_empty() {
            return Err(ApiError::invalid(&kind, name, &errors));
        }
        // What it says of the scale, said of the object.
        let mut whole = json!({
            "apiVersion": scope.kind.api_version(), "kind": scope.kind.kind, "metadata": config["metadata"],
        });
        if let Some(replicas) = wanted.spec.as_ref().and_then(|s| s.replicas) {
            paths.write(&mut whole, replicas);
        }
        let mut response = self.apply_config(scope, name, Part::Scale, &whole, patch.force, params).await?;
        response.warnings.extend(notes.warnings);
        show(&mut response, paths)?;
        Ok(response)
    }

    /// Asks admission about a change of a scale.
    pub(super) async fn admit_scale(
        &self,
        scope: &Scope,
        name: &str,
        write: Write<'_>,
        old: &Value,
        new: Option<&dyn Object>,
        notes: &mut Notes,
    ) -> Result<(), ApiError> {
        let Some(paths) = &scope.kind.scale else { return Ok(()) };
        let view = |value: &Value| {
            let scale = paths.read(value)?;
            Unstructured::from_value(scale, &mut Vec::new()).ok()
        };
        let new = new.map(Object::to_value).unwrap_or_default();
        let (Some(old), Some(new)) = (view(old), view(&new)) else { return Ok(()) };
        let options = Options::Write(write.options, write.params);
        let mut request = Request::new(self, scope, Verb::Update, name, options)
            .of_part(Part::Scale.name())
            .in_place_of(&old)
            .with_object(Box::new(new));
        self.admission.mutate(&mut request, notes).await?;
        self.admission.validate(&request, notes).await
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
        self.change(scope, name, Part::Scale, write, notes, change).await
    }
}

/// Puts the scale in the object's place.
fn show(response: &mut ApiResponse, paths: &ScalePaths) -> Result<(), ApiError> {
    if let ResponseBody::Object { object, .. } = &mut response.body {
        let value: Value = serde_json::from_slice(object.json()).map_err(ApiError::internal)?;
        let scale = paths.read(&value).ok_or_else(|| {
            let path = &paths.spec_replicas;
            ApiError::internal(format!("the spec replicas field \"{path}\" does not exist"))
        })?;
        *object = Stored::new(scale.to_string().into(), object.revision());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
