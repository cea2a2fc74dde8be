//! Field paths and the errors that name them, worded as Kubernetes words them
//! (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt;

/// The place of a field in an object: `spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path of the field `name` at the top of an object.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The field `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The element `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The entry `key` of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It must be set.
    Required,
    /// Another element of the list has the same value.
    Duplicate,
    /// The value does not have the right form.
    Invalid,
    /// The value is of the wrong type.
    WrongType,
    /// The value is none of those allowed.
    NotSupported,
    /// The value may not be set or changed here.
    Forbidden,
    /// The value is too long.
    TooLong,
    /// The list has too many elements.
    TooMany,
    /// What it refers to does not exist.
    NotFound,
}

impl Fault {
    /// The `reason` of a `StatusCause`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::WrongType => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::WrongType => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

/// One thing wrong with one field. `Display` gives Kubernetes' words:
/// `spec.containers[0].name: Invalid value: "A": must be lower case`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: FieldPath,
    /// What.
    pub fault: Fault,
    /// The offending value as JSON, for the faults that quote it.
    pub value: Option<String>,
    /// What was expected; may be empty.
    pub detail: String,
}

impl FieldError {
    /// The cause's message: everything but the path.
    pub fn body(&self) -> String {
        let mut out = self.fault.words().to_owned();
        if let Some(value) = &self.value {
            out.push_str(": ");
            out.push_str(value);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Everything wrong with an object, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// No errors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `path` must be set. `detail` says why or with what; may be empty.
    pub fn required(&mut self, path: FieldPath, detail: impl Into<String>) {
        self.push(path, Fault::Required, None, detail);
    }

    /// `path` holds `value`, which is not what `detail` asks for.
    pub fn invalid(&mut self, path: FieldPath, value: impl serde::Serialize, detail: impl Into<String>) {
        self.push(path, Fault::Invalid, Some(quote(value)), detail);
    }

    /// `path` holds `value`, which is not of the type that `detail` asks for.
    pub fn wrong_type(&mut self, path: FieldPath, value: impl serde::Serialize, detail: impl Into<String>) {
        self.push(path, Fault::WrongType, Some(quote(value)), detail);
    }

    /// `path` holds `value`, about which there are these `complaints`; none means that it is good.
    pub fn invalid_each(&mut self, path: &FieldPath, value: impl serde::Serialize, complaints: Vec<String>) {
        for complaint in complaints {
            self.invalid(path.clone(), &value, complaint);
        }
    }

    /// `value` stands in the list twice.
    pub fn duplicate(&mut self, path: FieldPath, value: impl serde::Serialize) {
        self.push(path, Fault::Duplicate, Some(quote(value)), "");
    }

    /// `value` is none of `supported`.
    pub fn not_supported(&mut self, path: FieldPath, value: impl serde::Serialize, supported: &[&str]) {
        let list: Vec<_> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        self.push(path, Fault::NotSupported, Some(quote(value)), detail);
    }

    /// `path` may not be set or changed; `detail` says why.
    pub fn forbidden(&mut self, path: FieldPath, detail: impl Into<String>) {
        self.push(path, Fault::Forbidden, None, detail);
    }

    /// `path` may have at most `max` bytes.
    pub fn too_long(&mut self, path: FieldPath, max: usize) {
        self.push(path, Fault::TooLong, None, format!("may not be more than {max} bytes"));
    }

    /// `path` may have at most `max` elements.
    pub fn too_many(&mut self, path: FieldPath, got: usize, max: usize) {
        self.push(path, Fault::TooMany, Some(got.to_string()), format!("must have at most {max} items"));
    }

    /// `path` names `value`, which does not exist.
    pub fn not_found(&mut self, path: FieldPath, value: impl serde::Serialize) {
        self.push(path, Fault::NotFound, Some(quote(value)), "");
    }

    /// All of `other` too.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn push(&mut self, path: FieldPath, fault: Fault, value: Option<String>, detail: impl Into<String>) {
        self.0.push(FieldError { path, fault, value, detail: detail.into() });
    }
}

impl fmt::Display for FieldErrors {
    /// One error as it is, several as `[a, b]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => one.fmt(f),
            many => {
                let list: Vec<_> = many.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", list.join(", "))
            }
        }
    }
}

fn quote(value: impl serde::Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_else(|_| "?".to_owned())
}
