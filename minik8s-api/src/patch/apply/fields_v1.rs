//! `FieldsV1`, the JSON form of a set of fields.
//!
//! Each step is a key, what is below it its value. A step that ends a path has the key `.` in its value, or nothing.

use serde_json::Value;

use super::field_set::FieldSet;
use super::path::{BadPathElement, PathElement};

impl FieldSet {
    /// Reads the JSON form. Steps of a form that is not known are passed over, with what is below them.
    ///
    /// # Errors
    /// A key is not well-formed.
    pub fn from_fields_v1(json: &Value) -> Result<Self, BadPathElement> {
        let mut set = Self::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            if key == "." {
                continue;
            }
            let Some(element) = PathElement::parse(key)? else { continue };
            let below = Self::from_fields_v1(value)?;
            let member = below.is_empty() || value.get(".").is_some();
            set.push(element, member, below);
        }
        Ok(set)
    }

    /// The JSON form, as text.
    pub fn to_fields_v1(&self) -> String {
        let mut out = Writer { json: String::with_capacity(32 * self.len()), key: String::new() };
        out.set(self, false);
        out.json
    }
}

struct Writer {
    json: String,
    /// Kept for its memory.
    key: String,
}

impl Writer {
    fn set(&mut self, set: &FieldSet, member: bool) {
        self.json.push('{');
        let mut comma = "";
        if member && !set.is_empty() {
            self.json.push_str("\".\":{}");
            comma = ",";
        }
        for node in set.nodes() {
            self.json.push_str(comma);
            comma = ",";
            self.key.clear();
            node.element.write(&mut self.key);
            self.quoted();
            self.json.push(':');
            self.set(&node.below, node.member);
        }
        self.json.push('}');
    }

    /// The key as a JSON string.
    fn quoted(&mut self) {
        self.json.push('"');
        if self.key.bytes().any(|b| b == b'"' || b == b'\\' || b < b' ') {
            let quoted = Value::from(self.key.as_str()).to_string();
            self.json.push_str(&quoted[1..quoted.len() - 1]);
        } else {
            self.json.push_str(&self.key);
        }
        self.json.push('"');
    }
}
