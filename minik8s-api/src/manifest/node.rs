//! Reading one document into a JSON tree, with limits.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The deepest nesting.
const MAX_DEPTH: usize = 100;
/// The most that a manifest may grow to when its aliases are written out: 16 MiB, each node counting a byte and its
/// text.
const MAX_EXPANDED: usize = 16 * 1024 * 1024;

/// What is left of [`MAX_EXPANDED`].
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_EXPANDED)
    }
}

/// Reads a value within a budget. Maps may not hold a key twice; a key `<<` merges.
pub(super) struct Node<'b> {
    budget: &'b mut Budget,
    depth: usize,
}

impl<'b> Node<'b> {
    pub(super) fn new(budget: &'b mut Budget) -> Self {
        Self { budget, depth: 0 }
    }

    fn below(&mut self) -> Node<'_> {
        Node { budget: &mut *self.budget, depth: self.depth + 1 }
    }

    fn spend<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format!("it is nested more than {MAX_DEPTH} deep")));
        }
        match self.budget.0.checked_sub(1 + bytes) {
            Some(left) => self.budget.0 = left,
            None => {
                let message = format!("its aliases make it larger than {MAX_EXPANDED} bytes");
                return Err(E::custom(message));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E: Error>(mut self) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<Value, E> {
        self.spend(0)?;
        Ok(value.into())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<Value, E> {
        self.spend(0)?;
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom(format!("{value} is no number of JSON")))
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.below())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut fields = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = map.next_key_seed(self.below())? {
            let key = match key {
                Value::String(key) => key,
                // `80: x` and `true: x` are the keys "80" and "true".
                Value::Number(_) | Value::Bool(_) | Value::Null => key.to_string(),
                Value::Array(_) | Value::Object(_) => return Err(A::Error::custom("a key must be a text")),
            };
            let value = map.next_value_seed(self.below())?;
            if key == "<<" {
                merged.push(value);
            } else if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` stands here twice")));
            } else {
                fields.insert(key, value);
            }
        }
        for value in merged {
            merge(&mut fields, value)?;
        }
        Ok(Value::Object(fields))
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("tags such as `!name` mean nothing here"))
    }
}

/// Adds what `<<` brings in, unless it stands there already.
fn merge<E: Error>(fields: &mut Map<String, Value>, value: Value) -> Result<(), E> {
    match value {
        Value::Object(more) => {
            for (key, value) in more {
                fields.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(list) => list.into_iter().try_for_each(|value| merge(fields, value)),
        _ => Err(E::custom("`<<` takes a map or a list of maps")),
    }
}
