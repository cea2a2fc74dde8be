//! A schema, compiled.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::PROGRAM_LIMIT;
use super::rules::{Rule, RuleError};
use crate::field::{FieldErrors, FieldPath};

/// The types of JSON, as schemas name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `array`
    Array,
    /// `boolean`
    Boolean,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `object`
    Object,
    /// `string`
    String,
}

impl Type {
    /// The type called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "object" => Self::Object,
            "string" => Self::String,
            _ => return None,
        })
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

/// How the elements of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ListType {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By their values.
    Set,
    /// By these of their fields.
    Map(Vec<String>),
}

/// What a map may hold beyond its properties.
#[derive(Clone, Debug)]
pub(super) enum Additional {
    /// Anything.
    Any,
    /// Values that satisfy a schema.
    Schema(Box<Schema>),
}

/// A regular expression and its text.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) regex: Regex,
}

/// A compiled OpenAPI schema: what a value must look like, and what it gets when it is left out.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub(super) type_: Option<Type>,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) additional: Option<Additional>,
    pub(super) items: Option<Box<Schema>>,
    /// Fields that are not described stay.
    pub(super) preserve: bool,
    /// The value is an object of the API, with a kind and metadata.
    pub(super) embedded: bool,
    pub(super) int_or_string: bool,
    pub(super) list: ListType,
    pub(super) required: Vec<String>,
    pub(super) enumeration: Vec<Value>,
    pub(super) format: Option<String>,
    pub(super) minimum: Option<(f64, bool)>,
    pub(super) maximum: Option<(f64, bool)>,
    pub(super) multiple_of: Option<f64>,
    pub(super) pattern: Option<Pattern>,
    pub(super) length: (Option<i64>, Option<i64>),
    pub(super) items_count: (Option<i64>, Option<i64>),
    pub(super) properties_count: (Option<i64>, Option<i64>),
    pub(super) unique: bool,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
    pub(super) rules: Vec<Rule>,
    /// Whether it describes a whole object.
    pub(super) root: bool,
    /// Whether this or anything below has a default.
    pub(super) defaults_below: bool,
    /// Whether this or anything below has rules.
    pub(super) rules_below: bool,
}

impl Schema {
    /// Compiles a schema. `path` is where it stands, for errors.
    ///
    /// # Errors
    /// A pattern or a rule does not compile, or a type has no name that is known. Whether the schema is structural is
    /// [`super::structural`]'s to say.
    pub fn compile(props: &JSONSchemaProps, path: &FieldPath) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let schema = compile(props, true, path, &mut errors);
        if errors.is_empty() { Ok(schema) } else { Err(errors) }
    }

    /// The schema of the property `name`, if there is one.
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name)
    }

    /// Whether it describes a whole object.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// The type of the value.
    pub fn value_type(&self) -> Option<Type> {
        self.type_
    }
}

fn compile(props: &JSONSchemaProps, root: bool, path: &FieldPath, errors: &mut FieldErrors) -> Schema {
    let mut schema = Schema {
        root,
        nullable: props.nullable.unwrap_or(false),
        default: props.default.as_ref().map(|d| d.0.clone()),
        preserve: props.x_kubernetes_preserve_unknown_fields.unwrap_or(false),
        embedded: props.x_kubernetes_embedded_resource.unwrap_or(false),
        int_or_string: props.x_kubernetes_int_or_string.unwrap_or(false),
        required: props.required.clone().unwrap_or_default(),
        enumeration: props.enum_.iter().flatten().map(|v| v.0.clone()).collect(),
        format: props.format.clone(),
        minimum: props.minimum.map(|m| (m, props.exclusive_minimum.unwrap_or(false))),
        maximum: props.maximum.map(|m| (m, props.exclusive_maximum.unwrap_or(false))),
        multiple_of: props.multiple_of,
        length: (props.min_length, props.max_length),
        items_count: (props.min_items, props.max_items),
        properties_count: (props.min_properties, props.max_properties),
        unique: props.unique_items.unwrap_or(false),
        ..Schema::default()
    };
    if let Some(name) = props.type_.as_deref().filter(|t| !t.is_empty()) {
        schema.type_ = Type::parse(name);
        if schema.type_.is_none() {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            errors.not_supported(path.child("type"), name, &known);
        }
    }
    schema.list = match props.x_kubernetes_list_type.as_deref() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(props.x_kubernetes_list_map_keys.clone().unwrap_or_default()),
        _ => ListType::Atomic,
    };
    if let Some(text) = props.pattern.as_deref().filter(|p| !p.is_empty()) {
        match RegexBuilder::new(text).size_limit(PROGRAM_LIMIT).build() {
            Ok(regex) => schema.pattern = Some(Pattern { text: text.to_owned(), regex }),
            Err(e) => errors.invalid(
                path.child("pattern"),
                text,
                format!("must be a valid regular expression, but isn't: {}", last_line(&e.to_string())),
            ),
        }
    }
    for (name, below) in props.properties.iter().flatten() {
        schema
            .properties
            .insert(name.clone(), compile(below, false, &path.child("properties").key(name), errors));
    }
    schema.additional = match &props.additional_properties {
        None | Some(JSONSchemaPropsOrBool::Bool(false)) => None,
        Some(JSONSchemaPropsOrBool::Bool(true)) => Some(Additional::Any),
        Some(JSONSchemaPropsOrBool::Schema(below)) => Some(Additional::Schema(Box::new(compile(
            below,
            false,
            &path.child("additionalProperties"),
            errors,
        )))),
    };
    if let Some(JSONSchemaPropsOrArray::Schema(below)) = &props.items {
        schema.items = Some(Box::new(compile(below, false, &path.child("items"), errors)));
    }
    let mut list = |name: &str, list: &Option<Vec<JSONSchemaProps>>| -> Vec<Schema> {
        let each = list.iter().flatten().enumerate();
        each.map(|(i, below)| compile(below, false, &path.child(name).index(i), errors)).collect()
    };
    schema.all_of = list("allOf", &props.all_of);
    schema.any_of = list("anyOf", &props.any_of);
    schema.one_of = list("oneOf", &props.one_of);
    schema.not = props.not.as_ref().map(|below| Box::new(compile(below, false, &path.child("not"), errors)));
    for (i, rule) in props.x_kubernetes_validations.iter().flatten().enumerate() {
        match Rule::compile(rule, &schema) {
            Ok(rule) => schema.rules.push(rule),
            Err(RuleError { field, value, detail }) => {
                let path = path.child("x-kubernetes-validations").index(i).child(field);
                errors.invalid(path, value, detail);
            }
        }
    }
    let below = || {
        let additional = match &schema.additional {
            Some(Additional::Schema(below)) => Some(&**below),
            _ => None,
        };
        schema.properties.values().chain(additional).chain(schema.items.as_deref())
    };
    schema.defaults_below = schema.default.is_some() || below().any(|s| s.defaults_below);
    schema.rules_below = !schema.rules.is_empty() || below().any(|s| s.rules_below);
    schema
}

/// The line of a parser's drawing that says what is wrong.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}
