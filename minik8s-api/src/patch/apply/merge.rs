//! Putting a configuration on top of an object, and taking fields out of one.

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::items::Indexed;
use super::path::PathElement;
use super::schema::{Schema, Shape, Type};

/// The object that `config` makes of `live`: everything that `config` says, and of `live` what it does not speak of.
pub fn merge(schema: &Schema, live: &Value, config: &Value) -> Value {
    merged(schema.root(), Some(live), config)
}

/// The object without the fields of `set`, and what is below those.
pub fn remove(schema: &Schema, object: &Value, set: &FieldSet) -> Value {
    removed(schema.root(), object, set)
}

fn merged(ty: Type<'_>, live: Option<&Value>, config: &Value) -> Value {
    match (live, config) {
        (Some(Value::Object(live)), Value::Object(config))
            if matches!(ty.shape(&Value::Object(Map::new())), Shape::Map) =>
        {
            let mut out = live.clone();
            for (name, value) in config {
                let (below, _) = ty.entry_or_any(name);
                let value = merged(below, live.get(name), value);
                out.insert(name.clone(), value);
            }
            Value::Object(out)
        }
        (Some(Value::Array(live)), Value::Array(list)) => match ty.shape(config) {
            Shape::List(items) => match (Indexed::of(items, live), Indexed::of(items, list)) {
                (Some(live), Some(config)) => Value::Array(merged_lists(ty, &live, &config)),
                _ => config.clone(),
            },
            _ => config.clone(),
        },
        // Null takes nothing away from what others may own parts of.
        (Some(live), Value::Null) if !matches!(ty.shape(live), Shape::Leaf) => live.clone(),
        _ => config.clone(),
    }
}

/// The items of both: the configuration's in its order, the others where they were between them.
fn merged_lists(ty: Type<'_>, live: &Indexed<'_>, config: &Indexed<'_>) -> Vec<Value> {
    let mut out = Vec::new();
    let others = |element: &PathElement| live.get(element).iter().map(|(_, value)| (*value).clone());
    let mut rest = live.elements().peekable();
    let mut shared = config.elements().filter(|e| live.has(e)).peekable();
    for element in config.elements() {
        // The live items that the configuration does not have, as far as the next that both have.
        while let Some(other) = rest.next_if(|e| Some(e) != shared.peek()) {
            if !config.has(other) {
                out.extend(others(other));
            }
        }
        rest.next_if(|e| *e == element);
        shared.next_if(|e| *e == element);
        let there = match live.get(element) {
            [(_, one)] => Some(*one),
            _ => None,
        };
        out.extend(config.get(element).iter().map(|(_, wanted)| merged(ty.item(), there, wanted)));
    }
    rest.filter(|e| !config.has(e)).for_each(|other| out.extend(others(other)));
    out
}

fn removed(ty: Type<'_>, value: &Value, set: &FieldSet) -> Value {
    match (ty.shape(value), value) {
        (Shape::Map, Value::Object(map)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let (below, _) = ty.entry_or_any(name);
                let element = PathElement::Field(name.as_str().into());
                if let Some(value) = kept(below, value, set, &element) {
                    out.insert(name.clone(), value);
                }
            }
            Value::Object(out)
        }
        (Shape::List(items), Value::Array(list)) => {
            let keep = |item: &Value| match items.element(item) {
                Ok(element) => kept(ty.item(), item, set, &element),
                Err(_) => Some(item.clone()),
            };
            Value::Array(list.iter().filter_map(keep).collect())
        }
        _ => value.clone(),
    }
}

/// What stays of the value that the step `element` leads to.
fn kept(ty: Type<'_>, value: &Value, set: &FieldSet, element: &PathElement) -> Option<Value> {
    match set.below(element) {
        None => Some(value.clone()),
        Some(node) if node.member => None,
        Some(node) => Some(removed(ty, value, &node.below)),
    }
}
