//! The schema that clients get to see.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Map, Value, json};

/// The schema of a kind as JSON, for OpenAPI documents.
pub(super) fn schema(props: &JSONSchemaProps, kind: &str) -> Value {
    let mut schema =
        serde_json::to_value(props).expect("schemas have string keys and no failing serializers");
    complete(&mut schema);
    if let Value::Object(fields) = &mut schema {
        fields.insert("title".to_owned(), kind.into());
        // It is typed, whatever the definition says.
        if let Some(Value::Object(properties)) = fields.get_mut("properties") {
            properties.remove("metadata");
        }
    }
    schema
}

/// Describes the metadata of embedded objects, and drops what only servers need.
fn complete(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.remove("x-kubernetes-validations");
    if fields.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        let properties = fields.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(properties) = properties {
            for (name, schema) in [
                ("apiVersion", json!({"type": "string"})),
                ("kind", json!({"type": "string"})),
                ("metadata", json!({"$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"})),
            ] {
                properties.insert(name.to_owned(), schema);
            }
        }
    }
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("properties", Value::Object(below)) => below.values_mut().for_each(complete),
            ("items" | "additionalProperties" | "not", value) => complete(value),
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => list.iter_mut().for_each(complete),
            _ => {}
        }
    }
}
