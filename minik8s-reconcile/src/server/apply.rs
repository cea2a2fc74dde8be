//! PATCH by server-side apply.

use minik8s_api::patch::apply::{self, Applied, ApplyError, ManagedFields};
use minik8s_api::{FieldErrors, FieldPath, Kind};
use serde_json::{Value, json};

use super::key::Scope;
use super::part::Part;
use super::update::{Edited, Write};
use super::{ApiServer, authorizer, encoding};
use crate::error::ApiError;
use crate::request::{ApiResponse, Notes, Patch, WriteParams};

/// How often an object may come and go while it is to be applied.
const ATTEMPTS: usize = 8;

impl ApiServer {
    pub(super) async fn apply(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        patch: &Patch,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let config = read(&scope.kind, scope, name, &patch.body)?;
        self.apply_config(scope, name, part, &config, patch.force, params).await
    }

    /// Applies a configuration that has been read.
    pub(super) async fn apply_config(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        config: &Value,
        force: bool,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        if params.field_manager.is_empty() {
            let mut errors = FieldErrors::new();
            errors.required(FieldPath::new("fieldManager"), "is required for apply patch");
            return Err(ApiError::invalid_options("PatchOptions", &errors));
        }
        let kind = &scope.kind;
        let wish = config.pointer("/metadata/resourceVersion").cloned();
        let edit = |live: &Value, managed: &ManagedFields| {
            let Applied { mut object, managed } =
                self.applied(scope, name, part, (live, managed), config, force, params)?;
            // The version of the object below is no wish of the configuration's author.
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("resourceVersion");
                metadata.extend(wish.clone().map(|version| ("resourceVersion".to_owned(), version)));
            }
            Ok(Edited { object, managed: Some(managed) })
        };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let write = Write { options: "PatchOptions", params, whole: false };
            match self.change(scope, name, part, write, Notes::default(), &edit).await {
                Err(e) if e.is_not_found() && part == Part::Main => {}
                done => return done,
            }
            match self.apply_new(scope, name, config, force, params).await {
                Err(e) if e.is_already_exists() => last = Some(e),
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| ApiError::not_found(kind, name)))
    }

    /// Makes the object that the configuration describes.
    async fn apply_new(
        &self,
        scope: &Scope,
        name: &str,
        config: &Value,
        force: bool,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let kind = &scope.kind;
        let set = |field: &str| {
            let value = config.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str);
            value.filter(|v| !v.is_empty())
        };
        if let Some(uid) = set("uid") {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(kind, name, why));
        }
        if set("resourceVersion").is_some() {
            return Err(ApiError::not_found(kind, name));
        }
        let place = scope.namespace.as_deref();
        let create = authorizer::action(kind, "create", place, Some(name), None);
        self.permit(&scope.user, &create).await?;
        let nothing = (&json!({}), &ManagedFields::default());
        let applied = self.applied(scope, name, Part::Main, nothing, config, force, params)?;
        let mut notes = Notes::default();
        let decoded = kind.decode_value(&applied.object);
        let object = encoding::checked(kind, decoded, params.field_validation, &mut notes.warnings)?;
        self.insert(scope, object, Some(applied.managed), ("PatchOptions", params), notes).await
    }

    #[allow(clippy::too_many_arguments)]
    fn applied(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        (live, managed): (&Value, &ManagedFields),
        config: &Value,
        force: bool,
        params: &WriteParams,
    ) -> Result<Applied, ApiError> {
        let kind = &scope.kind;
        let applied = self.as_writer(kind, part, params, |writer| {
            apply::apply(kind.apply_schema(), live, config, managed, writer, force)
        });
        applied.map_err(|error| match error {
            ApplyError::Conflicts(conflicts) => ApiError::apply_conflict(&conflicts),
            // Kubernetes says 500 here, without a reason. It is the request that is wrong.
            ApplyError::Schema(errors) => ApiError::bad_request(format!(
                "failed to create typed patch object ({}/{name}; {}, Kind={}): {errors}",
                scope.namespace.as_deref().unwrap_or_default(),
                kind.api_version(),
                kind.kind
            )),
        })
    }
}

/// Reads a configuration, which must be of the object that the path names.
pub(super) fn read(kind: &Kind, scope: &Scope, name: &str, body: &[u8]) -> Result<Value, ApiError> {
    let bad = |e: &dyn std::fmt::Display| ApiError::bad_request(format!("error decoding YAML: {e}"));
    let text = std::str::from_utf8(body).map_err(|e| bad(&e))?;
    let mut documents = minik8s_api::manifest::load("the body", text).map_err(|e| bad(&e))?;
    let config = match (documents.pop(), documents.is_empty()) {
        (Some(one), true) => one.value,
        _ => return Err(bad(&"the body must hold one document")),
    };
    let given = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, expected) = (given("apiVersion"), kind.api_version());
    if version != expected {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {expected}"
        )));
    }
    if given("kind") != kind.kind {
        return Err(ApiError::bad_request(format!(
            "invalid object type: {version}, Kind={}, expected: {expected}, Kind={}",
            given("kind"),
            kind.kind
        )));
    }
    let metadata = |field: &str| config.get("metadata").and_then(|m| m.get(field));
    if metadata("managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    // A configuration of a status often leaves the name out: the path has it.
    let given = metadata("name").and_then(Value::as_str).filter(|n| !n.is_empty()).unwrap_or(name);
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let there = scope.namespace.as_deref();
    match metadata("namespace").and_then(Value::as_str).filter(|n| !n.is_empty()) {
        Some(given) if Some(given) != there => Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given} is not {})",
            there.unwrap_or_default()
        ))),
        _ => Ok(named(config, name)),
    }
}

/// The configuration, with its object's name in it.
fn named(mut config: Value, name: &str) -> Value {
    if let Some(fields) = config.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("name".to_owned(), name.into());
        }
    }
    config
}

#[cfg(test)]
mod tests;
