//! Objects to storage values and back.

use minik8s_api::object::duplicates;
use minik8s_api::{DecodeError, Decoded, Kind, Object};

use crate::error::ApiError;
use crate::json_text;
use crate::request::{FieldValidation, Payload};
use crate::storage::Draft;

/// The object as it is stored, lacking nothing but its revision. `managed` is the JSON of its `managedFields`.
pub(super) fn draft(kind: &Kind, object: &mut dyn Object, managed: Option<&[u8]>) -> Result<Draft, ApiError> {
    strip(object);
    Ok(gapped(kind.to_stored(object)?, managed))
}

/// Takes out of an object what is put into its text later.
pub(super) fn strip(object: &mut dyn Object) {
    let metadata = object.metadata_mut();
    metadata.resource_version = Some(String::new());
    metadata.managed_fields = None;
}

/// The text of a stripped object, with its `managedFields` and a gap for its revision.
pub(super) fn gapped(mut json: Vec<u8>, managed: Option<&[u8]>) -> Draft {
    // Behind everything else of the metadata, and as text: trees of them are large.
    if let Some(managed) = managed.filter(|m| *m != b"[]") {
        let end = json_text::metadata_end(&json).expect("objects have metadata");
        const NAME: &[u8] = b",\"managedFields\":";
        json.splice(end..end, NAME.iter().chain(managed).copied());
    }
    let version = json_text::metadata_member(&json, "resourceVersion").expect("it was set above");
    Draft::new(json, version.start + 1)
}

/// Reads the object that a request brings; what it should not have goes into `warnings`, or fails, as the request
/// wants it.
pub(super) fn read(
    kind: &Kind,
    payload: Payload,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Box<dyn Object>, ApiError> {
    match payload {
        Payload::Typed(object) if kind.owns(&*object) => Ok(object),
        // A Rust type of a kind that is served by its definition.
        Payload::Typed(object) => {
            let json = object.to_json();
            check_type(kind, &json)?;
            checked(kind, kind.decode(&json), validation, warnings)
        }
        Payload::Json(json) => {
            check_type(kind, &json)?;
            let decoded = kind.decode(&json).map_err(|e| malformed(kind, &e))?;
            if validation != FieldValidation::Ignore {
                let twice = duplicates(&json).into_iter().map(|path| format!("duplicate field \"{path}\""));
                let unknown = decoded.unknown.iter().map(|path| format!("unknown field \"{path}\""));
                complain(kind, twice.chain(unknown).collect(), validation, warnings)?;
            }
            Ok(decoded.object)
        }
    }
}

/// What reading an object comes to, in the terms of the API.
pub(super) fn checked(
    kind: &Kind,
    decoded: Result<Decoded, DecodeError>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Box<dyn Object>, ApiError> {
    let decoded = decoded.map_err(|e| malformed(kind, &e))?;
    let unknown = decoded.unknown.iter().map(|path| format!("unknown field \"{path}\""));
    complain(kind, unknown.collect(), validation, warnings)?;
    Ok(decoded.object)
}

/// Says what is odd about an object as the request wants it said.
fn complain(
    kind: &Kind,
    complaints: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    match validation {
        FieldValidation::Strict if !complaints.is_empty() => Err(ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            kind.kind,
            kind.version,
            kind.kind,
            complaints.join(", ")
        ))),
        FieldValidation::Warn => {
            warnings.extend(complaints);
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}

fn malformed(kind: &Kind, error: &DecodeError) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {error}",
        kind.kind, kind.version, kind.kind
    ))
}

/// A body that says what it is must be what the path says.
fn check_type(kind: &Kind, json: &[u8]) -> Result<(), ApiError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Header {
        api_version: Option<String>,
        kind: Option<String>,
    }
    let header: Header =
        serde_json::from_slice(json).map_err(|e| malformed(kind, &DecodeError::new("", e.to_string())))?;
    if let Some(found) = header.kind.filter(|k| *k != kind.kind) {
        return Err(ApiError::bad_request(format!(
            "the object provided is a {found}, but this path takes a {}",
            kind.kind
        )));
    }
    let expected = kind.api_version();
    if let Some(found) = header.api_version.filter(|v| *v != expected) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({expected})"
        )));
    }
    Ok(())
}
