//! Who owns which field of the stored objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use minik8s_api::patch::apply::{self, ManagedFields, Writer};
use minik8s_api::{FieldErrors, FieldPath, Kind};
use serde_json::Value;

use super::ApiServer;
use super::part::Part;
use crate::error::ApiError;
use crate::request::WriteParams;
use crate::stored::Stored;

/// The most bytes of a manager's name.
const NAME_MAX: usize = 128;
/// The manager of writes whose author does not say who it is.
const NOBODY: &str = "unknown";

/// Checks the name of a manager; `options` is what Kubernetes calls the parameters that it is among.
pub(super) fn check_manager(options: &str, params: &WriteParams) -> Result<(), ApiError> {
    let (name, path) = (&params.field_manager, FieldPath::new("fieldManager"));
    let mut errors = FieldErrors::new();
    if name.len() > NAME_MAX {
        errors.too_long(path.clone(), NAME_MAX);
    }
    if name.chars().any(char::is_control) {
        errors.invalid(path, name, "should only contain printable characters");
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid_options(options, &errors)) }
}

/// Who owns what of a stored object. Nobody, if what is stored cannot be read.
pub(super) fn stored(stored: &Stored) -> ManagedFields {
    stored.managed_fields().and_then(|json| ManagedFields::from_json(json).ok()).unwrap_or_default()
}

/// Who owns what before a write, going by what the writer sends: it may change entries and, by an empty list or one empty
/// entry, drop all. A writer that sends none, or some that cannot be read, leaves them as they are.
pub(super) fn asked(sent: Option<&Value>, live: ManagedFields) -> ManagedFields {
    match sent {
        Some(Value::Array(list)) if list.is_empty() => ManagedFields::default(),
        Some(Value::Array(list)) if *list == [Value::Object(serde_json::Map::new())] => {
            ManagedFields::default()
        }
        Some(sent @ Value::Array(_)) => ManagedFields::from_json(sent.to_string().as_bytes()).unwrap_or(live),
        _ => live,
    }
}

/// As [`asked`], of a new object.
pub(super) fn asked_of_new(sent: Option<&[ManagedFieldsEntry]>) -> ManagedFields {
    let json = sent.and_then(|entries| serde_json::to_value(entries).ok());
    asked(json.as_ref(), ManagedFields::default())
}

impl ApiServer {
    /// Calls `f` with who writes that part of an object of `kind`.
    pub(super) fn as_writer<T>(
        &self,
        kind: &Kind,
        part: Part,
        params: &WriteParams,
        f: impl FnOnce(&Writer<'_>) -> T,
    ) -> T {
        let manager = Some(params.field_manager.as_str()).filter(|m| !m.is_empty()).unwrap_or(NOBODY);
        f(&Writer {
            manager,
            api_version: &kind.api_version(),
            subresource: part.name(),
            writes: &|field| part.covers(kind, field),
            now: self.clock.now(),
        })
    }

    /// Notes who owns what of a new object, whose maker owns all of it.
    pub(super) fn own_new(
        &self,
        kind: &Kind,
        new: &Value,
        managed: &mut ManagedFields,
        params: &WriteParams,
    ) {
        let schema = kind.apply_schema();
        self.as_writer(kind, Part::Main, params, |writer| {
            apply::update(schema, schema.zero(), new, managed, writer);
        });
    }
}
