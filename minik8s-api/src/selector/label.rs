//! Label selectors.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::SelectorError;
use crate::field::{FieldErrors, FieldPath};
use crate::name;

/// How a requirement looks at a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// `key = value`
    Equals,
    /// `key == value`
    DoubleEquals,
    /// `key != value`; true without the label.
    NotEquals,
    /// `key in (a, b)`
    In,
    /// `key notin (a, b)`; true without the label.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key > 5`, both read as integers.
    GreaterThan,
    /// `key < 5`, both read as integers.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// In order and without doubles.
    values: Vec<String>,
}

impl Requirement {
    /// A condition on the label `key`.
    ///
    /// # Errors
    /// The key is no qualified name, a value is no label value, or the operator takes another number of values.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, SelectorError> {
        let key = key.into();
        let mut values: Vec<String> = values.into_iter().collect();
        values.sort();
        values.dedup();
        let mut errors = FieldErrors::new();
        for wrong in name::qualified(&key) {
            errors.invalid(FieldPath::new("key"), &key, wrong);
        }
        let path = FieldPath::new("values");
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                errors.invalid(
                    path.clone(),
                    &values,
                    "for 'in', 'notin' operators, values set can't be empty",
                );
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                errors.invalid(path.clone(), &values, "exact-match compatibility requires one single value");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                errors.invalid(
                    path.clone(),
                    &values,
                    "values set must be empty for exists and does not exist",
                );
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    errors.invalid(
                        path.clone(),
                        &values,
                        "for 'Gt', 'Lt' operators, exactly one value is required",
                    );
                }
                for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                    errors.invalid(
                        path.index(i),
                        value,
                        "for 'Gt', 'Lt' operators, the value must be an integer",
                    );
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            for wrong in name::label_value(value) {
                errors.invalid(path.index(i).key(&key), value, wrong);
            }
        }
        if errors.is_empty() {
            Ok(Self { key, operator, values })
        } else {
            Err(SelectorError(errors.to_string()))
        }
    }

    /// The label it looks at.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it looks at it.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with, in order; empty for the existence operators.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether `labels` meet the condition.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        let listed = |v: &String| self.values.binary_search(v).is_ok();
        let beyond = |wanted| {
            let number = |s: &String| s.parse::<i64>().ok();
            matches!((label.and_then(number), self.values.first().and_then(number)),
                     (Some(has), Some(bound)) if has.cmp(&bound) == wanted)
        };
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => label.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => beyond(std::cmp::Ordering::Greater),
            Operator::LessThan => beyond(std::cmp::Ordering::Less),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Conditions on labels that must all hold. Without any it takes everything.
///
/// ```
/// use minik8s_api::Selector;
///
/// let web = Selector::parse("app in (web, api), !canary").unwrap();
/// let labels = [("app".to_owned(), "web".to_owned())].into();
/// assert!(web.matches(&labels));
/// assert_eq!(web.to_string(), "app in (api,web),!canary");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Takes every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Takes no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// All of `requirements`.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<_> = requirements.into_iter().collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Reads the form of `kubectl -l` and of the `labelSelector` parameter: conditions joined by commas.
    ///
    /// # Errors
    /// The text is no selector; the error says what was found where what was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        super::parse::label_selector(text).map(Self::new)
    }

    /// The selector of an API object. An empty one takes everything.
    ///
    /// # Errors
    /// An operator is unknown, or a requirement is not valid.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let labels = selector.match_labels.iter().flatten();
        let equal = labels.map(|(k, v)| Requirement::new(k, Operator::Equals, [v.clone()]));
        let expressions = selector.match_expressions.iter().flatten().map(|e| {
            let operator = match e.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("\"{other}\" is not a valid label selector operator")));
                }
            };
            Requirement::new(&e.key, operator, e.values.iter().flatten().cloned())
        });
        equal.chain(expressions).collect::<Result<Vec<_>, _>>().map(Self::new)
    }

    /// The selector of a Service or ReplicationController: each label must have its value. It is not validated,
    /// since it only ever meets labels that were.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        Self::new(labels.iter().map(|(k, v)| Requirement {
            key: k.clone(),
            operator: Operator::Equals,
            values: vec![v.clone()],
        }))
    }

    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether it takes every object.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The conditions, ordered by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The one value that the label `key` must have, if the selector is that strict: what an index can use.
    pub fn exact_value(&self, key: &str) -> Option<&str> {
        let exact =
            |r: &&Requirement| matches!(r.operator, Operator::Equals | Operator::DoubleEquals | Operator::In);
        match self.requirements.iter().filter(|r| r.key == key).find(exact)?.values.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}
