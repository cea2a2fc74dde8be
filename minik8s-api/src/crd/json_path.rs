//! The part of JSONPath that definitions may use: `.spec.replicas`, `.metadata.annotations['a.b/c']`,
//! `.spec.items[0].name`, `.spec.items[*].name`, `.status.conditions[?(@.type=="Ready")].status`.

use std::str::FromStr;

use serde_json::Value;

use super::number;
use crate::unstructured::Unstructured;

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonPathError(String);

/// A way from an object to some of its values.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end, if negative.
    Index(i64),
    All,
    Filter(Filter),
}

/// `@.path OP literal`, or `@.path` alone, which asks whether there is such a value.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    path: JsonPath,
    test: Option<(Operator, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// The values at the end of the way, in the order of the object.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.from(value)).collect();
        }
        found
    }

    /// The first value at the end of the way.
    pub fn first(&self, object: &Unstructured) -> Option<Value> {
        match self.0.split_first() {
            Some((Step::Field(name), rest)) => {
                let rest = Self(rest.to_vec());
                let below = |value: &Value| rest.find(value).first().map(|v| (*v).clone());
                match name.as_str() {
                    "apiVersion" => below(&Value::from(object.api_version.as_str())),
                    "kind" => below(&Value::from(object.kind.as_str())),
                    "metadata" => below(&serde_json::to_value(&object.metadata).ok()?),
                    _ => rest.find(object.fields.get(name)?).first().map(|v| (*v).clone()),
                }
            }
            _ => None,
        }
    }

    /// The names of the fields on the way, if it leads through nothing but fields.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|s| if let Step::Field(name) = s { Some(name.as_str()) } else { None }).collect()
    }
}

impl Step {
    fn from<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(i), Value::Array(list)) => {
                let i = if *i < 0 { *i + i64::try_from(list.len()).unwrap_or(0) } else { *i };
                usize::try_from(i).ok().and_then(|i| list.get(i)).into_iter().collect()
            }
            (Self::All, Value::Array(list)) => list.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Filter(filter), Value::Array(list)) => list.iter().filter(|v| filter.holds(v)).collect(),
            _ => Vec::new(),
        }
    }
}

impl Filter {
    fn holds(&self, value: &Value) -> bool {
        let found = self.path.find(value);
        match (&self.test, found.first()) {
            (None, first) => first.is_some(),
            (Some(_), None) => false,
            (Some((operator, literal)), Some(first)) => operator.holds(first, literal),
        }
    }
}

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            _ => left.as_f64().zip(right.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        };
        match self {
            Self::Equal => number::equal(left, right),
            Self::NotEqual => !number::equal(left, right),
            Self::Less => order.is_some_and(|o| o.is_lt()),
            Self::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Self::Greater => order.is_some_and(|o| o.is_gt()),
            Self::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    }
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let mut parser = Parser { rest: text };
        let path = parser.path()?;
        if parser.rest.is_empty() { Ok(path) } else { Err(parser.unexpected()) }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn path(&mut self) -> Result<JsonPath, JsonPathError> {
        let mut steps = Vec::new();
        loop {
            if self.take("[") {
                steps.push(self.bracket()?);
            } else if self.take(".") {
                match self.take("*") {
                    true => steps.push(Step::All),
                    // `.items.[0]` is written, too.
                    false if self.rest.starts_with('[') => {}
                    false => steps.push(Step::Field(self.name()?)),
                }
            } else {
                return Ok(JsonPath(steps));
            }
        }
    }

    /// A field's name; a backslash takes away the meaning of what follows.
    fn name(&mut self) -> Result<String, JsonPathError> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' | ']' | '(' | ')' | '=' | '!' | '<' | '>' | ' ' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        if name.is_empty() { Err(self.unexpected()) } else { Ok(name) }
    }

    fn bracket(&mut self) -> Result<Step, JsonPathError> {
        self.spaces();
        let step = if self.take("?(") {
            let filter = self.filter()?;
            self.spaces();
            self.expect(")")?;
            Step::Filter(filter)
        } else if self.take("*") {
            Step::All
        } else if self.rest.starts_with(['\'', '"']) {
            Step::Field(self.quoted()?)
        } else {
            let end = self.rest.find(']').unwrap_or(self.rest.len());
            let (number, rest) = self.rest.split_at(end);
            let index = number.trim().parse().map_err(|_| self.unexpected())?;
            self.rest = rest;
            Step::Index(index)
        };
        self.spaces();
        self.expect("]")?;
        Ok(step)
    }

    fn filter(&mut self) -> Result<Filter, JsonPathError> {
        self.spaces();
        self.expect("@")?;
        let path = self.path()?;
        self.spaces();
        let operator = if self.take("==") {
            Operator::Equal
        } else if self.take("!=") {
            Operator::NotEqual
        } else if self.take("<=") {
            Operator::LessOrEqual
        } else if self.take(">=") {
            Operator::GreaterOrEqual
        } else if self.take("<") {
            Operator::Less
        } else if self.take(">") {
            Operator::Greater
        } else {
            return Ok(Filter { path, test: None });
        };
        self.spaces();
        let literal = if self.rest.starts_with(['\'', '"']) {
            self.quoted()?.into()
        } else {
            let end = self.rest.find([')', ' ']).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            let literal = serde_json::from_str(word).map_err(|_| self.unexpected())?;
            self.rest = rest;
            literal
        };
        Ok(Filter { path, test: Some((operator, literal)) })
    }

    fn quoted(&mut self) -> Result<String, JsonPathError> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c if Some(c) == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(JsonPathError("unterminated quoted string".to_owned()))
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), JsonPathError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> JsonPathError {
        JsonPathError(match self.rest.chars().next() {
            Some(c) => format!("unexpected {c:?} before the last {} characters", self.rest.chars().count()),
            None => "it ends too early".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(path: &str, root: &Value) -> Vec<Value> {
        path.parse::<JsonPath>()
            .unwrap_or_else(|e| panic!("{path}: {e}"))
            .find(root)
            .into_iter()
            .cloned()
            .collect()
    }

    #[test]
    fn paths_lead_to_values() {
        let root = json!({
            "spec": {"replicas": 3, "a.b": "dotted", "items": [{"name": "x", "n": 1}, {"name": "y", "n": 2}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"},
            ]},
        });
        for (path, expected) in [
            (".spec.replicas", json!([3])),
            (".spec.none.deeper", json!([])),
            (r".spec.a\.b", json!(["dotted"])),
            (".spec['a.b']", json!(["dotted"])),
            (".spec.items[1].name", json!(["y"])),
            (".spec.items[-1].name", json!(["y"])),
            (".spec.items[7].name", json!([])),
            (".spec.items[*].name", json!(["x", "y"])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type == 'Synced')].status", json!(["False"])),
            (".status.conditions[?(@.type != 'Synced')].type", json!(["Ready"])),
            (".spec.items[?(@.n >= 2)].name", json!(["y"])),
            (".spec.items[?(@.n)].n", json!([1, 2])),
        ] {
            assert_eq!(Value::from(found(path, &root)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path() {
        for text in ["spec", ".spec.", ".a[", ".a[x]", ".a[?(b)]", ".a['b", ".a b"] {
            assert!(text.parse::<JsonPath>().is_err(), "{text}");
        }
    }
}
