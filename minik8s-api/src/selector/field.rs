//! Field selectors.

use std::fmt;

use super::SelectorError;

/// How a requirement looks at a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOp {
    /// `path = value` or `path == value`
    Equals,
    /// `path != value`
    NotEquals,
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field, such as `spec.nodeName`.
    pub path: String,
    /// How to compare.
    pub op: FieldOp,
    /// With what.
    pub value: String,
}

/// Conditions on fields that must all hold. Without any it takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads the form of `kubectl --field-selector` and of the `fieldSelector` parameter: `path=value`,
    /// `path==value` and `path!=value`, joined by commas. In a value, `\` stands before `,`, `=` and `\`.
    ///
    /// # Errors
    /// A term has no operator, or a value has a stray `=` or `\`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            let (path, op, value) = split_term(term).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })?;
            requirements.push(FieldRequirement { path: path.to_owned(), op, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }

    /// The conditions, as they were written.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it takes every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object is meant whose fields `get` reads; a field it does not have counts as empty.
    pub fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        self.requirements.iter().all(|r| {
            let equal = get(&r.path).unwrap_or_default() == r.value;
            equal == (r.op == FieldOp::Equals)
        })
    }

    /// The value that the field `path` must have, if the selector says so: what an index can use.
    pub fn exact_value(&self, path: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.path == path && r.op == FieldOp::Equals).map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let op = if r.op == FieldOp::Equals { "=" } else { "!=" };
            write!(f, "{}{op}", r.path)?;
            for c in r.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// The parts between commas that no backslash stands before.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// At the first operator.
fn split_term(term: &str) -> Option<(&str, FieldOp, &str)> {
    let at = term.char_indices().find(|&(i, c)| c == '=' || term[i..].starts_with("!="))?.0;
    let (path, rest) = term.split_at(at);
    let (op, length) = match rest {
        r if r.starts_with("!=") => (FieldOp::NotEquals, 2),
        r if r.starts_with("==") => (FieldOp::Equals, 2),
        _ => (FieldOp::Equals, 1),
    };
    Some((path, op, &rest[length..]))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence = other.map(String::from).unwrap_or_default();
                    let message = format!("invalid field selector: invalid escape sequence: \\{sequence}");
                    return Err(SelectorError(message));
                }
            },
            ',' | '=' => {
                let message = format!("invalid field selector: unescaped character in value: {c}");
                return Err(SelectorError(message));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}
