//! The schemas of the kinds and of all that they are made of, under the names that Kubernetes gives them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use serde_json::{Map, Value, json};

use super::{GVK, Version};
use crate::kind::Kind;
use crate::patch::apply::list_types::{self, ListType};
use crate::patch::merge_keys;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// The definitions of some kinds and of what they are made of.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// By name, as schemars writes them but for references, which hold nothing but the name.
    schemas: BTreeMap<String, Value>,
    /// The names of the kinds' own definitions by group, version and kind.
    names: BTreeMap<(String, String, String), String>,
}

impl Definitions {
    /// The definitions of `kinds` and of what every API needs. Kinds without a schema are objects of any fields.
    pub(super) fn of<'a>(kinds: impl Iterator<Item = &'a Arc<Kind>>) -> Self {
        let mut all = Self::default();
        for schema in [schema_of::<ListMeta>(), schema_of::<ObjectMeta>(), schema_of::<Status>()] {
            all.add(schema, META);
        }
        all.add(schema_of::<DeleteOptions>(), META);
        for kind in kinds {
            let schema = kind.schema();
            let name = name(kind, schema.as_ref());
            match schema {
                Some(schema) => all.add(schema, name.rsplit_once('.').map_or("", |(package, _)| package)),
                None => drop(all.schemas.insert(name.clone(), json!({"type": "object"}))),
            }
            all.complete(kind, &name);
            all.schemas.insert(format!("{name}List"), list(kind, &name));
            all.names.insert(key(kind), name);
        }
        all
    }

    /// The name of the definition of a kind that is among these.
    pub(super) fn name(&self, kind: &Kind) -> &str {
        &self.names[&key(kind)]
    }

    /// All schemas in the form of one version.
    pub(super) fn written(&self, version: Version) -> Map<String, Value> {
        self.schemas.iter().map(|(name, schema)| (name.clone(), write(schema, version))).collect()
    }

    /// Adds a schema and the definitions below it. Names without dots are those of the types of custom resources,
    /// and get the package of their kind.
    fn add(&mut self, mut root: Value, package: &str) {
        let qualify = |name: &str| match name.contains('.') {
            true => name.to_owned(),
            false => format!("{package}.{name}"),
        };
        let Some(fields) = root.as_object_mut() else {
            return;
        };
        let nested = fields.remove("$defs");
        let title = fields.get("title").and_then(Value::as_str).map(qualify);
        let nested = match nested {
            Some(Value::Object(nested)) => nested,
            _ => Map::new(),
        };
        let nested = nested.into_iter().map(|(name, schema)| (qualify(&name), schema));
        for (name, schema) in nested.chain(title.map(|name| (name, root))) {
            if let Entry::Vacant(place) = self.schemas.entry(name) {
                let schema = published(neutral(schema, &qualify), place.key());
                place.insert(schema);
            }
        }
    }

    /// Adds to the schema of a kind what belongs to every kind.
    fn complete(&mut self, kind: &Kind, name: &str) {
        let Some(schema) = self.schemas.get_mut(name).and_then(Value::as_object_mut) else {
            return;
        };
        schema.insert(GVK.to_owned(), json!([gvk(kind, "")]));
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            for (field, schema) in type_meta() {
                properties.entry(field).or_insert(schema);
            }
            properties.entry("metadata").or_insert_with(|| json!({"$ref": format!("{META}.ObjectMeta")}));
        }
    }
}

fn key(kind: &Kind) -> (String, String, String) {
    (kind.group.to_string(), kind.version.to_string(), kind.kind.to_string())
}

/// The name of a kind's definition: `io.k8s.api.core.v1.Pod`, or `dev.example.v1.Thing` for `things.example.dev`.
fn name(kind: &Kind, schema: Option<&Value>) -> String {
    match schema.and_then(|s| s.get("title")).and_then(Value::as_str) {
        Some(title) if title.contains('.') => title.to_owned(),
        _ => {
            let group: Vec<_> = kind.group.rsplit('.').collect();
            format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
        }
    }
}

pub(super) fn gvk(kind: &Kind, suffix: &str) -> Value {
    json!({"group": &*kind.group, "version": &*kind.version, "kind": format!("{}{suffix}", kind.kind)})
}

fn type_meta() -> [(&'static str, Value); 2] {
    [
        (
            "apiVersion",
            json!({"type": "string", "description": "The group and version of the kind, such as `apps/v1`."}),
        ),
        ("kind", json!({"type": "string", "description": "The kind of the object, in CamelCase."})),
    ]
}

fn list(kind: &Kind, name: &str) -> Value {
    let [api_version, own_kind] = type_meta();
    json!({
        "description": format!("A list of {}.", kind.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            api_version.0: api_version.1,
            own_kind.0: own_kind.1,
            "items": {"type": "array", "description": "The objects.", "items": {"$ref": name}},
            "metadata": {"description": "Which revision the list shows.", "$ref": format!("{META}.ListMeta")},
        },
        GVK: [gvk(kind, "List")],
    })
}

fn schema_of<T: schemars::JsonSchema>() -> Value {
    schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

/// Drops what only JSON Schema has: null as a type, defaults of null, titles.
fn neutral(schema: Value, qualify: &impl Fn(&str) -> String) -> Value {
    let Value::Object(mut fields) = schema else {
        // `true`, the schema of anything.
        return json!({});
    };
    // `anyOf: [T, null]` is an optional T.
    if let Some(Value::Array(options)) = fields.get("anyOf") {
        let real: Vec<_> = options.iter().filter(|o| o["type"] != "null").cloned().collect();
        if let [one] = real.as_slice() {
            let one = one.clone();
            fields.remove("anyOf");
            if let Value::Object(one) = one {
                for (key, value) in one {
                    fields.entry(key).or_insert(value);
                }
            }
        }
    }
    if let Some(Value::Array(types)) = fields.get("type") {
        let real: Vec<_> = types.iter().filter(|t| *t != "null").cloned().collect();
        match real.as_slice() {
            [one] => fields.insert("type".to_owned(), one.clone()),
            _ => fields.remove("type"),
        };
    }
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("$schema" | "title", _) | ("nullable", Value::Bool(false)) | ("default", Value::Null) => {
                continue;
            }
            ("$ref", Value::String(to)) => qualify(to.strip_prefix("#/$defs/").unwrap_or(&to)).into(),
            ("properties" | "patternProperties", Value::Object(properties)) => {
                properties.into_iter().map(|(k, v)| (k, neutral(v, qualify))).collect()
            }
            ("items" | "additionalProperties" | "not", value @ Value::Object(_)) => neutral(value, qualify),
            ("oneOf" | "anyOf" | "allOf", Value::Array(options)) => {
                options.into_iter().map(|o| neutral(o, qualify)).collect()
            }
            (_, value) => value,
        };
        out.insert(key, value);
    }
    Value::Object(out)
}

/// Adds what Kubernetes says of its own types: how lists and maps are merged, and that a quantity is no int-or-string,
/// since `0.5` is one.
fn published(mut schema: Value, name: &str) -> Value {
    if !name.starts_with("io.k8s.") {
        return schema;
    }
    if name == QUANTITY {
        return json!({
            "description": schema["description"],
            "oneOf": [{"type": "string"}, {"type": "number"}],
        });
    }
    if list_types::is_atomic(name)
        && let Some(schema) = schema.as_object_mut()
    {
        schema.insert(MAP_TYPE.to_owned(), "atomic".into());
    }
    let short = name.rsplit('.').next().unwrap_or_default();
    // Values of any type.
    if matches!(
        short,
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray"
    ) {
        return json!({"description": schema["description"]});
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (property, schema) in properties.into_iter().flatten() {
        let Some(schema) = schema.as_object_mut() else {
            continue;
        };
        owned(schema, short, property);
        let Some(field) = merge_keys::field(short, property) else {
            continue;
        };
        if let Some(strategy) = field.strategy.extension() {
            schema.insert("x-kubernetes-patch-strategy".to_owned(), strategy.into());
        }
        if let Some(key) = field.strategy.merge_key().filter(|k| !k.is_empty()) {
            schema.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
        }
    }
    schema
}

const MAP_TYPE: &str = "x-kubernetes-map-type";

/// Adds to the schema of a field of a built-in type which parts of it have owners of their own.
fn owned(schema: &mut Map<String, Value>, type_name: &str, field: &str) {
    if let Some(whole) = list_types::is_atomic_field(type_name, field) {
        schema.insert(MAP_TYPE.to_owned(), if whole { "atomic" } else { "granular" }.into());
    }
    if schema.get("type").is_none_or(|t| t != "array") {
        return;
    }
    let kind = match list_types::list(type_name, field) {
        None => "atomic",
        Some(ListType::Set) => "set",
        Some(ListType::Map(keys)) => {
            schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
            "map"
        }
    };
    schema.insert("x-kubernetes-list-type".to_owned(), kind.into());
}

/// A definition in the form of one version.
fn write(schema: &Value, version: Version) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let is = |flag: &str| fields.get(flag) == Some(&Value::Bool(true));
    let (nullable, open) = (is("nullable"), is("x-kubernetes-preserve-unknown-fields"));
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value, version) {
            // Readers of version 2 know no nulls and refuse every field that is not described: they get to know less.
            ("nullable", _, Version::V2) => continue,
            ("type", _, Version::V2) if nullable => continue,
            ("properties" | "items" | "additionalProperties", _, Version::V2) if nullable || open => continue,
            ("$ref", Value::String(name), Version::V2) => version.reference(name).into(),
            ("$ref", Value::String(name), Version::V3) => {
                let reference = json!({"$ref": version.reference(name)});
                if fields.len() == 1 {
                    return reference;
                }
                // Beside a reference nothing else may stand.
                out.insert("allOf".to_owned(), json!([reference]));
                continue;
            }
            // Version 2 has no unions: what is one of several is anything, but quantities are called strings.
            ("oneOf", Value::Array(options), Version::V2)
                if options.iter().any(|o| o["type"] == "string") =>
            {
                out.insert("type".to_owned(), "string".into());
                continue;
            }
            ("oneOf" | "anyOf" | "not", _, Version::V2) => continue,
            ("x-kubernetes-int-or-string", _, Version::V2) => {
                out.insert("type".to_owned(), "string".into());
                out.insert("format".to_owned(), "int-or-string".into());
                continue;
            }
            ("x-kubernetes-int-or-string", _, Version::V3) => {
                out.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
                out.insert("format".to_owned(), "int-or-string".into());
                continue;
            }
            ("properties", Value::Object(properties), _) => {
                properties.iter().map(|(k, v)| (k.clone(), write(v, version))).collect()
            }
            ("items" | "additionalProperties" | "not", value, _) => write(value, version),
            ("oneOf" | "anyOf" | "allOf", Value::Array(options), _) => {
                options.iter().map(|o| write(o, version)).collect()
            }
            (_, value, _) => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

/// What a written schema refers to, by name.
pub(super) fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(to)) => vec![to.rsplit('/').next().unwrap_or_default().to_owned()],
                _ => references(value),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
