//! Kubernetes' strategic merge patches: merge patches that know how lists are to be merged.
//!
//! A patch may hold directives beside fields: `$patch` (`replace`, `delete`), `$retainKeys`, and for the list `x`
//! `$setElementOrder/x` and `$deleteFromPrimitiveList/x`. See [`super::merge_keys`] for the lists that merge.

use serde_json::{Map, Value};

use super::PatchError;
use super::merge_keys::{self, Strategy};
use crate::kind::Kind;

type Object = Map<String, Value>;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER_PREFIX: &str = "$setElementOrder/";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";

/// The document that `patch` makes of `original`, an object of `kind`.
///
/// # Errors
/// The kind is a custom resource, whose lists nobody described; or the patch is not well-formed.
pub fn apply(kind: &Kind, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !merge_keys::is_built_in(&kind.group) {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return Err(PatchError::Unsupported(message.to_owned()));
    }
    let Value::Object(patch) = patch else {
        return malformed("Invalid JSON document");
    };
    let Value::Object(original) = original else {
        return malformed("Invalid JSON document");
    };
    merge_maps(original.clone(), patch, &kind.kind).map(Value::Object)
}

fn malformed<T>(message: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(message.into()))
}

/// Merges `patch` into an object of the type `type_name`.
fn merge_maps(mut original: Object, patch: &Object, type_name: &str) -> Result<Object, PatchError> {
    match patch.get(PATCH) {
        None => {}
        Some(Value::String(s)) if s == "replace" => {
            let fields: Object =
                patch.iter().filter(|(k, _)| *k != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(fields);
        }
        Some(Value::String(s)) if s == "delete" => return Ok(Object::new()),
        Some(Value::String(s)) if s == "merge" => {}
        Some(other) => return malformed(format!("Unknown patch type: {other} in map: {}", text(patch))),
    }
    retain_keys(&mut original, patch)?;
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS {
            continue;
        }
        if let Some(list) = key.strip_prefix(DELETE_PREFIX) {
            delete_scalars(&mut original, list, value)?;
            continue;
        }
        if let Some(list) = key.strip_prefix(ORDER_PREFIX) {
            // With the list itself in the patch, its own turn takes care of the order.
            if !patch.contains_key(list) {
                reorder(&mut original, type_name, list, value)?;
            }
            continue;
        }
        if value.is_null() {
            original.remove(key);
            continue;
        }
        let field = merge_keys::field(type_name, key);
        let strategy = field.map_or(Strategy::Default, |f| f.strategy);
        let below = field.map_or("", |f| f.type_name);
        let merged = match (original.remove(key), value) {
            (_, Value::Object(new)) if strategy == Strategy::Replace => {
                Value::Object(merge_maps(Object::new(), new, below)?)
            }
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_maps(old, new, below)?),
            (_, Value::Object(new)) => Value::Object(merge_maps(Object::new(), new, below)?),
            (old, Value::Array(new)) => match strategy.merge_key() {
                Some(merge_key) => {
                    let old = match old {
                        Some(Value::Array(old)) => old,
                        _ => Vec::new(),
                    };
                    let order = patch.get(&format!("{ORDER_PREFIX}{key}"));
                    Value::Array(merge_lists(old, new, merge_key, order, below)?)
                }
                None => value.clone(),
            },
            (_, scalar) => scalar.clone(),
        };
        original.insert(key.clone(), merged);
    }
    Ok(original)
}

/// Clears the fields that `$retainKeys` does not name.
fn retain_keys(original: &mut Object, patch: &Object) -> Result<(), PatchError> {
    const FORM: &str = "invalid patch format of retainKeys";
    let Some(retain) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retain) = retain else {
        return malformed(FORM);
    };
    let retained = |key: &str| retain.iter().any(|r| r == key);
    // What a patch sets it must also retain.
    if patch.iter().any(|(k, v)| !v.is_null() && !k.starts_with('$') && !retained(k)) {
        return malformed(FORM);
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

fn delete_scalars(original: &mut Object, list: &str, values: &Value) -> Result<(), PatchError> {
    let Value::Array(values) = values else {
        return malformed("invalid patch format of primitive list");
    };
    if let Some(Value::Array(there)) = original.get_mut(list) {
        there.retain(|v| !values.contains(v));
    }
    Ok(())
}

/// `$setElementOrder` of a list that the patch does not touch otherwise.
fn reorder(original: &mut Object, type_name: &str, list: &str, order: &Value) -> Result<(), PatchError> {
    let Some(merge_key) = merge_keys::field(type_name, list).and_then(|f| f.strategy.merge_key()) else {
        return Ok(());
    };
    if let Some(Value::Array(there)) = original.get_mut(list) {
        let old = there.clone();
        let merged = std::mem::take(there);
        *there = in_order(merged, &old, ids(order_list(order)?, merge_key)?, merge_key)?;
    }
    Ok(())
}

fn order_list(order: &Value) -> Result<&[Value], PatchError> {
    match order {
        Value::Array(order) => Ok(order),
        _ => malformed("invalid patch format of setElementOrder list"),
    }
}

/// Merges the elements of `patch` into `original` by their merge key.
fn merge_lists(
    original: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
    order: Option<&Value>,
    type_name: &str,
) -> Result<Vec<Value>, PatchError> {
    let mut merged = original.clone();
    let mut replace = false;
    let mut changes = Vec::new();
    for element in patch {
        let directive = element.get(PATCH).filter(|_| !merge_key.is_empty());
        match directive.map(|d| d.as_str().unwrap_or_default()) {
            None => changes.push(element),
            Some("replace") => replace = true,
            Some("delete") => {
                let id = id(element, merge_key)?;
                merged.retain(|e| e.get(merge_key) != Some(id));
            }
            Some("merge") => return malformed("merging lists cannot yet be specified in the patch"),
            Some(_) => {
                return malformed(format!("Unknown patch type: {} in map: {element}", element[PATCH]));
            }
        }
    }
    if replace {
        return changes.into_iter().map(|e| merge_element(None, e, type_name)).collect();
    }
    let mut wanted = Vec::new();
    for element in &changes {
        let id = id(element, merge_key)?;
        wanted.push(id);
        let there = merged.iter().position(|e| id_of(e, merge_key) == Some(id));
        match there {
            Some(i) => merged[i] = merge_element(Some(merged[i].take()), element, type_name)?,
            None => merged.push(merge_element(None, element, type_name)?),
        }
    }
    let order = match order {
        None => wanted,
        Some(order) => {
            let order = ids(order_list(order)?, merge_key)?;
            // The patch's elements must stand in the order's order.
            let mut rest = order.iter();
            if !order.is_empty() && !wanted.iter().all(|w| rest.any(|o| o == w)) {
                return malformed(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    Value::from(patch),
                    Value::Array(order.into_iter().cloned().collect()),
                ));
            }
            order
        }
    };
    in_order(merged, &original, order, merge_key)
}

fn merge_element(there: Option<Value>, element: &Value, type_name: &str) -> Result<Value, PatchError> {
    match (there, element) {
        (Some(Value::Object(old)), Value::Object(new)) => merge_maps(old, new, type_name).map(Value::Object),
        (_, Value::Object(new)) => merge_maps(Object::new(), new, type_name).map(Value::Object),
        (_, scalar) => Ok(scalar.clone()),
    }
}

/// Puts the elements that `order` names into its order. Those it does not name keep theirs: each stands before the
/// first named element that it stood before in `original`.
fn in_order(
    merged: Vec<Value>,
    original: &[Value],
    order: Vec<&Value>,
    merge_key: &str,
) -> Result<Vec<Value>, PatchError> {
    let place = |e: &Value, list: &[&Value]| {
        let id = id_of(e, merge_key);
        list.iter().position(|o| id == Some(o))
    };
    let originals = ids(original, merge_key)?;
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|e| place(e, &order).is_some());
    named.sort_by_key(|e| place(e, &order));
    others.sort_by_key(|e| place(e, &originals));

    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let named_first = match (named.peek(), others.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(n), Some(o)) => {
                matches!((place(n, &originals), place(o, &originals)), (Some(n), Some(o)) if n < o)
            }
        };
        out.extend(if named_first { named.next() } else { others.next() });
    }
}

fn id_of<'a>(element: &'a Value, merge_key: &str) -> Option<&'a Value> {
    if merge_key.is_empty() { Some(element) } else { element.get(merge_key) }
}

fn id<'a>(element: &'a Value, merge_key: &str) -> Result<&'a Value, PatchError> {
    match id_of(element, merge_key) {
        Some(id) => Ok(id),
        None => malformed(format!("map: {element} does not contain declared merge key: {merge_key}")),
    }
}

fn ids<'a>(elements: &'a [Value], merge_key: &str) -> Result<Vec<&'a Value>, PatchError> {
    elements.iter().map(|e| id(e, merge_key)).collect()
}

fn text(map: &Object) -> String {
    serde_json::to_string(map).unwrap_or_default()
}

#[cfg(test)]
mod tests;
