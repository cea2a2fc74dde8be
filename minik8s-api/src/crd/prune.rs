//! Dropping what a schema does not know.

use serde_json::{Map, Value};

use super::schema::{Additional, Schema};

/// What every object of the API may have, whatever its schema says.
const TYPE_META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Drops the fields of an object of the API that the schema does not know, but for its kind and metadata. Their
    /// paths go into `unknown`.
    pub fn prune(&self, fields: &mut Map<String, Value>, unknown: &mut Vec<String>) {
        self.prune_map(fields, true, &Path::Root, unknown);
    }

    fn prune_value(&self, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
        match value {
            Value::Object(map) => self.prune_map(map, self.embedded, path, unknown),
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (i, item) in list.iter_mut().enumerate() {
                    items.prune_value(item, &Path::Index(path, i), unknown);
                }
            }
            _ => {}
        }
    }

    fn prune_map(
        &self,
        map: &mut Map<String, Value>,
        resource: bool,
        path: &Path<'_>,
        unknown: &mut Vec<String>,
    ) {
        map.retain(|name, value| {
            let known = match (self.properties.get(name), &self.additional) {
                // Metadata is typed, and has been read by its type.
                _ if resource && TYPE_META.contains(&name.as_str()) => return true,
                (Some(below), _) => Some(below),
                (None, Some(Additional::Schema(below))) => Some(&**below),
                (None, Some(Additional::Any)) => return true,
                (None, None) => None,
            };
            match known {
                Some(below) => below.prune_value(value, &Path::Field(path, name), unknown),
                None if self.preserve => return true,
                None => {
                    unknown.push(Path::Field(path, name).text());
                    return false;
                }
            }
            true
        });
    }
}

/// The way to a value, written out only when something is wrong there.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Field(Path::Root, name) => (*name).to_owned(),
            Self::Field(above, name) => format!("{}.{name}", above.text()),
            Self::Index(above, i) => format!("{}[{i}]", above.text()),
        }
    }
}
