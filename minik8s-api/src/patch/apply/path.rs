//! Where a field is: the steps from an object to it.

use std::fmt;

use serde_json::Value;

/// A value without parts, as it tells the items of a list apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// A whole number.
    Integer(i64),
    /// Any other number, by the bits of the double.
    Float(u64),
    /// Text.
    String(Box<str>),
    /// Yes or no.
    Bool(bool),
    /// Nothing.
    Null,
}

impl Scalar {
    /// The scalar that `value` is; `None` for lists and maps.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::String(s) => Self::String(s.as_str().into()),
            Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Self::Integer(i),
                // `80.0` and `80` are one port.
                (None, Some(f)) if f.fract() == 0.0 && f.abs() < 9e15 => Self::Integer(f as i64),
                (None, f) => Self::Float(f.unwrap_or_default().to_bits()),
            },
            Value::Array(_) | Value::Object(_) => return None,
        })
    }
}

impl fmt::Display for Scalar {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(i) => i.fmt(f),
            Self::Float(bits) => Value::from(f64::from_bits(*bits)).fmt(f),
            Self::String(s) => f.write_str(&serde_json::to_string(s).map_err(|_| fmt::Error)?),
            Self::Bool(b) => b.fmt(f),
            Self::Null => f.write_str("null"),
        }
    }
}

/// One step: from a map to a field, from a list to an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// The field of that name.
    Field(Box<str>),
    /// The item whose fields have these values, ordered by name.
    Key(Vec<(Box<str>, Scalar)>),
    /// The item with that value.
    Value(Scalar),
    /// The item at that place.
    Index(u64),
}

/// Why text is not a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no element of a field path")]
pub struct BadPathElement(String);

impl PathElement {
    /// Reads the form that `FieldsV1` uses: `f:name`, `k:{"name":"x"}`, `v:"x"` or `i:0`. `None` for forms that are not
    /// known, which are to be passed over.
    ///
    /// # Errors
    /// It is one of these forms, but not well-formed.
    pub fn parse(text: &str) -> Result<Option<Self>, BadPathElement> {
        let bad = || BadPathElement(text.to_owned());
        let (form, rest) = text.split_once(':').ok_or_else(bad)?;
        Ok(Some(match form {
            "f" => Self::Field(rest.into()),
            "k" => {
                let Ok(Value::Object(fields)) = serde_json::from_str(rest) else { return Err(bad()) };
                let mut key = Vec::with_capacity(fields.len());
                for (name, value) in &fields {
                    key.push((name.as_str().into(), Scalar::of(value).ok_or_else(bad)?));
                }
                Self::key(key)
            }
            "v" => {
                let value: Value = serde_json::from_str(rest).map_err(|_| bad())?;
                Self::Value(Scalar::of(&value).ok_or_else(bad)?)
            }
            "i" => Self::Index(rest.parse().map_err(|_| bad())?),
            _ => return Ok(None),
        }))
    }

    /// The item whose fields have these values.
    pub fn key(mut fields: Vec<(Box<str>, Scalar)>) -> Self {
        fields.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Self::Key(fields)
    }

    /// Appends the form that [`PathElement::parse`] reads.
    pub(super) fn write(&self, out: &mut String) {
        use fmt::Write;
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Field(name) => {
                out.push_str("f:");
                out.push_str(name);
                Ok(())
            }
            Self::Key(fields) => {
                out.push_str("k:{");
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let _ = write!(out, "{comma}{}:{value}", Scalar::String(name.clone()));
                }
                out.push('}');
                Ok(())
            }
            Self::Value(value) => write!(out, "v:{value}"),
            Self::Index(index) => write!(out, "i:{index}"),
        };
    }
}

impl fmt::Display for PathElement {
    /// As Kubernetes words it: `.name`, `[name="x",port=80]`, `[="x"]` or `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}={value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The steps from an object to one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<PathElement>);

impl fmt::Display for Path {
    /// As Kubernetes words it: `.spec.containers[name="a"].image`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}
