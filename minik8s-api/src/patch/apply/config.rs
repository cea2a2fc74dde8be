//! What a configuration speaks of.

use std::fmt;

use serde_json::Value;

use super::field_set::FieldSet;
use super::items::Indexed;
use super::path::{Path, PathElement};
use super::schema::{Schema, Shape, Type};

/// What is wrong with a configuration, going by its schema. `Display` gives Kubernetes' words.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct SchemaErrors(Vec<(Path, String)>);

impl fmt::Display for SchemaErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |(path, message): &(Path, String)| match path.0.as_slice() {
            [] => message.clone(),
            _ => format!("{path}: {message}"),
        };
        match self.0.as_slice() {
            [one] => f.write_str(&line(one)),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|one| write!(f, "\n  {}", line(one)))
            }
        }
    }
}

impl FieldSet {
    /// The fields that an object has: its leaves, the entries of its maps and the items of its lists, but not the
    /// structs that these are in.
    pub fn of(schema: &Schema, object: &Value) -> Self {
        fields(schema.root(), object)
    }

    /// The same set, with the fields of structs that lead to others.
    #[must_use]
    pub fn with_structs(&self, schema: &Schema) -> Self {
        with_structs(self, schema.root())
    }
}

fn fields(ty: Type<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    match (ty.shape(value), value) {
        (Shape::Map, Value::Object(map)) => {
            for (name, value) in map {
                let (below, named) = ty.entry_or_any(name);
                let element = PathElement::Field(name.as_str().into());
                let member = match (below.shape(value), value) {
                    (Shape::Map, Value::Object(map)) => !named || map.is_empty(),
                    (Shape::List(items), Value::Array(list)) => !named || Indexed::of(items, list).is_none(),
                    _ => true,
                };
                set.push(element, member, fields(below, value));
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            let Some(index) = Indexed::of(items, list) else { return set };
            for element in index.elements() {
                let below = match index.get(element) {
                    [(_, one)] => fields(ty.item(), one),
                    _ => FieldSet::new(),
                };
                set.push(element.clone(), true, below);
            }
        }
        _ => {}
    }
    set
}

fn with_structs(set: &FieldSet, ty: Type<'_>) -> FieldSet {
    let mut out = FieldSet::new();
    for node in set.nodes() {
        let (below, named) = ty.step(&node.element);
        let member = node.member || (named && !node.below.is_empty());
        out.push(node.element.clone(), member, with_structs(&node.below, below));
    }
    out
}

/// Checks a configuration.
///
/// # Errors
/// It has fields that the schema does not have, or items that cannot be told apart.
pub fn check(schema: &Schema, config: &Value) -> Result<(), SchemaErrors> {
    let mut checker = Checker { path: Vec::new(), errors: SchemaErrors::default() };
    checker.value(schema.root(), config);
    if checker.errors.0.is_empty() { Ok(()) } else { Err(checker.errors) }
}

struct Checker {
    path: Vec<PathElement>,
    errors: SchemaErrors,
}

impl Checker {
    fn wrong(&mut self, message: impl Into<String>) {
        self.errors.0.push((Path(self.path.clone()), message.into()));
    }

    fn below(&mut self, element: PathElement, check: impl FnOnce(&mut Self)) {
        self.path.push(element);
        check(self);
        self.path.pop();
    }

    fn value(&mut self, ty: Type<'_>, value: &Value) {
        if !ty.is_described() {
            return;
        }
        match value {
            Value::Null => {}
            Value::Object(map) if ty.is_map() => {
                for (name, value) in map {
                    let element = PathElement::Field(name.as_str().into());
                    self.below(element, |checker| match ty.entry(name) {
                        Some((below, _)) => checker.value(below, value),
                        None => checker.wrong("field not declared in schema"),
                    });
                }
            }
            Value::Array(list) if ty.is_list() => self.list(ty, value, list),
            other if ty.is_list() => self.wrong(format!("expected list, got {other}")),
            other => self.wrong(format!("expected map, got {other}")),
        }
    }

    fn list(&mut self, ty: Type<'_>, value: &Value, list: &[Value]) {
        let Shape::List(items) = ty.shape(value) else {
            for (index, item) in list.iter().enumerate() {
                self.below(PathElement::Index(index as u64), |checker| checker.value(ty.item(), item));
            }
            return;
        };
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in list.iter().enumerate() {
            match items.element(item) {
                Err(message) => self.wrong(format!("element {index}: {message}")),
                Ok(element) => {
                    if !seen.insert(element.clone()) {
                        self.wrong(format!("duplicate entries for key {element}"));
                    }
                    self.below(element, |checker| checker.value(ty.item(), item));
                }
            }
        }
    }
}
