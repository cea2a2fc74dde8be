//! Checking values against a schema, in the words of Kubernetes.
//!
//! A change is checked against what it changes: what stays as it was stays allowed, so that a definition may become
//! stricter while there are objects that it would refuse.

use serde_json::{Map, Value};

use super::rules::Evaluation;
use super::schema::{Additional, ListType, Pattern, Schema, Type};
use super::{format, number};
use crate::field::{FieldErrors, FieldPath};
use crate::object::Object;
use crate::unstructured::Unstructured;

/// What may be true of the value besides what it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An object of the API: its kind and metadata are checked elsewhere.
    Root,
    /// Anywhere else.
    Below,
}

impl Schema {
    /// What is wrong with an object; `old` is what it is to take the place of.
    pub fn validate(&self, new: &Unstructured, old: Option<&Unstructured>) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let root = FieldPath::root();
        let old_fields = old.map(|o| &o.fields);
        if old_fields != Some(&new.fields) {
            self.map(&new.fields, old_fields, Place::Root, &root, &mut errors);
            self.combined_root(new, &mut errors);
        }
        self.names(new, &mut errors);
        // Rules may rely on the types of what they look at.
        if self.rules_below && errors.is_empty() {
            Evaluation::new().root(self, new, old, &mut errors);
        } else if self.rules_below {
            let detail = "some validation rules were not checked because the object was invalid; correct the \
                          existing errors to complete validation";
            errors.invalid(FieldPath::new("<nil>"), Value::Null, detail);
        }
        errors
    }

    /// What is wrong with a value somewhere in an object, such as a default.
    pub fn validate_value(&self, value: &Value, path: &FieldPath, errors: &mut FieldErrors) {
        let before = errors.0.len();
        self.value(value, None, path, errors);
        if errors.0.len() == before && self.rules_below {
            Evaluation::new().value(self, value, None, path, errors);
        }
    }

    /// What the schema says of names.
    fn names(&self, new: &Unstructured, errors: &mut FieldErrors) {
        let Some(metadata) = self.properties.get("metadata") else { return };
        let path = FieldPath::new("metadata");
        for (field, value) in [("name", &new.metadata.name), ("generateName", &new.metadata.generate_name)] {
            if let (Some(schema), Some(value)) = (metadata.properties.get(field), value) {
                schema.value(&Value::String(value.clone()), None, &path.child(field), errors);
            }
        }
    }

    /// Unions at the top, which are about the object as a whole.
    fn combined_root(&self, new: &Unstructured, errors: &mut FieldErrors) {
        if self.is_combined() {
            self.combined(&new.to_value(), &FieldPath::root(), errors);
        }
    }

    fn value(&self, value: &Value, old: Option<&Value>, path: &FieldPath, errors: &mut FieldErrors) {
        if old == Some(value) {
            return;
        }
        if value.is_null() && self.nullable {
            return;
        }
        if !self.type_fits(value, path, errors) {
            return;
        }
        if !self.enumeration.is_empty() && !self.enumeration.iter().any(|e| number::equal(e, value)) {
            let words: Vec<_> = self
                .enumeration
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned))
                .collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            errors.not_supported(path.clone(), value, &words);
        }
        match value {
            Value::Number(n) => self.number(n, value, path, errors),
            Value::String(text) => self.string(text, path, errors),
            Value::Array(list) => self.list(list, old.and_then(Value::as_array), value, path, errors),
            Value::Object(map) => {
                self.map(map, old.and_then(Value::as_object), Place::Below, path, errors);
                if self.embedded {
                    embedded(map, path, errors);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(value, path, errors);
    }

    /// Whether the value has the right type; complains otherwise.
    fn type_fits(&self, value: &Value, path: &FieldPath, errors: &mut FieldErrors) -> bool {
        let fits = match (self.type_, value) {
            (None, Value::Number(n)) if self.int_or_string => number::is_whole(n),
            (None, _) if self.int_or_string => value.is_string(),
            (None, _) => true,
            (Some(Type::Array), _) => value.is_array(),
            (Some(Type::Boolean), _) => value.is_boolean(),
            (Some(Type::Integer), Value::Number(n)) => number::is_whole(n),
            (Some(Type::Integer), _) => false,
            (Some(Type::Number), _) => value.is_number(),
            (Some(Type::Object), _) => value.is_object(),
            (Some(Type::String), _) => value.is_string(),
        };
        if !fits {
            let found = type_name(value);
            let wanted = self.type_.map_or("integer,string", Type::name);
            let detail = format!("{path} in body must be of type {wanted}: {found:?}");
            errors.wrong_type(path.clone(), found, detail);
        }
        fits
    }

    fn number(&self, n: &serde_json::Number, value: &Value, path: &FieldPath, errors: &mut FieldErrors) {
        let float = n.as_f64().unwrap_or(f64::INFINITY);
        let range = match (self.type_, self.format.as_deref()) {
            (Some(Type::Integer), Some("int32")) => i32::MIN as f64..=i32::MAX as f64,
            (Some(Type::Integer), Some("uint32")) => 0.0..=u32::MAX as f64,
            (Some(Type::Integer), Some("uint64")) => 0.0..=u64::MAX as f64,
            (Some(Type::Integer), _) => i64::MIN as f64..=i64::MAX as f64,
            (Some(Type::Number), Some("float")) => f64::from(f32::MIN)..=f64::from(f32::MAX),
            _ => f64::MIN..=f64::MAX,
        };
        if !range.contains(&float) {
            let type_ = self.type_.map_or("number", Type::name);
            let format = self.format.as_deref().unwrap_or("int64");
            let detail = format!("Checked value must be of type {type_} with format {format} in {path}");
            errors.invalid(path.clone(), value, detail);
        }
        if let Some((limit, exclusive)) = self.maximum
            && (float > limit || exclusive && float == limit)
        {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            let detail = format!("{path} in body should be {words} {}", number::written(limit));
            errors.invalid(path.clone(), value, detail);
        }
        if let Some((limit, exclusive)) = self.minimum
            && (float < limit || exclusive && float == limit)
        {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            let detail = format!("{path} in body should be {words} {}", number::written(limit));
            errors.invalid(path.clone(), value, detail);
        }
        if let Some(factor) = self.multiple_of.filter(|f| *f > 0.0 && !number::is_multiple(float, *f)) {
            let detail = format!("{path} in body should be a multiple of {}", number::written(factor));
            errors.invalid(path.clone(), value, detail);
        }
    }

    fn string(&self, text: &str, path: &FieldPath, errors: &mut FieldErrors) {
        let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = self.length.1.filter(|max| length() > *max) {
            errors.too_long(path.clone(), usize::try_from(max).unwrap_or(0));
        }
        if let Some(min) = self.length.0.filter(|min| length() < *min) {
            let detail = format!("{path} in body should be at least {min} chars long");
            errors.invalid(path.clone(), text, detail);
        }
        if let Some(Pattern { text: pattern, regex }) = &self.pattern
            && !regex.is_match(text)
        {
            errors.invalid(path.clone(), text, format!("{path} in body should match '{pattern}'"));
        }
        if let Some(format) = self.format.as_deref()
            && !format::is_valid(format, text)
        {
            let detail = format!("{path} in body must be of type {format}: {text:?}");
            errors.wrong_type(path.clone(), text, detail);
        }
    }

    fn list(
        &self,
        list: &[Value],
        old: Option<&Vec<Value>>,
        value: &Value,
        path: &FieldPath,
        errors: &mut FieldErrors,
    ) {
        let count = i64::try_from(list.len()).unwrap_or(i64::MAX);
        if let Some(min) = self.items_count.0.filter(|min| count < *min) {
            errors.invalid(path.clone(), value, format!("{path} in body should have at least {min} items"));
        }
        if let Some(max) = self.items_count.1.filter(|max| count > *max) {
            errors.too_many(path.clone(), list.len(), usize::try_from(max).unwrap_or(0));
        }
        if self.unique && (1..list.len()).any(|i| list[..i].iter().any(|o| number::equal(o, &list[i]))) {
            errors.invalid(path.clone(), value, format!("{path} in body shouldn't contain duplicates"));
        }
        self.identities(list, path, errors);
        if let Some(items) = &self.items {
            for (i, item) in list.iter().enumerate() {
                let old = old.and_then(|old| self.counterpart(item, i, old));
                items.value(item, old, &path.index(i), errors);
            }
        }
    }

    /// What `item` was before, where that can be told. Without identities the place has to do, which is good enough
    /// for what has not changed.
    fn counterpart<'a>(&self, item: &Value, index: usize, old: &'a [Value]) -> Option<&'a Value> {
        match &self.list {
            ListType::Map(_) => old.iter().find(|o| self.identity(o) == self.identity(item)),
            ListType::Set => old.iter().find(|o| *o == item),
            ListType::Atomic => old.get(index).filter(|o| *o == item),
        }
    }

    /// What tells an element of a map-like list from the others. A key that is left out has its default.
    pub(super) fn identity(&self, item: &Value) -> Option<Map<String, Value>> {
        let ListType::Map(keys) = &self.list else { return None };
        let map = item.as_object()?;
        let default = |key: &String| self.items.as_ref()?.properties.get(key)?.default.clone();
        let of = |key: &String| map.get(key).cloned().or_else(|| default(key));
        Some(keys.iter().filter_map(|k| Some((k.clone(), of(k)?))).collect())
    }

    /// Elements that ought to be told apart.
    fn identities(&self, list: &[Value], path: &FieldPath, errors: &mut FieldErrors) {
        let identity = |item: &Value| match &self.list {
            ListType::Atomic => None,
            ListType::Set => Some(item.clone()),
            ListType::Map(_) => self.identity(item).map(Value::Object),
        };
        // As text, so that long lists are no matter of all against all.
        let mut seen = std::collections::BTreeSet::new();
        for (i, item) in list.iter().enumerate() {
            if let Some(identity) = identity(item)
                && !seen.insert(identity.to_string())
            {
                errors.duplicate(path.index(i), identity);
            }
        }
    }

    fn map(
        &self,
        map: &Map<String, Value>,
        old: Option<&Map<String, Value>>,
        place: Place,
        path: &FieldPath,
        errors: &mut FieldErrors,
    ) {
        let count = i64::try_from(map.len()).unwrap_or(i64::MAX);
        if let Some(min) = self.properties_count.0.filter(|min| place == Place::Below && count < *min) {
            let detail = format!("{path} in body should have at least {min} properties");
            errors.invalid(path.clone(), map, detail);
        }
        if let Some(max) = self.properties_count.1.filter(|max| place == Place::Below && count > *max) {
            errors.too_many(path.clone(), map.len(), usize::try_from(max).unwrap_or(0));
        }
        let elsewhere =
            |name: &str| place == Place::Root && matches!(name, "apiVersion" | "kind" | "metadata");
        for name in &self.required {
            if !map.contains_key(name) && !elsewhere(name) {
                errors.required(path.child(name), "");
            }
        }
        for (name, value) in map {
            let old = old.and_then(|old| old.get(name));
            match (self.properties.get(name), &self.additional) {
                (Some(below), _) => below.value(value, old, &path.child(name), errors),
                (None, Some(Additional::Schema(below))) => {
                    below.value(value, old, &path.child(name), errors);
                }
                (None, Some(Additional::Any) | None) => {}
            }
        }
    }

    fn is_combined(&self) -> bool {
        !(self.all_of.is_empty() && self.any_of.is_empty() && self.one_of.is_empty()) || self.not.is_some()
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn combined(&self, value: &Value, path: &FieldPath, errors: &mut FieldErrors) {
        let wrong = |schema: &Self| {
            let mut errors = FieldErrors::new();
            schema.value(value, None, path, &mut errors);
            errors
        };
        // Unions are about no field in particular, and Kubernetes says so in this way.
        let nowhere = || FieldPath::new("<nil>");
        for schema in &self.all_of {
            errors.extend(wrong(schema));
        }
        let fewest = |all: Vec<FieldErrors>| all.into_iter().min_by_key(|e| e.0.len()).unwrap_or_default();
        if !self.any_of.is_empty() {
            let all: Vec<_> = self.any_of.iter().map(wrong).collect();
            if !all.iter().any(FieldErrors::is_empty) {
                let detail = format!("{:?} must validate at least one schema (anyOf)", path.as_str());
                errors.invalid(nowhere(), "", detail);
                errors.extend(fewest(all));
            }
        }
        if !self.one_of.is_empty() {
            let all: Vec<_> = self.one_of.iter().map(wrong).collect();
            let words = format!("{:?} must validate one and only one schema (oneOf).", path.as_str());
            match all.iter().filter(|e| e.is_empty()).count() {
                1 => {}
                0 => {
                    errors.invalid(nowhere(), "", format!("{words} Found none valid"));
                    errors.extend(fewest(all));
                }
                many => errors.invalid(nowhere(), "", format!("{words} Found {many} valid alternatives")),
            }
        }
        if let Some(schema) = &self.not
            && wrong(schema).is_empty()
        {
            let detail = format!("{:?} must not validate the schema (not)", path.as_str());
            errors.invalid(nowhere(), "", detail);
        }
    }
}

/// An object of the API within another: it must say what it is.
fn embedded(map: &Map<String, Value>, path: &FieldPath, errors: &mut FieldErrors) {
    for name in ["apiVersion", "kind"] {
        match map.get(name) {
            Some(Value::String(text)) if !text.is_empty() => {}
            Some(Value::String(_)) | None => errors.required(path.child(name), "must not be empty"),
            Some(other) => {
                let found = type_name(other);
                let detail = format!("{path}.{name} in body must be of type string: {found:?}");
                errors.wrong_type(path.child(name), found, detail);
            }
        }
    }
    if let Some(metadata) = map.get("metadata") {
        let read = serde_json::from_value::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>(
            metadata.clone(),
        );
        if let Err(e) = read {
            errors.invalid(path.child("metadata"), metadata, e.to_string());
        }
    }
}

/// The type of a value as errors call it.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if number::is_whole(n) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
