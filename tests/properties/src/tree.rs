//! Measures of JSON trees.

use serde_json::Value;

/// The deepest tree that JSON parsers read.
pub(crate) const DEEPEST: usize = 127;

/// How many levels of objects and lists there are.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The bytes of its text.
pub(crate) fn size(value: &Value) -> usize {
    value.to_string().len()
}

/// The JSON documents on the lines of `data`, of which there must be `N`.
pub(crate) fn lines<const N: usize>(data: &[u8]) -> Option<[Value; N]> {
    let mut lines = data.splitn(N, |b| *b == b'\n');
    let mut out = [const { Value::Null }; N];
    for value in &mut out {
        *value = serde_json::from_slice(lines.next()?).ok()?;
    }
    Some(out)
}
