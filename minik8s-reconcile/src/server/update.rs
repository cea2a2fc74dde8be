//! PUT, and what every change of an object goes through.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::{FieldErrors, FieldPath, Kind, Object, meta};
use serde_json::Value;

use std::sync::Arc;

use super::key::Scope;
use super::{ApiServer, encoding};
use crate::error::ApiError;
use crate::request::{ApiResponse, Payload, ResponseBody, WriteParams};
use crate::storage::{Compare, Op, Txn, TxnOutcome};
use crate::stored::Stored;

/// The part of an object that a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status, where that is a part of its own.
    Main,
    /// The status alone.
    Status,
    /// A namespace's `spec.finalizers` alone.
    Finalize,
}

impl Part {
    pub(super) fn of(kind: &Kind, subresource: Option<&str>) -> Result<Self, ApiError> {
        match subresource {
            None => Ok(Self::Main),
            Some("status") if kind.status => Ok(Self::Status),
            Some("finalize") if kind.kind == "Namespace" => Ok(Self::Finalize),
            Some(_) => Err(ApiError::no_such_resource()),
        }
    }

    /// `new`, with what this part does not cover as it was in `old`.
    fn confine(self, kind: &Kind, old: &Value, mut new: Value) -> Value {
        match self {
            Self::Main => {
                if kind.status {
                    replace(&mut new, "status", old.get("status"));
                }
                if kind.kind == "Namespace" {
                    let finalizers = old.pointer("/spec/finalizers");
                    if let (Some(spec), Some(finalizers)) = (new.get_mut("spec"), finalizers) {
                        replace(spec, "finalizers", Some(finalizers));
                    }
                }
                new
            }
            Self::Status => {
                let mut confined = old.clone();
                replace(&mut confined, "status", new.get("status"));
                // Controllers keep notes about a status in its object's annotations and labels.
                if kind.custom {
                    confine_metadata(&mut confined, &new);
                } else {
                    replace(&mut confined, "metadata", new.get("metadata"));
                }
                confined
            }
            Self::Finalize => {
                let mut confined = old.clone();
                replace(&mut confined, "spec", new.get("spec"));
                confined
            }
        }
    }
}

/// With the status of a custom kind come the version that it was made for, and who manages it.
fn confine_metadata(confined: &mut Value, new: &Value) {
    let Some(metadata) = confined.get_mut("metadata") else { return };
    for field in ["resourceVersion", "uid", "managedFields"] {
        replace(metadata, field, new.get("metadata").and_then(|m| m.get(field)));
    }
}

/// Sets or removes a field of a JSON object.
fn replace(object: &mut Value, field: &str, value: Option<&Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

/// How often a change without a version of its own is tried on top of others'.
const ATTEMPTS: usize = 16;

impl ApiServer {
    pub(super) async fn update(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        payload: Payload,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let kind = &scope.kind;
        let mut warnings = Vec::new();
        let object = encoding::read(kind, payload, params.field_validation, &mut warnings)?;
        let metadata = object.metadata();
        if metadata.name.as_deref().is_some_and(|n| n != name) {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                metadata.name.as_deref().unwrap_or_default()
            )));
        }
        if let (Some(here), Some(there)) = (&metadata.namespace, &scope.namespace)
            && !here.is_empty()
            && here != there
        {
            return Err(ApiError::bad_request(format!(
                "the namespace of the object ({here}) does not match the namespace on the URL ({there})"
            )));
        }
        if kind.custom && metadata.resource_version.as_deref().unwrap_or_default().is_empty() {
            let mut errors = FieldErrors::new();
            let path = FieldPath::new("metadata").child("resourceVersion");
            errors.invalid(path, 0, "must be specified for an update");
            return Err(ApiError::invalid(kind, name, &errors));
        }
        let new = object.to_value();
        let mut response = self.change(scope, name, part, params, |_| Ok(new.clone())).await?;
        response.warnings.append(&mut warnings);
        Ok(response)
    }

    /// Reads the object, lets `edit` change it and writes it back; again, if someone else wrote in between and
    /// `edit` does not insist on a version.
    pub(super) async fn change(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        params: &WriteParams,
        edit: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<ApiResponse, ApiError> {
        let kind = &scope.kind;
        let mut stored = self.read(scope, name).await?;
        for _ in 0..ATTEMPTS {
            let mut warnings = Vec::new();
            let (draft, insists, gone) =
                self.edited(kind, name, part, params, &stored, &edit, &mut warnings)?;
            if params.dry_run || draft.same_as(&stored) {
                let object = if params.dry_run { draft.stamp(stored.revision()) } else { stored };
                let object = object.served_as(kind)?;
                return Ok(ApiResponse { body: ResponseBody::Object { object, created: false }, warnings });
            }
            let key = scope.key(name)?;
            let compare = vec![Compare::Revision(key.clone(), stored.revision())];
            let op = if gone { Op::Delete(key, draft) } else { Op::Put(key, draft) };
            match self.storage.txn(Txn { compare, ops: vec![op] }).await? {
                TxnOutcome::Committed(mut written) => {
                    let object = written.pop().expect("one write, one value").served_as(kind)?;
                    return Ok(ApiResponse {
                        body: ResponseBody::Object { object, created: false },
                        warnings,
                    });
                }
                TxnOutcome::Refused { current: None, .. } => return Err(ApiError::not_found(kind, name)),
                TxnOutcome::Refused { .. } if insists => return Err(modified(kind, name)),
                TxnOutcome::Refused { current: Some(current), .. } => stored = current,
            }
        }
        Err(modified(kind, name))
    }

    /// What `edit` makes of the stored object: the value to write, whether it insists on the version it was made
    /// for, and whether nothing keeps the object any more.
    #[allow(clippy::too_many_arguments)]
    fn edited(
        &self,
        kind: &Arc<Kind>,
        name: &str,
        part: Part,
        params: &WriteParams,
        stored: &Stored,
        edit: &impl Fn(&Value) -> Result<Value, ApiError>,
        warnings: &mut Vec<String>,
    ) -> Result<(crate::storage::Draft, bool, bool), ApiError> {
        let stored = stored.served_as(kind)?;
        let old_value: Value = serde_json::from_slice(stored.json()).map_err(ApiError::internal)?;
        let old = stored.object(kind).map_err(ApiError::internal)?;
        let edited = edit(&old_value)?;
        let version = edited.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let insists = !version.is_empty();
        if insists && version != stored.revision().to_string() {
            return Err(modified(kind, name));
        }
        let new_value = part.confine(kind, &old_value, edited);
        let decoded = kind.decode_value(&new_value);
        let mut new = encoding::checked(kind, decoded, params.field_validation, warnings)?;
        if let (Some(uid), Some(expected)) = (&new.metadata().uid, &old.metadata().uid)
            && !uid.is_empty()
            && uid != expected
        {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {expected}");
            return Err(ApiError::conflict(kind, name, why));
        }
        keep(new.metadata_mut(), old.metadata());
        kind.default(&mut *new);
        if kind.generation && part == Part::Main && differs(kind, &*new, &old_value) {
            let generation = old.metadata().generation.unwrap_or(0) + 1;
            new.metadata_mut().generation = Some(generation);
        }
        let mut errors = meta::validate(new.metadata(), kind);
        errors.extend(meta::validate_update(new.metadata(), old.metadata(), kind));
        errors.extend(kind.validate_change(&*new, &*old, part != Part::Main));
        if !errors.is_empty() {
            return Err(ApiError::invalid(kind, name, &errors));
        }
        let gone = released(&*new);
        Ok((encoding::draft(kind, &mut *new)?, insists, gone))
    }
}

/// 409 for a write on top of a version that is no longer the newest.
pub(super) fn modified(kind: &Kind, name: &str) -> ApiError {
    ApiError::conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// What a client cannot change of an object's metadata stays as it was.
fn keep(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.name.clone_from(&old.name);
    new.namespace.clone_from(&old.namespace);
    new.uid.clone_from(&old.uid);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.generation = old.generation;
    new.generate_name.clone_from(&old.generate_name);
    new.self_link.clone_from(&old.self_link);
}

/// Whether anything but metadata and status has changed. A custom kind whose status is no part of its own has none.
fn differs(kind: &Kind, new: &dyn Object, old: &Value) -> bool {
    let new = new.to_value();
    let part_of_its_own = kind.status || !kind.custom;
    fn body(value: &Value, part_of_its_own: bool) -> impl Iterator<Item = (&String, &Value)> {
        let fields = value.as_object().into_iter().flatten();
        fields.filter(move |(name, _)| *name != "metadata" && !(part_of_its_own && *name == "status"))
    }
    !body(&new, part_of_its_own).eq(body(old, part_of_its_own))
}

/// Whether the object was deleted and nothing keeps it any more.
pub(super) fn released(object: &dyn Object) -> bool {
    let metadata = object.metadata();
    metadata.deletion_timestamp.is_some()
        && metadata.deletion_grace_period_seconds.unwrap_or(0) == 0
        && metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
        && !super::delete::held_by_spec(object)
}
