//! Whether a schema is *structural*: whether it says, without any union to be decided, of which type every value is
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use super::schema::Schema;
use crate::field::{FieldErrors, FieldPath};

/// What a schema is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
    /// The metadata of the object, or of one that is embedded.
    Metadata,
}

/// Everything that keeps a schema from being structural, bad defaults included; and what does not compile.
pub fn check(props: &JSONSchemaProps, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    schema(props, Level::Root, path, &mut errors);
    match Schema::compile(props, path) {
        Ok(compiled) if errors.is_empty() => defaults(props, &compiled, path, &mut errors),
        Ok(_) => {}
        Err(wrong) => errors.extend(wrong),
    }
    errors
}

fn schema(props: &JSONSchemaProps, level: Level, path: &FieldPath, errors: &mut FieldErrors) {
    unsupported(props, path, errors);
    type_of(props, level, path, errors);
    extensions(props, path, errors);
    lists(props, path, errors);
    if level == Level::Metadata {
        metadata(props, path, errors);
    }
    let resource = level == Level::Root || props.x_kubernetes_embedded_resource == Some(true);
    for (name, below) in props.properties.iter().flatten() {
        let level = if resource && name == "metadata" { Level::Metadata } else { Level::Field };
        schema(below, level, &path.child("properties").key(name), errors);
    }
    match &props.additional_properties {
        Some(JSONSchemaPropsOrBool::Bool(false)) => {
            errors
                .forbidden(path.child("additionalProperties"), "additionalProperties cannot be set to false");
        }
        Some(_) if level == Level::Root => {
            errors.forbidden(
                path.child("additionalProperties"),
                "additionalProperties cannot be used at the root",
            );
        }
        Some(JSONSchemaPropsOrBool::Schema(below)) => {
            schema(below, Level::Field, &path.child("additionalProperties"), errors);
        }
        Some(JSONSchemaPropsOrBool::Bool(true)) | None => {}
    }
    if props.additional_properties.is_some() && props.properties.as_ref().is_some_and(|p| !p.is_empty()) {
        errors.forbidden(
            path.child("additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        );
    }
    match &props.items {
        Some(JSONSchemaPropsOrArray::Schema(below)) => {
            schema(below, Level::Item, &path.child("items"), errors)
        }
        Some(JSONSchemaPropsOrArray::Schemas(_)) => {
            errors.forbidden(path.child("items"), "items must be a schema object and not an array");
        }
        None if props.type_.as_deref() == Some("array") => {
            errors.required(path.child("items"), "must be specified");
        }
        None => {}
    }
    for (nested, path) in junctors(props, path) {
        validation(nested, props, is_int_or_string(props), &path, errors);
    }
}

/// What OpenAPI has and definitions may not.
fn unsupported(props: &JSONSchemaProps, path: &FieldPath, errors: &mut FieldErrors) {
    for (name, set) in [
        ("$ref", props.ref_path.is_some()),
        ("additionalItems", props.additional_items.is_some()),
        ("definitions", props.definitions.is_some()),
        ("dependencies", props.dependencies.is_some()),
        ("id", props.id.as_ref().is_some_and(|id| !id.is_empty())),
        ("patternProperties", props.pattern_properties.is_some()),
    ] {
        if set {
            errors.forbidden(path.child(name), format!("{name} is not supported"));
        }
    }
    if props.unique_items == Some(true) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(path.child("uniqueItems"), detail);
    }
}

fn type_of(props: &JSONSchemaProps, level: Level, path: &FieldPath, errors: &mut FieldErrors) {
    let type_ = props.type_.as_deref().unwrap_or_default();
    let untyped = is_int_or_string(props) || props.x_kubernetes_preserve_unknown_fields == Some(true);
    match level {
        Level::Root if type_.is_empty() => {
            errors.required(path.child("type"), "must not be empty at the root")
        }
        Level::Root if type_ != "object" => {
            errors.invalid(path.child("type"), type_, "must be object at the root");
        }
        Level::Field | Level::Metadata if type_.is_empty() && !untyped => {
            errors.required(path.child("type"), "must not be empty for specified object fields");
        }
        Level::Item if type_.is_empty() && !untyped => {
            errors.required(path.child("type"), "must not be empty for specified array items");
        }
        _ => {}
    }
    if is_int_or_string(props) && !type_.is_empty() {
        let detail = "must be empty if x-kubernetes-int-or-string is true";
        errors.invalid(path.child("type"), type_, detail);
    }
}

fn extensions(props: &JSONSchemaProps, path: &FieldPath, errors: &mut FieldErrors) {
    let type_ = props.type_.as_deref().unwrap_or_default();
    if props.x_kubernetes_preserve_unknown_fields == Some(false) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.invalid(path, false, "must be true or undefined");
    }
    if props.x_kubernetes_embedded_resource == Some(true) {
        if type_ != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            errors.invalid(path.child("type"), type_, detail);
        }
        let described = props.properties.as_ref().is_some_and(|p| !p.is_empty());
        if !described && props.x_kubernetes_preserve_unknown_fields != Some(true) {
            let detail = "must be true if x-kubernetes-embedded-resource is true and properties are empty";
            errors.required(path.child("x-kubernetes-preserve-unknown-fields"), detail);
        }
    }
    match props.x_kubernetes_map_type.as_deref() {
        None => {}
        Some("atomic" | "granular") if type_ == "object" => {}
        Some("atomic" | "granular") => {
            let detail = "must be object if x-kubernetes-map-type is specified";
            errors.invalid(path.child("type"), type_, detail);
        }
        Some(other) => {
            errors.not_supported(path.child("x-kubernetes-map-type"), other, &["atomic", "granular"]);
        }
    }
}

fn lists(props: &JSONSchemaProps, path: &FieldPath, errors: &mut FieldErrors) {
    let keys = props.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let Some(list_type) = props.x_kubernetes_list_type.as_deref() else {
        if !keys.is_empty() {
            errors.required(
                path.child("x-kubernetes-list-type"),
                "must be map if x-kubernetes-list-map-keys is non-empty",
            );
        }
        return;
    };
    if props.type_.as_deref() != Some("array") {
        let detail = "must be array if x-kubernetes-list-type is specified";
        errors.invalid(path.child("type"), props.type_.as_deref().unwrap_or_default(), detail);
    }
    let items = match &props.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(&**items),
        _ => None,
    };
    match list_type {
        "atomic" => {}
        "set" => {
            if let Some(items) = items {
                set_items(items, &path.child("items"), errors);
            }
        }
        "map" => {
            if keys.is_empty() {
                errors.required(keys_path.clone(), "must not be empty if x-kubernetes-list-type is map");
            }
            for (i, key) in keys.iter().enumerate() {
                let path = path.child("items");
                map_key(items, key, &keys_path.index(i), &path, errors);
                if keys[..i].contains(key) {
                    errors.duplicate(keys_path.index(i), key);
                }
            }
        }
        other => {
            errors.not_supported(path.child("x-kubernetes-list-type"), other, &["atomic", "map", "set"]);
        }
    }
    if list_type != "map" && !keys.is_empty() {
        let detail = "x-kubernetes-list-map-keys must be empty if x-kubernetes-list-type is not map";
        errors.forbidden(keys_path, detail);
    }
}

/// The elements of a set are values that can be compared.
fn set_items(items: &JSONSchemaProps, path: &FieldPath, errors: &mut FieldErrors) {
    let type_ = items.type_.as_deref().unwrap_or_default();
    if items.nullable == Some(true) {
        errors.forbidden(path.child("nullable"), "cannot be nullable when x-kubernetes-list-type is set");
    }
    let atomic = match type_ {
        "object" => items.x_kubernetes_map_type.as_deref() == Some("atomic"),
        "array" => matches!(items.x_kubernetes_list_type.as_deref(), None | Some("atomic")),
        _ => true,
    };
    if !atomic {
        let field = if type_ == "object" { "x-kubernetes-map-type" } else { "x-kubernetes-list-type" };
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.invalid(path.child(field), Value::Null, detail);
    }
}

/// The elements of a map-like list are told apart by scalars that all of them have.
fn map_key(
    items: Option<&JSONSchemaProps>,
    key: &str,
    key_path: &FieldPath,
    items_path: &FieldPath,
    errors: &mut FieldErrors,
) {
    let Some(items) = items else { return };
    let path = items_path.child("properties").key(key);
    let Some(property) = items.properties.as_ref().and_then(|p| p.get(key)) else {
        errors.invalid(key_path.clone(), key, "entries must all be names of item properties");
        return;
    };
    if matches!(property.type_.as_deref(), Some("object" | "array")) {
        let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
        errors.invalid(path.child("type"), &property.type_, detail);
    }
    let required = items.required.iter().flatten().any(|r| r == key);
    if !required && property.default.is_none() {
        let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
        errors.required(path.child("default"), detail);
    }
}

/// Of metadata, which has a type of its own, only the names can be restricted.
fn metadata(props: &JSONSchemaProps, path: &FieldPath, errors: &mut FieldErrors) {
    if props.type_.as_deref() != Some("object") {
        errors.invalid(path.child("type"), props.type_.as_deref().unwrap_or_default(), "must be object");
    }
    let mut rest = props.clone();
    rest.type_ = None;
    rest.description = None;
    rest.properties = rest.properties.map(|mut p| {
        p.retain(|name, _| !matches!(name.as_str(), "name" | "generateName"));
        p
    });
    rest.properties = rest.properties.filter(|p| !p.is_empty());
    if rest != JSONSchemaProps::default() {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(path.clone(), detail);
    }
}

fn is_int_or_string(props: &JSONSchemaProps) -> bool {
    props.x_kubernetes_int_or_string == Some(true)
}

/// The schemas of unions.
fn junctors<'a>(props: &'a JSONSchemaProps, path: &FieldPath) -> Vec<(&'a JSONSchemaProps, FieldPath)> {
    let mut all = Vec::new();
    for (name, list) in [("allOf", &props.all_of), ("anyOf", &props.any_of), ("oneOf", &props.one_of)] {
        all.extend(list.iter().flatten().enumerate().map(|(i, p)| (p, path.child(name).index(i))));
    }
    all.extend(props.not.as_deref().map(|p| (p, path.child("not"))));
    all
}

/// A schema within a union only narrows what stands outside: `outer`.
fn validation(
    props: &JSONSchemaProps,
    outer: &JSONSchemaProps,
    int_or_string: bool,
    path: &FieldPath,
    errors: &mut FieldErrors,
) {
    unsupported(props, path, errors);
    let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    // The one exception: a union that spells out int-or-string.
    let spelt = int_or_string && matches!(props.type_.as_deref(), Some("integer" | "string"));
    for (name, present) in [
        ("type", set(&props.type_) && !spelt),
        ("description", set(&props.description)),
        ("title", set(&props.title)),
        ("default", props.default.is_some()),
        ("additionalProperties", props.additional_properties.is_some()),
    ] {
        if present {
            errors.forbidden(path.child(name), "must be empty to be structural");
        }
    }
    for (name, flag) in [
        ("nullable", props.nullable),
        ("x-kubernetes-preserve-unknown-fields", props.x_kubernetes_preserve_unknown_fields),
        ("x-kubernetes-embedded-resource", props.x_kubernetes_embedded_resource),
        ("x-kubernetes-int-or-string", props.x_kubernetes_int_or_string),
    ] {
        if flag == Some(true) {
            errors.forbidden(path.child(name), "must be false to be structural");
        }
    }
    for (name, below) in props.properties.iter().flatten() {
        let path = path.child("properties").key(name);
        match outer.properties.as_ref().and_then(|p| p.get(name)) {
            Some(outer) => validation(below, outer, is_int_or_string(outer), &path, errors),
            None if matches!(outer.additional_properties, Some(JSONSchemaPropsOrBool::Schema(_))) => {}
            None => errors.required(outer_path(&path), format!("because it is defined in {path}")),
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(below)) = &props.items {
        let path = path.child("items");
        match &outer.items {
            Some(JSONSchemaPropsOrArray::Schema(outer)) => {
                validation(below, outer, is_int_or_string(outer), &path, errors);
            }
            _ => errors.required(outer_path(&path), format!("because it is defined in {path}")),
        }
    }
    for (nested, path) in junctors(props, path) {
        validation(nested, outer, int_or_string, &path, errors);
    }
}

/// Where the schema at `path` would stand outside of unions.
fn outer_path(path: &FieldPath) -> FieldPath {
    let junctor = |part: &&str| {
        let name = part.split('[').next().unwrap_or_default();
        !matches!(name, "allOf" | "anyOf" | "oneOf" | "not")
    };
    FieldPath::new(&path.as_str().split('.').filter(junctor).collect::<Vec<_>>().join("."))
}

/// Defaults must satisfy the schema whose value they stand for.
fn defaults(props: &JSONSchemaProps, compiled: &Schema, path: &FieldPath, errors: &mut FieldErrors) {
    if let Some(default) = &props.default {
        let path = path.child("default");
        if let Value::Object(map) = &default.0 {
            let mut pruned: Map<String, Value> = map.clone();
            let mut unknown = Vec::new();
            compiled.prune(&mut pruned, &mut unknown);
            if !unknown.is_empty() {
                let detail = format!("must not have unknown fields: {}", unknown.join(", "));
                errors.invalid(path.clone(), &default.0, detail);
            }
        }
        let mut filled = default.0.clone();
        if let Value::Object(map) = &mut filled {
            compiled.fill(map);
        }
        compiled.validate_value(&filled, &path, errors);
    }
    for (name, below) in props.properties.iter().flatten() {
        if let Some(compiled) = compiled.properties.get(name) {
            defaults(below, compiled, &path.child("properties").key(name), errors);
        }
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(below)), Some(compiled)) = (&props.items, &compiled.items) {
        defaults(below, compiled, &path.child("items"), errors);
    }
    if let (Some(JSONSchemaPropsOrBool::Schema(below)), Some(super::schema::Additional::Schema(compiled))) =
        (&props.additional_properties, &compiled.additional)
    {
        defaults(below, compiled, &path.child("additionalProperties"), errors);
    }
}
