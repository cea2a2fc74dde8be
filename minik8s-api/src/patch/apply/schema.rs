//! What server-side apply must know of a type: where its maps and lists are, and which of them have one owner as a
//! whole.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::list_types::{self, ListType};
use super::path::{PathElement, Scalar};

/// The structure of a kind's objects, made from a JSON schema: the one of a built-in type, or the OpenAPI schema of a
/// custom resource with its `x-kubernetes-…` extensions.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Types may hold themselves, so they are named by their places.
    nodes: Vec<Node>,
    /// An object of nothing, as Kubernetes would write it.
    zero: Value,
}

type Id = usize;

/// The object itself.
const ROOT: Id = 0;
/// Anything: what it holds says what it is.
const ANYTHING: Id = 1;

#[derive(Clone, Debug)]
enum Node {
    Scalar,
    /// Not described: maps are maps, lists are atomic.
    Anything,
    Struct {
        fields: BTreeMap<Box<str>, Field>,
        atomic: bool,
        /// Fields beside these may be there.
        open: bool,
    },
    Map {
        items: Id,
        atomic: bool,
    },
    List {
        items: Id,
        kind: ListKind,
    },
}

#[derive(Clone, Copy, Debug)]
struct Field {
    id: Id,
    always_there: bool,
}

#[derive(Clone, Debug)]
enum ListKind {
    Atomic,
    Set,
    /// Names of fields, with what they are taken for where they are left out.
    Map(Vec<(Box<str>, Option<Scalar>)>),
}

/// A place in a schema.
#[derive(Clone, Copy)]
pub(super) struct Type<'s> {
    schema: &'s Schema,
    id: Id,
}

impl Schema {
    /// The structure that a JSON schema describes. References are to its `$defs`. Extensions say what lists and maps
    /// are; for built-in types, whose schemas have none, a table does.
    ///
    /// Every object has metadata, described or not.
    pub fn of(json: &Value) -> Self {
        let mut builder =
            Builder { nodes: vec![Node::Scalar, Node::Anything], definitions: json.get("$defs") };
        let name = json.get("title").and_then(Value::as_str).unwrap_or_default();
        let mut root = builder.node(json, name);
        let mut metadata =
            schemars::SchemaGenerator::default().into_root_schema_for::<ObjectMeta>().to_value();
        let definitions = metadata.as_object_mut().and_then(|m| m.remove("$defs"));
        let mut own = Builder { nodes: builder.nodes, definitions: definitions.as_ref() };
        let metadata = own.node(&metadata, META);
        if let Node::Anything | Node::Scalar = root {
            root = Node::Struct { fields: BTreeMap::new(), atomic: false, open: true };
        }
        let builtin = name.starts_with("io.k8s.");
        if let Node::Struct { fields, atomic, .. } = &mut root {
            *atomic = false;
            let id = own.add(metadata);
            fields.insert("metadata".into(), Field { id, always_there: true });
            for name in ["apiVersion", "kind"] {
                let id = own.add(Node::Scalar);
                fields.insert(name.into(), Field { id, always_there: false });
            }
            for name in ["spec", "status"] {
                if let Some(field) = fields.get_mut(name) {
                    field.always_there = builtin;
                }
            }
        }
        own.nodes[ROOT] = root;
        let mut schema = Self { nodes: own.nodes, zero: Value::Null };
        schema.zero = schema.zero_of(ROOT);
        schema
    }

    /// The structure of objects of which nothing is known but that they have metadata.
    pub fn untyped() -> Self {
        Self::of(&Value::Null)
    }

    /// An object of nothing, as Kubernetes would write it: what a new object is compared with.
    pub fn zero(&self) -> &Value {
        &self.zero
    }

    pub(super) fn root(&self) -> Type<'_> {
        Type { schema: self, id: ROOT }
    }

    fn zero_of(&self, id: Id) -> Value {
        match &self.nodes[id] {
            Node::Struct { fields, atomic: false, .. } => {
                let there = fields.iter().filter(|(_, field)| field.always_there);
                there.map(|(name, field)| (name.to_string(), self.zero_of(field.id))).collect()
            }
            _ => Value::Null,
        }
    }
}

/// The name of the definition of metadata.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

struct Builder<'a> {
    nodes: Vec<Node>,
    definitions: Option<&'a Value>,
}

/// Where the types of a definition are, once they have been built: what refers to it shares them.
impl Builder<'_> {
    fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn node(&mut self, json: &Value, name: &str) -> Node {
        let mut known = BTreeMap::new();
        self.build(json, name, &mut known)
    }

    /// The place of the type that `json` describes.
    fn place(&mut self, json: &Value, known: &mut BTreeMap<String, Id>) -> Id {
        let Some(to) = reference(json) else {
            let node = self.build(json, "", known);
            return match node {
                Node::Anything => ANYTHING,
                node => self.add(node),
            };
        };
        let name = to.rsplit('/').next().unwrap_or_default();
        if let Some(id) = known.get(name) {
            return *id;
        }
        let Some(definition) = self.definitions.and_then(|d| d.get(name)) else { return ANYTHING };
        // Known before it is built, since it may hold itself.
        let id = self.add(Node::Scalar);
        known.insert(name.to_owned(), id);
        let node = self.build(definition, name, known);
        self.nodes[id] = node;
        id
    }

    fn build(&mut self, json: &Value, name: &str, known: &mut BTreeMap<String, Id>) -> Node {
        let Some(schema) = json.as_object() else { return Node::Anything };
        let schema = optional(schema);
        let extension = |key: &str| schema.get(key).and_then(Value::as_str);
        let atomic = extension("x-kubernetes-map-type") == Some("atomic") || list_types::is_atomic(name);
        let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        if let Some(Value::Object(properties)) = schema.get("properties") {
            let mut fields = BTreeMap::new();
            let short = name.rsplit('.').next().unwrap_or_default();
            for (field, schema) in properties {
                let id = self.field(short, field, schema, known);
                let always_there = list_types::is_always_there(short, field);
                fields.insert(field.as_str().into(), Field { id, always_there });
            }
            if schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
                for field in ["apiVersion", "kind", "metadata"] {
                    fields.entry(field.into()).or_insert(Field { id: ANYTHING, always_there: false });
                }
            }
            return Node::Struct { fields, atomic, open };
        }
        if let Some(items) = schema.get("additionalProperties").filter(|a| a.is_object()) {
            return Node::Map { items: self.place(items, known), atomic };
        }
        if let Some(items) = schema.get("items") {
            let kind = match extension("x-kubernetes-list-type") {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map(keys(schema, items)),
                _ => ListKind::Atomic,
            };
            return Node::List { items: self.place(items, known), kind };
        }
        match schema.get("type").and_then(type_name) {
            Some("object") if atomic => Node::Scalar,
            Some("object") => Node::Anything,
            Some(_) => Node::Scalar,
            None if schema.contains_key("x-kubernetes-int-or-string") => Node::Scalar,
            None if ["oneOf", "anyOf"].iter().any(|k| schema.contains_key(*k)) => Node::Scalar,
            None => Node::Anything,
        }
    }

    /// The place of a field's type, which may be special to the field.
    fn field(&mut self, owner: &str, name: &str, json: &Value, known: &mut BTreeMap<String, Id>) -> Id {
        let id = self.place(json, known);
        if let Some(list) = list_types::list(owner, name)
            && let Node::List { items, .. } = self.nodes[id]
        {
            let kind = match list {
                ListType::Set => ListKind::Set,
                ListType::Map(keys) => {
                    let default = |key: &str| list_types::key_default(key).map(|d| Scalar::String(d.into()));
                    ListKind::Map(keys.iter().map(|&key| (key.into(), default(key))).collect())
                }
            };
            return self.add(Node::List { items, kind });
        }
        if let Some(whole) = list_types::is_atomic_field(owner, name) {
            let mut node = self.nodes[id].clone();
            if let Node::Struct { atomic, .. } | Node::Map { atomic, .. } = &mut node {
                *atomic = whole;
            }
            return self.add(node);
        }
        id
    }
}

/// `type`, which may be a list of one and null.
fn type_name(json: &Value) -> Option<&str> {
    match json {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|n| *n != "null"),
        _ => None,
    }
}

/// What a schema refers to, optional or not.
fn reference(json: &Value) -> Option<&str> {
    let schema = optional(json.as_object()?);
    let own = schema.get("$ref");
    let only = || schema.get("allOf")?.as_array().filter(|a| a.len() == 1)?.first()?.get("$ref");
    own.or_else(only)?.as_str()
}

/// `T` for `anyOf: [T, null]`.
fn optional(schema: &Map<String, Value>) -> &Map<String, Value> {
    let Some(Value::Array(options)) = schema.get("anyOf") else { return schema };
    let mut real = options.iter().filter(|o| o.get("type").is_none_or(|t| t != "null"));
    match (real.next(), real.next()) {
        (Some(Value::Object(one)), None) if options.len() > 1 => one,
        _ => schema,
    }
}

/// The keys of a list of a custom resource, with the defaults that its items' schema gives them.
fn keys(schema: &Map<String, Value>, items: &Value) -> Vec<(Box<str>, Option<Scalar>)> {
    let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
    let default = |name: &str| items.get("properties")?.get(name)?.get("default").and_then(Scalar::of);
    names.filter_map(Value::as_str).map(|name| (name.into(), default(name))).collect()
}

/// What a value is to its type.
pub(super) enum Shape<'s> {
    /// It has one owner.
    Leaf,
    /// Its entries have owners.
    Map,
    /// Its items have owners.
    List(Items<'s>),
}

/// How the items of a list are told apart.
#[derive(Clone, Copy)]
pub(super) struct Items<'s>(&'s ListKind);

impl<'s> Type<'s> {
    fn node(self) -> &'s Node {
        &self.schema.nodes[self.id]
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// What `value` is, going by the type, or by itself where the type does not say.
    pub(super) fn shape(self, value: &Value) -> Shape<'s> {
        match (self.node(), value) {
            (Node::Struct { atomic: false, .. } | Node::Map { atomic: false, .. }, Value::Object(_))
            | (Node::Anything, Value::Object(_)) => Shape::Map,
            (Node::List { kind: kind @ (ListKind::Set | ListKind::Map(_)), .. }, Value::Array(_)) => {
                Shape::List(Items(kind))
            }
            _ => Shape::Leaf,
        }
    }

    /// The type of an entry, and whether it is a field of a struct. `None` for a field that the struct does not have.
    pub(super) fn entry(self, name: &str) -> Option<(Self, bool)> {
        match self.node() {
            Node::Struct { fields, open, .. } => match fields.get(name) {
                Some(field) => Some((self.at(field.id), true)),
                None => open.then_some((self.at(ANYTHING), false)),
            },
            Node::Map { items, .. } => Some((self.at(*items), false)),
            Node::Scalar | Node::Anything | Node::List { .. } => Some((self.at(ANYTHING), false)),
        }
    }

    /// As [`Type::entry`], taking for anything what is not described.
    pub(super) fn entry_or_any(self, name: &str) -> (Self, bool) {
        self.entry(name).unwrap_or((self.at(ANYTHING), false))
    }

    /// The type of a list's items.
    pub(super) fn item(self) -> Self {
        match self.node() {
            Node::List { items, .. } => self.at(*items),
            _ => self.at(ANYTHING),
        }
    }

    /// The type at the end of a step, and whether that step is to a field of a struct.
    pub(super) fn step(self, element: &PathElement) -> (Self, bool) {
        match element {
            PathElement::Field(name) => self.entry_or_any(name),
            _ => (self.item(), false),
        }
    }

    /// Whether this is a value with one owner that has values of its own nonetheless, to be checked.
    pub(super) fn is_described(self) -> bool {
        !matches!(self.node(), Node::Scalar | Node::Anything)
    }

    /// Whether a list stands here.
    pub(super) fn is_list(self) -> bool {
        matches!(self.node(), Node::List { .. })
    }

    /// Whether fields or entries stand here.
    pub(super) fn is_map(self) -> bool {
        matches!(self.node(), Node::Struct { .. } | Node::Map { .. })
    }
}

impl Items<'_> {
    /// What tells `item` apart from its siblings.
    ///
    /// # Errors
    /// It lacks a key, or is not of the form that the list asks for; in Kubernetes' words.
    pub(super) fn element(self, item: &Value) -> Result<PathElement, String> {
        match self.0 {
            ListKind::Map(keys) => {
                let Some(fields) = item.as_object() else {
                    return Err(match item {
                        Value::Null => "associative list with keys may not have a null element",
                        _ => "associative list with keys may not have non-map elements",
                    }
                    .to_owned());
                };
                let mut key = Vec::with_capacity(keys.len());
                for (name, default) in keys {
                    let given = fields.get(&**name).and_then(Scalar::of);
                    // An item may leave out keys that it does not need, such as `shareID`, but not all of them.
                    if let Some(value) = given.or_else(|| default.clone()) {
                        key.push((name.clone(), value));
                    }
                }
                if key.is_empty() {
                    let names: Vec<_> = keys.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                    return Err(format!(
                        "associative list with keys has an element that omits key field {} (and doesn't have default \
                         value)",
                        names.join(", ")
                    ));
                }
                Ok(PathElement::key(key))
            }
            ListKind::Set | ListKind::Atomic => match Scalar::of(item) {
                Some(Scalar::Null) => {
                    Err("associative list without keys has an element that's an explicit null".to_owned())
                }
                Some(value) => Ok(PathElement::Value(value)),
                None if item.is_array() => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                None => Err("associative list without keys has an element that's a map type".to_owned()),
            },
        }
    }
}
