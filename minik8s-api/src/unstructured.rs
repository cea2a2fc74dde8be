//! Objects whose kind has no Rust type here: instances of custom resource definitions.

use std::any::Any;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::object::{DecodeError, Object};

/// An object as its kind, its metadata and a tree of everything else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unstructured {
    /// The group and version, such as `example.dev/v1`.
    pub api_version: String,
    /// The kind in CamelCase.
    pub kind: String,
    /// The metadata.
    pub metadata: ObjectMeta,
    /// The other fields at the top, such as `spec` and `status`.
    pub fields: Map<String, Value>,
}

impl Unstructured {
    /// Reads an object from JSON text. `unknown` gets the paths of fields of the metadata that do not exist.
    ///
    /// # Errors
    /// The text is no JSON object, or its metadata has a field of the wrong type.
    pub fn read(json: &[u8], unknown: &mut Vec<String>) -> Result<Self, DecodeError> {
        let value: Value = serde_json::from_slice(json).map_err(|e| DecodeError::new("", e.to_string()))?;
        Self::from_value(value, unknown)
    }

    /// Reads an object from a JSON tree, as [`Self::read`] does from text.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn from_value(value: Value, unknown: &mut Vec<String>) -> Result<Self, DecodeError> {
        let Value::Object(mut fields) = value else {
            return Err(DecodeError::new("", "the document is no object"));
        };
        let mut text = |name: &str| match fields.remove(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(DecodeError::new(name, format!("expected a string, found {other}"))),
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        let metadata = match fields.remove("metadata") {
            None | Some(Value::Null) => ObjectMeta::default(),
            Some(value) => metadata(&value, unknown)?,
        };
        Ok(Self { api_version, kind, metadata, fields })
    }

    /// Refuses an object that is nested too deeply to be kept: what is written about its fields is nested as deeply,
    /// inside the object, and has to be read again.
    ///
    /// # Errors
    /// It is nested more than 100 levels deep; the error names the field.
    pub fn check_depth(&self) -> Result<(), DecodeError> {
        const LIMIT: usize = 100;
        match self.fields.iter().find(|(_, value)| depth(value) > LIMIT) {
            Some((name, _)) => Err(DecodeError::new(name, format!("nested more than {LIMIT} levels deep"))),
            None => Ok(()),
        }
    }

    /// The object as a tree, without a copy.
    pub fn into_value(self) -> Value {
        let mut fields = self.fields;
        fields.insert("apiVersion".to_owned(), self.api_version.into());
        fields.insert("kind".to_owned(), self.kind.into());
        fields.insert("metadata".to_owned(), tree(&self.metadata));
        Value::Object(fields)
    }
}

fn metadata(value: &Value, unknown: &mut Vec<String>) -> Result<ObjectMeta, DecodeError> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.push(format!("metadata.{}", crate::object::dotted(&path)));
    };
    let note: &mut dyn FnMut(serde_ignored::Path<'_>) = &mut note;
    serde_ignored::deserialize(tracked, note)
        .map_err(|e: serde_json::Error| DecodeError::new(format!("metadata.{}", track.path()), e.to_string()))
}

fn tree(metadata: &ObjectMeta) -> Value {
    serde_json::to_value(metadata).expect("metadata has string keys and no failing serializers")
}

impl Serialize for Unstructured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len() + 3))?;
        map.serialize_entry("apiVersion", &self.api_version)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("metadata", &self.metadata)?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Object for Unstructured {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("trees have string keys and no failing serializers")
    }

    fn to_value(&self) -> Value {
        self.clone().into_value()
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

impl dyn Object {
    /// The object as a tree of fields, if that is what it is.
    pub fn as_unstructured(&self) -> Option<&Unstructured> {
        (self as &dyn Any).downcast_ref()
    }

    /// The object as a tree of fields to change, if that is what it is.
    pub fn as_unstructured_mut(&mut self) -> Option<&mut Unstructured> {
        (self as &mut dyn Any).downcast_mut()
    }
}

/// How many levels of objects and lists there are.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        let nested = |levels: usize| {
            let text =
                format!(r#"{{"kind":"A","spec":{}1{}}}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels));
            Unstructured::read(text.as_bytes(), &mut Vec::new()).unwrap().check_depth()
        };
        nested(100).unwrap();
        assert_eq!(nested(101).unwrap_err().path(), "spec");
    }

    #[test]
    fn what_is_read_is_written() {
        let text =
            br#"{"apiVersion":"example.dev/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"n":1}}"#;
        let mut unknown = Vec::new();
        let object = Unstructured::read(text, &mut unknown).unwrap();
        assert_eq!(object.to_json(), text);
        assert_eq!(object.to_value(), serde_json::from_slice::<Value>(text).unwrap());
        assert_eq!(unknown, Vec::<String>::new());
    }

    #[test]
    fn metadata_is_typed() {
        let mut unknown = Vec::new();
        let read = |value: Value, unknown: &mut Vec<String>| Unstructured::from_value(value, unknown);
        let odd = json!({"metadata": {"name": "a", "nome": "b", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "colour": "red"},
        ]}});
        assert_eq!(read(odd, &mut unknown).unwrap().metadata.name.as_deref(), Some("a"));
        assert_eq!(unknown, ["metadata.nome", "metadata.ownerReferences[0].colour"]);
        let error = read(json!({"metadata": {"labels": {"a": 1}}}), &mut unknown).unwrap_err();
        assert_eq!(error.path(), "metadata.labels.a");
        assert_eq!(read(json!({"kind": 1}), &mut unknown).unwrap_err().path(), "kind");
        assert!(read(json!([]), &mut unknown).is_err());
    }
}
