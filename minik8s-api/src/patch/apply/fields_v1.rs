//! `FieldsV1`, the JSON form of a set of fields.
//!
//! Each step is a key, what is below it its value. A step that ends a path has the key `.` in its value, or nothing.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::field_set::FieldSet;
use super::path::PathElement;

impl<'de> Deserialize<'de> for FieldSet {
    /// Reads the JSON form. Steps of a form that is not known are passed over, with what is below them.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Below::deserialize(deserializer).map(|below| below.fields)
    }
}

/// The value of a key.
struct Below {
    /// Whether it has the key `.`.
    member: bool,
    fields: FieldSet,
}

impl<'de> Deserialize<'de> for Below {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = Below;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a set of fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Below, A::Error> {
                let mut below = Below { member: false, fields: FieldSet::new() };
                while let Some(Key(key)) = map.next_key()? {
                    if key == "." {
                        map.next_value::<IgnoredAny>()?;
                        below.member = true;
                        continue;
                    }
                    let Some(element) = PathElement::parse(&key).map_err(A::Error::custom)? else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let Below { member, fields } = map.next_value()?;
                    below.fields.push(element, member || fields.is_empty(), fields);
                }
                Ok(below)
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

/// Text that is borrowed where it can be.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl FieldSet {
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
