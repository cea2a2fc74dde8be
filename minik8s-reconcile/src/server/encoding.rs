//! Objects to storage values and back.

use minik8s_api::{DecodeError, Decoded, Kind, Object};

use crate::error::ApiError;
use crate::request::{FieldValidation, Payload};
use crate::storage::Draft;

/// The object as it is stored, lacking nothing but its revision.
pub(super) fn draft(kind: &Kind, object: &mut dyn Object) -> Result<Draft, ApiError> {
    object.metadata_mut().resource_version = Some(String::new());
    let json = kind.to_stored(object)?;
    let gap = gap(&json).expect("the resourceVersion was set above");
    Ok(Draft::new(json, gap))
}

/// Where `metadata.resourceVersion`'s (empty) text begins in compact JSON.
fn gap(json: &[u8]) -> Option<usize> {
    let mut depth = 0;
    let mut key: &[u8] = b"";
    let mut in_metadata = false;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                in_metadata |= depth == 2 && key == b"metadata";
            }
            b'}' | b']' => {
                in_metadata &= depth != 2;
                depth -= 1;
            }
            b'"' => {
                let end = string_end(json, at + 1)?;
                let text = &json[at + 1..end];
                at = end;
                if json.get(at + 1) == Some(&b':') {
                    if depth == 1 {
                        key = text;
                    } else if depth == 2 && in_metadata && text == b"resourceVersion" {
                        return Some(at + 3);
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The offset of the quote that ends the string whose text begins at `at`.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
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
            checked(kind, kind.decode(&json), validation, warnings)
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
    if !decoded.unknown.is_empty() {
        let words = decoded.unknown.iter().map(|path| format!("unknown field \"{path}\""));
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => warnings.extend(words),
            FieldValidation::Strict => {
                let list: Vec<_> = words.collect();
                return Err(ApiError::bad_request(format!(
                    "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                    kind.kind,
                    kind.version,
                    kind.kind,
                    list.join(", ")
                )));
            }
        }
    }
    Ok(decoded.object)
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

#[cfg(test)]
mod tests {
    use super::gap;

    #[test]
    fn the_gap_is_in_the_objects_own_metadata() {
        let json = br#"{"involvedObject":{"resourceVersion":""},"metadata":{"annotations":{"resourceVersion":"","a":"\"metadata\":{"},"resourceVersion":""},"spec":{}}"#;
        let at = gap(json).expect("there is one");
        assert!(
            json[..at].ends_with(br#"{"},"resourceVersion":""#),
            "{}",
            String::from_utf8_lossy(&json[..at])
        );
        assert_eq!(gap(br#"{"metadata":{"name":"a"}}"#), None);
    }
}
