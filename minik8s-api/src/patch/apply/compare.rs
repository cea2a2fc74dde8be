//! What changed from one object to another.

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::items::Indexed;
use super::path::PathElement;
use super::schema::{Schema, Shape, Type};

/// The fields in which two objects differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New fields, and those with another value.
    pub written: FieldSet,
    /// Fields that are gone.
    pub removed: FieldSet,
}

impl Changes {
    /// What changed from `old` to `new`.
    pub fn between(schema: &Schema, old: &Value, new: &Value) -> Self {
        let change = compare(schema.root(), Some(old), Some(new));
        Self { written: change.written.below, removed: change.removed.below }
    }
}

/// The changes of one value: whether it is itself among them, and what is below it.
#[derive(Default)]
struct Change {
    written: Part,
    removed: Part,
}

#[derive(Default)]
struct Part {
    member: bool,
    below: FieldSet,
}

impl Change {
    /// Takes up the change of a value below.
    fn add(&mut self, element: PathElement, change: Self) {
        if !change.removed.is_none() {
            self.removed.below.push(element.clone(), change.removed.member, change.removed.below);
        }
        self.written.below.push(element, change.written.member, change.written.below);
    }
}

fn compare(ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Change {
    // Before anything is looked at in detail: most of an object stays as it is.
    if old == new {
        return Change::default();
    }
    let mut change = match (inner(ty, old), inner(ty, new)) {
        (Inner::Leaf, _) | (_, Inner::Leaf) | (Inner::Nothing, Inner::Nothing) => {
            let mut change = Change::default();
            change.written.member = new.is_some() && !same(old, new);
            change
        }
        (Inner::Map(old), Inner::Map(new)) => compare_maps(ty, old, new),
        (Inner::Map(old), Inner::Nothing) => compare_maps(ty, old, &Map::new()),
        (Inner::Nothing, Inner::Map(new)) => compare_maps(ty, &Map::new(), new),
        (Inner::List(old), Inner::List(new)) => compare_lists(ty, &old, &new),
        (Inner::List(old), Inner::Nothing) => compare_lists(ty, &old, &Indexed::empty()),
        (Inner::Nothing, Inner::List(new)) => compare_lists(ty, &Indexed::empty(), &new),
        (Inner::Map(_), Inner::List(_)) | (Inner::List(_), Inner::Map(_)) => {
            Change { written: Part { member: true, below: FieldSet::new() }, removed: Part::default() }
        }
    };
    change.written.member |= old.is_none();
    change.removed.member |= new.is_none();
    change
}

enum Inner<'v> {
    Leaf,
    /// Absent, null or empty: nothing below, whatever it is.
    Nothing,
    Map(&'v Map<String, Value>),
    List(Indexed<'v>),
}

fn inner<'v>(ty: Type<'_>, value: Option<&'v Value>) -> Inner<'v> {
    let Some(value) = value else { return Inner::Nothing };
    match (ty.shape(value), value) {
        (_, Value::Null) => Inner::Nothing,
        (Shape::Map, Value::Object(map)) if map.is_empty() => Inner::Nothing,
        (Shape::Map, Value::Object(map)) => Inner::Map(map),
        (Shape::List(_), Value::Array(list)) if list.is_empty() => Inner::Nothing,
        (Shape::List(items), Value::Array(list)) => Indexed::of(items, list).map_or(Inner::Leaf, Inner::List),
        _ => Inner::Leaf,
    }
}

fn compare_maps(ty: Type<'_>, old: &Map<String, Value>, new: &Map<String, Value>) -> Change {
    let mut change = Change::default();
    for (name, value) in new {
        let element = || PathElement::Field(name.as_str().into());
        let (below, _) = ty.entry_or_any(name);
        let one = compare(below, old.get(name), Some(value));
        if !one.is_none() {
            change.add(element(), one);
        }
    }
    for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        let (below, _) = ty.entry_or_any(name);
        change.add(PathElement::Field(name.as_str().into()), compare(below, Some(value), None));
    }
    change
}

fn compare_lists(ty: Type<'_>, old: &Indexed<'_>, new: &Indexed<'_>) -> Change {
    let mut change = Change::default();
    let gone = old.elements().filter(|e| !new.has(e));
    for element in new.elements().chain(gone) {
        let one = match (old.get(element), new.get(element)) {
            (old @ ([] | [_]), new @ ([] | [_])) => {
                compare(ty.item(), old.first().map(|o| o.1), new.first().map(|n| n.1))
            }
            // What is there twice is taken as a whole.
            (old, new) => {
                let mut one = Change::default();
                one.written.member = !new.is_empty() && old != new;
                one.removed.member = new.is_empty();
                one
            }
        };
        if !one.is_none() {
            change.add(element.clone(), one);
        }
    }
    change
}

impl Change {
    fn is_none(&self) -> bool {
        self.written.is_none() && self.removed.is_none()
    }
}

impl Part {
    fn is_none(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

/// Whether two values are the same, numbers by what they stand for.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}
