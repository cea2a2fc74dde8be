//! JSON as CEL sees it, by the types that its schema gives it.

use std::any::Any;
use std::collections::BTreeMap;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator as ValIterator, Sizer};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelDuration, CelInt, CelList, CelNull, CelString, CelTimestamp, MAP_TYPE,
    Type,
};
use cel::common::value::{CowVal, Val};
use serde_json::{Map, Value};

use crate::crd::schema::{Additional, Schema, Type as SchemaType};
use crate::unstructured::Unstructured;

/// An object or a map. Its keys have an order, so that a rule gives the same answer every time.
#[derive(Debug, Default)]
pub(super) struct Fields<'v>(BTreeMap<String, (CelString<'v>, Box<dyn Val + 'v>)>);

impl<'v> Fields<'v> {
    pub(super) fn insert(&mut self, name: &'v str, value: Box<dyn Val + 'v>) {
        self.0.insert(name.to_owned(), (name.into(), value));
    }

    fn find(&self, key: &dyn Val) -> Option<&(dyn Val + 'v)> {
        let name = key.downcast_ref::<CelString<'_>>()?.inner();
        let found = self.0.get(name).or_else(|| self.0.get(&unescape(name)?));
        found.map(|(_, value)| &**value)
    }
}

/// Field names that are no identifiers are written with words in their place: `x__dash__y` for `x-y`.
fn unescape(name: &str) -> Option<String> {
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && RESERVED.contains(&word)
    {
        return Some(word.to_owned());
    }
    name.contains("__").then(|| {
        name.replace("__underscores__", "__")
            .replace("__dot__", ".")
            .replace("__dash__", "-")
            .replace("__slash__", "/")
    })
}

/// The words of CEL that are no names of fields.
const RESERVED: [&str; 18] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
];

/// The name that a rule uses for the field that is called `name` in JSON, the other way round.
pub(super) fn field_name(name: &str) -> String {
    unescape(name).unwrap_or_else(|| name.to_owned())
}

impl Val for Fields<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = MAP_TYPE;
        &TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let (Some(sizer), Some(indexer)) = (other.as_sizer(), other.as_indexer()) else { return false };
        *sizer.size().inner() == *self.size().inner()
            && self
                .0
                .values()
                .all(|(key, value)| indexer.get(key).is_ok_and(|other| value.equals(other.as_ref())))
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        let each =
            self.0.iter().map(|(name, (key, value))| (name.clone(), (key.clone(), value.clone_as_boxed())));
        Box::new(Self(each.collect()))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

impl Container for Fields<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(value).is_some())
    }
}

impl Sizer for Fields<'_> {
    fn size(&self) -> CelInt {
        i64::try_from(self.0.len()).unwrap_or(i64::MAX).into()
    }
}

impl Indexer for Fields<'_> {
    fn get<'b, 'w>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        match self.find(key) {
            Some(value) => Ok(CowVal::Borrowed(value)),
            None => {
                let name = key.downcast_ref::<CelString<'_>>().map_or("", CelString::inner);
                Err(ExecutionError::no_such_key(name))
            }
        }
    }

    fn steal<'w>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Iterable for Fields<'_> {
    fn iter<'b, 'w>(&'b self) -> Box<dyn ValIterator<'b, 'w> + 'b>
    where
        Self: 'w,
    {
        Box::new(Keys(self.0.values()))
    }
}

struct Keys<'b, 'v>(std::collections::btree_map::Values<'b, String, (CelString<'v>, Box<dyn Val + 'v>)>);

impl<'b, 'v: 'w, 'w> ValIterator<'b, 'w> for Keys<'b, 'v> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'w)> {
        self.0.next().map(|(key, _)| key as &(dyn Val + 'w))
    }
}

/// A value, by its schema where there is one.
pub(super) fn value<'v>(value: &'v Value, schema: Option<&Schema>) -> Box<dyn Val + 'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(b) => Box::new(CelBool::from(*b)),
        Value::Number(n) => {
            let real = schema.and_then(Schema::value_type) == Some(SchemaType::Number);
            match n.as_i64().filter(|_| !real) {
                Some(whole) => Box::new(CelInt::from(whole)),
                None => {
                    let float = n.as_f64().unwrap_or(f64::NAN);
                    let integer = schema.and_then(Schema::value_type) == Some(SchemaType::Integer);
                    if integer {
                        Box::new(CelInt::from(float as i64))
                    } else {
                        Box::new(CelDouble::from(float))
                    }
                }
            }
        }
        Value::String(text) => string(text, schema.and_then(|s| s.format.as_deref())),
        Value::Array(list) => {
            let items = schema.and_then(|s| s.items.as_deref());
            let items: Vec<Box<dyn Val + 'v>> = list.iter().map(|v| self::value(v, items)).collect();
            Box::new(CelList::from(items))
        }
        Value::Object(map) => Box::new(fields(map, schema)),
    }
}

fn fields<'v>(map: &'v Map<String, Value>, schema: Option<&Schema>) -> Fields<'v> {
    let mut fields = Fields(BTreeMap::new());
    for (name, value) in map {
        let below = schema.and_then(|schema| match (schema.properties.get(name), &schema.additional) {
            (Some(below), _) => Some(below),
            (None, Some(Additional::Schema(below))) => Some(&**below),
            _ => None,
        });
        fields.insert(name, self::value(value, below));
    }
    fields
}

fn string<'v>(text: &'v str, format: Option<&str>) -> Box<dyn Val + 'v> {
    match format {
        Some("date-time") => {
            if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
                return Box::new(CelTimestamp::from(time));
            }
        }
        Some("date") => {
            if let Ok(time) = chrono::DateTime::parse_from_rfc3339(&format!("{text}T00:00:00Z")) {
                return Box::new(CelTimestamp::from(time));
            }
        }
        Some("duration") => {
            if let Some(duration) = duration(text) {
                return Box::new(CelDuration::from(duration));
            }
        }
        Some("byte") => {
            if let Some(bytes) = base64(text) {
                return Box::new(CelBytes::from(bytes));
            }
        }
        _ => {}
    }
    Box::new(CelString::from(text))
}

/// Go's durations, to the nanosecond.
fn duration(text: &str) -> Option<chrono::Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(chrono::Duration::zero());
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let units = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("μs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 60e9),
            ("h", 3600e9),
        ];
        let (unit, factor) = units.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
        nanoseconds += number.parse::<f64>().ok()? * factor;
        rest = &tail[unit.len()..];
    }
    let signed = if negative { -nanoseconds } else { nanoseconds };
    Some(chrono::Duration::nanoseconds(signed as i64))
}

/// The bytes behind base64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    serde_json::from_value::<k8s_openapi::ByteString>(Value::from(text)).ok().map(|bytes| bytes.0)
}

/// What a rule sees of the metadata of an object, its kind included.
pub(super) struct Header {
    api_version: Value,
    kind: Value,
    metadata: Value,
}

impl Header {
    pub(super) fn of(object: &Unstructured) -> Self {
        let mut metadata = Map::new();
        for (field, name) in
            [("name", &object.metadata.name), ("generateName", &object.metadata.generate_name)]
        {
            if let Some(name) = name {
                metadata.insert(field.to_owned(), name.as_str().into());
            }
        }
        Self {
            api_version: object.api_version.as_str().into(),
            kind: object.kind.as_str().into(),
            metadata: metadata.into(),
        }
    }

    /// The object as a whole.
    pub(super) fn with<'v>(&'v self, object: &'v Unstructured, schema: &Schema) -> Box<dyn Val + 'v> {
        let mut all = fields(&object.fields, Some(schema));
        for (name, value) in
            [("apiVersion", &self.api_version), ("kind", &self.kind), ("metadata", &self.metadata)]
        {
            all.insert(name, self::value(value, None));
        }
        Box::new(all)
    }
}
