//! Filling in what was left out.

use serde_json::{Map, Value};

use super::schema::{Additional, Schema};

impl Schema {
    /// Fills in defaults. A null where the schema does not allow one stands for a value that was left out, and goes.
    pub fn fill(&self, fields: &mut Map<String, Value>) {
        self.default_map(fields);
    }

    fn default_value(&self, value: &mut Value) {
        match value {
            Value::Object(map) => self.default_map(map),
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                list.iter_mut().for_each(|item| items.default_value(item));
            }
            _ => {}
        }
    }

    fn default_map(&self, map: &mut Map<String, Value>) {
        for (name, below) in &self.properties {
            let absent = match map.get(name) {
                None => true,
                Some(value) => value.is_null() && below.refuses_null(),
            };
            match &below.default {
                Some(default) if absent => {
                    map.insert(name.clone(), default.clone());
                }
                _ if absent => {
                    map.remove(name);
                }
                _ => {}
            }
            if let Some(value) = map.get_mut(name) {
                below.default_value(value);
            }
        }
        let Some(Additional::Schema(below)) = &self.additional else { return };
        map.retain(|name, value| {
            if self.properties.contains_key(name) {
                return true;
            }
            if value.is_null() && below.refuses_null() {
                match &below.default {
                    Some(default) => value.clone_from(default),
                    None => return false,
                }
            }
            below.default_value(value);
            true
        });
    }

    /// Whether a null is no value of this. A schema that says nothing of a value's type takes any.
    fn refuses_null(&self) -> bool {
        !self.nullable && (self.type_.is_some() || self.int_or_string)
    }
}
