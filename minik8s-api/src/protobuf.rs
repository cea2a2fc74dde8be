//! Request bodies in Kubernetes' protobuf encoding, turned into JSON.
//!
//! Newer `kubectl`s and Go's typed clients send `application/vnd.kubernetes.protobuf`. One interpreter walks such a
//! message along a table of field numbers and writes the JSON that the same object would have been sent as; what
//! follows (decoding, unknown fields, defaults) is the same for both. Structs of its own for each message would be
//! megabytes of code for what a table of 66 KB says.

mod special;
mod table;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use table::{Field, Message, Shape, Table, Type};
use wire::Value;

/// The media type of these bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest: what comes out must be read by a JSON parser that goes no deeper than 128.
const DEPTH: usize = 100;
/// How deep what comes out may nest with the JSON that messages hold.
const READABLE: usize = 120;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtobufError {
    /// It is not of this encoding at all.
    #[error("the body does not begin as protobuf of Kubernetes does")]
    Magic,
    /// It ends early, or a field is not what it says.
    #[error("the protobuf message is malformed: {0}")]
    Malformed(&'static str),
    /// A field of the message has another type than it should.
    #[error("{field}: {why}")]
    Field {
        /// The field's JSON name.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It nests too deeply.
    #[error("the message nests more than {DEPTH} levels deep")]
    Depth,
    /// The kind has no protobuf encoding.
    #[error("no kind \"{kind}\" is known in protobuf for version \"{api_version}\"")]
    UnknownKind {
        /// What the body says its apiVersion is.
        api_version: String,
        /// What the body says its kind is.
        kind: String,
    },
}

/// The JSON of an object that came as protobuf: its fields with `apiVersion` and `kind`. Fields that are not known are
/// left out, as protobuf has it.
///
/// ```
/// // A ConfigMap named "a", as kubectl would send it.
/// let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01a";
/// let json = minik8s_api::protobuf::to_json(body).unwrap();
/// assert_eq!(json, br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#);
/// ```
///
/// # Errors
/// The body is malformed, or of a kind that has no protobuf encoding.
pub fn to_json(body: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::with_capacity(body.len() * 2);
    envelope(&mut out, body, 0)?;
    Ok(out)
}

/// Writes the object in a `k8s.io/apimachinery/pkg/runtime.Unknown`.
fn envelope(out: &mut Vec<u8>, body: &[u8], depth: usize) -> Result<(), ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut content_type = "";
    for field in wire::fields(unknown) {
        match field? {
            (1, Value::Bytes(types)) => {
                for field in wire::fields(types) {
                    match field? {
                        (1, Value::Bytes(text)) => api_version = wire::text(text)?.to_owned(),
                        (2, Value::Bytes(text)) => kind = wire::text(text)?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Value::Bytes(bytes)) => raw = bytes,
            (3, Value::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(ProtobufError::Malformed("its content has an encoding of its own"));
            }
            (4, Value::Bytes(text)) => content_type = wire::text(text)?,
            _ => {}
        }
    }
    if content_type == "application/json" {
        return special::raw_json(out, raw, depth);
    }
    let Some(message) = Table::get().root(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    out.extend_from_slice(b"{\"apiVersion\":");
    quoted(out, &api_version);
    out.extend_from_slice(b",\"kind\":");
    quoted(out, &kind);
    members(out, message, raw, depth, &mut false)?;
    out.push(b'}');
    Ok(())
}

/// Writes a message as a JSON object.
fn object(out: &mut Vec<u8>, message: &Message, bytes: &[u8], depth: usize) -> Result<(), ProtobufError> {
    out.push(b'{');
    members(out, message, bytes, depth, &mut true)?;
    out.push(b'}');
    Ok(())
}

/// Writes a message's fields as members of a JSON object, of which they are the `first` or not.
fn members(
    out: &mut Vec<u8>,
    message: &Message,
    bytes: &[u8],
    depth: usize,
    first: &mut bool,
) -> Result<(), ProtobufError> {
    if depth >= DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut values = wire::fields(bytes).collect::<Result<Vec<_>, _>>()?;
    // Stable: the values of a repeated field keep their order.
    values.sort_by_key(|(number, _)| *number);
    for field in &message.fields {
        let start = values.partition_point(|(number, _)| *number < field.number);
        let count = values[start..].iter().take_while(|(number, _)| *number == field.number).count();
        let values = &values[start..start + count];
        let Some((_, last)) = values.last() else { continue };
        if field.inline {
            let Type::Message(inner) = field.type_ else { continue };
            members(out, Table::get().message(inner), &merged(field, values)?, depth + 1, first)?;
            continue;
        }
        if field.shape == Shape::One && field.zero_is_unset && last.is_zero() {
            continue;
        }
        if !std::mem::take(first) {
            out.push(b',');
        }
        quoted(out, field.name);
        out.push(b':');
        match field.shape {
            Shape::One if field.type_.is_scalar() => value(out, field, *last, depth)?,
            Shape::One => value(out, field, Value::Bytes(&merged(field, values)?), depth)?,
            Shape::Repeated => list(out, field, values, depth)?,
            Shape::Map => map(out, field, values, depth)?,
        }
    }
    Ok(())
}

fn wrong(field: &Field, why: &'static str) -> ProtobufError {
    ProtobufError::Field { field: field.name, why }
}

type Values<'a> = [(u32, Value<'a>)];

fn list(out: &mut Vec<u8>, field: &Field, values: &Values<'_>, depth: usize) -> Result<(), ProtobufError> {
    out.push(b'[');
    let mut first = true;
    let mut item = |out: &mut Vec<u8>, item| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        value(out, field, item, depth)
    };
    for &(_, one) in values {
        match one {
            // Numbers may come packed.
            Value::Bytes(mut packed) if matches!(field.type_, Type::Int | Type::Bool) => {
                while !packed.is_empty() {
                    item(out, Value::Varint(wire::varint(&mut packed)?))?;
                }
            }
            one => item(out, one)?,
        }
    }
    out.push(b']');
    Ok(())
}

fn map(out: &mut Vec<u8>, field: &Field, entries: &Values<'_>, depth: usize) -> Result<(), ProtobufError> {
    // Of two entries of one key the later counts.
    let mut sorted = BTreeMap::new();
    for (_, entry) in entries {
        let Value::Bytes(entry) = entry else { return Err(wrong(field, "must be a map")) };
        let (mut key, mut value) = ("", Value::Bytes(&[]));
        for part in wire::fields(entry) {
            match part? {
                (1, Value::Bytes(text)) => key = wire::text(text)?,
                (2, present) => value = present,
                _ => {}
            }
        }
        sorted.insert(key, value);
    }
    out.push(b'{');
    for (index, (key, entry)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        quoted(out, key);
        out.push(b':');
        value(out, field, entry, depth)?;
    }
    out.push(b'}');
    Ok(())
}

/// Writes one value of the field's type.
fn value(out: &mut Vec<u8>, field: &Field, value: Value<'_>, depth: usize) -> Result<(), ProtobufError> {
    match (field.type_, value) {
        (Type::String, Value::Bytes(text)) => quoted(out, wire::text(text)?),
        (Type::Bool, Value::Varint(n)) => out.extend_from_slice(if n == 0 { b"false" } else { b"true" }),
        // Negative numbers of 32 bits are sent with 64, sign and all.
        (Type::Int, Value::Varint(n)) => out.extend_from_slice(n.cast_signed().to_string().as_bytes()),
        (Type::Double, Value::Fixed64(bits)) => {
            let number = f64::from_bits(bits);
            if !number.is_finite() {
                return Err(wrong(field, "must be a finite number"));
            }
            serde_json::to_writer(out, &number).expect("a number into a vector");
        }
        (Type::Bytes, Value::Bytes(bytes)) => quoted(out, &BASE64_STANDARD.encode(bytes)),
        (Type::Special(special), Value::Bytes(bytes)) => special.write(out, bytes, depth + 1)?,
        (Type::Message(index), Value::Bytes(bytes)) => {
            object(out, Table::get().message(index), bytes, depth + 1)?;
        }
        _ => return Err(wrong(field, "has another type on the wire")),
    }
    Ok(())
}

/// A message that came in pieces, which are to be read as one.
fn merged<'a>(field: &Field, values: &Values<'a>) -> Result<Cow<'a, [u8]>, ProtobufError> {
    let piece = |value: &Value<'a>| match value {
        Value::Bytes(bytes) => Ok(*bytes),
        _ => Err(wrong(field, "must be a message")),
    };
    match values {
        [(_, one)] => piece(one).map(Into::into),
        many => {
            let mut whole = Vec::new();
            for (_, value) in many {
                whole.extend_from_slice(piece(value)?);
            }
            Ok(whole.into())
        }
    }
}

/// Writes a JSON string.
fn quoted(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string into a vector");
}

#[cfg(test)]
mod tests;
