//! Types whose JSON is not an object of their fields.

use jiff::Timestamp;

use super::wire::{self, Value};
use super::{ProtobufError, Table, envelope, object, quoted};

/// The message of a JSON schema, which some of these types hold.
const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// `Time`: seconds; nothing at all for no time.
    Time,
    /// `MicroTime`: seconds and nanoseconds.
    MicroTime,
    /// `RawExtension`, `FieldsV1`, the `JSON` of schemas: bytes that are JSON.
    Raw,
    /// A text in a message.
    Quantity,
    /// One of two, and which.
    IntOrString,
    /// `Verbs`, `ExtraValue`: a list of texts in a message, since maps hold no lists.
    Strings,
    /// `JSONSchemaPropsOrArray`
    SchemaOrArray,
    /// `JSONSchemaPropsOrBool`
    SchemaOrBool,
    /// `JSONSchemaPropsOrStringArray`
    SchemaOrStrings,
}

impl Special {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Time" => Self::Time,
            "MicroTime" => Self::MicroTime,
            "Raw" => Self::Raw,
            "Quantity" => Self::Quantity,
            "IntOrString" => Self::IntOrString,
            "Strings" => Self::Strings,
            "SchemaOrArray" => Self::SchemaOrArray,
            "SchemaOrBool" => Self::SchemaOrBool,
            "SchemaOrStrings" => Self::SchemaOrStrings,
            _ => return None,
        })
    }

    pub(super) fn write(self, out: &mut Vec<u8>, bytes: &[u8], depth: usize) -> Result<(), ProtobufError> {
        match self {
            Self::Time | Self::MicroTime => self.time(out, bytes),
            Self::Raw => match last_bytes(bytes, 1)? {
                [] => {
                    out.extend_from_slice(b"null");
                    Ok(())
                }
                raw if raw.starts_with(super::MAGIC) && depth < super::DEPTH => envelope(out, raw, depth + 1),
                raw => raw_json(out, raw, depth),
            },
            Self::Quantity => {
                let text = wire::text(last_bytes(bytes, 1)?)?;
                quoted(out, if text.is_empty() { "0" } else { text });
                Ok(())
            }
            Self::IntOrString => match last_number(bytes, 1)? {
                0 => {
                    let number = last_number(bytes, 2)?.cast_signed();
                    out.extend_from_slice(number.to_string().as_bytes());
                    Ok(())
                }
                _ => {
                    quoted(out, wire::text(last_bytes(bytes, 3)?)?);
                    Ok(())
                }
            },
            Self::Strings => strings(out, bytes, 1),
            Self::SchemaOrArray => match every(bytes, 2)?.as_slice() {
                [] => schema(out, last_bytes(bytes, 1)?, depth),
                schemas => {
                    out.push(b'[');
                    for (index, one) in schemas.iter().enumerate() {
                        if index > 0 {
                            out.push(b',');
                        }
                        schema(out, one, depth)?;
                    }
                    out.push(b']');
                    Ok(())
                }
            },
            Self::SchemaOrBool => match every(bytes, 2)?.last() {
                Some(one) => schema(out, one, depth),
                None => {
                    out.extend_from_slice(if last_number(bytes, 1)? == 0 { b"false" } else { b"true" });
                    Ok(())
                }
            },
            Self::SchemaOrStrings => match every(bytes, 1)?.last() {
                Some(one) => schema(out, one, depth),
                None => strings(out, bytes, 2),
            },
        }
    }

    fn time(self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ProtobufError> {
        if bytes.is_empty() {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        let seconds = last_number(bytes, 1)?.cast_signed();
        let nanoseconds = match self {
            Self::MicroTime => i32::try_from(last_number(bytes, 2)?.cast_signed()).unwrap_or(i32::MAX),
            _ => 0,
        };
        let time = Timestamp::new(seconds, nanoseconds)
            .map_err(|_| ProtobufError::Malformed("a time is out of range"))?;
        quoted(out, &time.to_string());
        Ok(())
    }
}

fn schema(out: &mut Vec<u8>, bytes: &[u8], depth: usize) -> Result<(), ProtobufError> {
    object(out, Table::get().named(SCHEMA).expect("the table has schemas"), bytes, depth + 1)
}

fn strings(out: &mut Vec<u8>, bytes: &[u8], number: u32) -> Result<(), ProtobufError> {
    out.push(b'[');
    for (index, text) in every(bytes, number)?.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        quoted(out, wire::text(text)?);
    }
    out.push(b']');
    Ok(())
}

/// Writes bytes that must be JSON.
pub(super) fn raw_json(out: &mut Vec<u8>, raw: &[u8], around: usize) -> Result<(), ProtobufError> {
    // What is skipped over by a parser is not looked at: neither its encoding nor how deep it is.
    let value: serde_json::Value =
        serde_json::from_slice(raw).map_err(|_| ProtobufError::Malformed("what should be JSON is none"))?;
    if around + crate::unstructured::depth(&value) > super::READABLE {
        return Err(ProtobufError::Depth);
    }
    out.extend_from_slice(raw);
    Ok(())
}

fn every(bytes: &[u8], number: u32) -> Result<Vec<&[u8]>, ProtobufError> {
    let mut found = Vec::new();
    for field in wire::fields(bytes) {
        match field? {
            (n, Value::Bytes(bytes)) if n == number => found.push(bytes),
            _ => {}
        }
    }
    Ok(found)
}

fn last_bytes(bytes: &[u8], number: u32) -> Result<&[u8], ProtobufError> {
    Ok(every(bytes, number)?.pop().unwrap_or_default())
}

fn last_number(bytes: &[u8], number: u32) -> Result<u64, ProtobufError> {
    let mut found = 0;
    for field in wire::fields(bytes) {
        match field? {
            (n, Value::Varint(value)) if n == number => found = value,
            _ => {}
        }
    }
    Ok(found)
}
