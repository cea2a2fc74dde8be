//! Manifests: YAML or JSON text with any number of objects in it.

mod error;
mod json;
mod node;

use serde::de::DeserializeSeed;
use serde_json::Value;

pub use error::{ManifestError, ManifestErrors};
use node::{Budget, Node};

use crate::patch::merge_keys;
use crate::registry::Registry;

/// The largest manifest that is read: 3 MiB.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it comes from, such as the name of the file.
    pub source: String,
    /// Which document of the source it stands in, beginning with 0; empty ones do not count.
    pub index: usize,
    /// The first line of that document that says something, beginning with 1.
    pub line: usize,
    /// The object, which has an `apiVersion` and a `kind`.
    pub value: Value,
}

impl Document {
    /// The `apiVersion` of the object.
    pub fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    /// The `kind` of the object.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }
}

/// The objects in `text`, which comes from `source`. Documents are divided by lines of `---`; empty ones are skipped,
/// and a list stands for its items.
///
/// It reads what Kubernetes reads: numbers and booleans as keys become texts, `<<` merges, `defaultMode: 0644` is
/// octal. A key that stands twice in one map is refused, since one of the two would be lost.
///
/// ```
/// let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n# nothing\n---\n{apiVersion: v1, kind: Node}";
/// let documents = minik8s_api::manifest::load("x.yaml", text).unwrap();
/// assert_eq!(documents.len(), 2);
/// assert_eq!((documents[1].kind(), documents[1].line), ("Node", 7));
/// ```
///
/// # Errors
/// All documents that cannot be read, each with its place; or the text is larger than [`MAX_BYTES`].
pub fn load(source: &str, text: &str) -> Result<Vec<Document>, ManifestErrors> {
    let error = |index, line, column, message: String, hint| ManifestError {
        source: source.to_owned(),
        index,
        line,
        column,
        message,
        hint,
    };
    if text.len() > MAX_BYTES {
        let message = format!("{} bytes are more than the {MAX_BYTES} that a manifest may have", text.len());
        return Err(ManifestErrors(vec![error(0, 1, 1, message, None)]));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut budget = Budget::default();
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for (index, part) in split(text).into_iter().enumerate() {
        match part.parse(&mut budget) {
            Err(bad) => {
                errors.push(error(index, bad.line, bad.column, bad.message, bad.hint));
            }
            Ok(values) => {
                for value in values {
                    let line = part.first_line();
                    match objects(value) {
                        Ok(values) => documents.extend(values.into_iter().map(|value| Document {
                            source: source.to_owned(),
                            index,
                            line,
                            value,
                        })),
                        Err((message, hint)) => errors.push(error(index, line, 1, message, hint)),
                    }
                }
            }
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(ManifestErrors(errors)) }
}

/// The one object of a YAML text as JSON text, in which keys that stand twice are left as they are. `source` names the
/// text in errors.
///
/// # Errors
/// It is no YAML, or not one object; the text says what is wrong with it.
pub fn to_json(source: &str, text: &str) -> Result<Vec<u8>, String> {
    if let Some(json) = json::of(text) {
        return Ok(json);
    }
    let documents = load(source, text).map_err(|e| e.to_string())?;
    match documents.as_slice() {
        [one] => Ok(one.value.to_string().into_bytes()),
        many => Err(format!("{source} holds {} documents, not one", many.len())),
    }
}

/// The text of one document.
struct Part {
    text: String,
    /// The line of the source at which it begins, beginning with 1.
    line: usize,
}

/// Why a document cannot be read.
struct Bad {
    line: usize,
    column: usize,
    message: String,
    hint: Option<String>,
}

/// Divides `text` at the lines of `---`. Parts without content are left out.
fn split(text: &str) -> Vec<Part> {
    let mut parts = vec![Part { text: String::new(), line: 1 }];
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            |m: &str| line.strip_prefix(m).filter(|r| r.is_empty() || r.starts_with([' ', '\t', '\r', '\n']));
        if let Some(rest) = marker("---") {
            // What stands behind the marker belongs to the new document.
            parts.push(Part { text: format!("   {rest}"), line: i + 1 });
        } else if marker("...").is_some() {
            parts.push(Part { text: "\n".to_owned(), line: i + 1 });
        } else if let Some(part) = parts.last_mut() {
            part.text.push_str(line);
        }
    }
    let content =
        |line: &str| !(line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'));
    parts.retain(|p| p.text.lines().any(content));
    parts
}

impl Part {
    /// The line of its first content.
    fn first_line(&self) -> usize {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        self.line + self.text.lines().take_while(blank).count()
    }

    fn parse(&self, budget: &mut Budget) -> Result<Vec<Value>, Bad> {
        let json = self.text.trim_start().starts_with('{').then(|| self.json(budget));
        match json {
            Some(Ok(values)) => Ok(values),
            // A YAML map may begin like JSON.
            Some(Err(bad)) => self.yaml(budget).map_err(|_| bad),
            None => self.yaml(budget),
        }
    }

    /// JSON objects, one after the other.
    fn json(&self, budget: &mut Budget) -> Result<Vec<Value>, Bad> {
        let mut deserializer = serde_json::Deserializer::from_str(&self.text);
        let mut values = Vec::new();
        while values.is_empty() || deserializer.end().is_err() {
            let value = Node::new(budget).deserialize(&mut deserializer).map_err(|e| Bad {
                line: self.line + e.line().saturating_sub(1),
                column: e.column(),
                message: without_place(&e.to_string()),
                hint: None,
            })?;
            values.push(value);
        }
        Ok(values)
    }

    fn yaml(&self, budget: &mut Budget) -> Result<Vec<Value>, Bad> {
        let deserializer = serde_yaml::Deserializer::from_str(&self.text);
        match Node::new(budget).deserialize(deserializer) {
            Ok(value) => Ok(vec![value]),
            Err(e) => {
                let (line, column) = e.location().map_or((1, 1), |l| (l.line(), l.column()));
                let around = self.text.lines().take(line + 1).skip(line.saturating_sub(2));
                let tab = |l: &str| l[..l.len() - l.trim_start().len()].contains('\t');
                let hint =
                    around.into_iter().any(tab).then(|| "indent with spaces: YAML takes no tabs".to_owned());
                let message = without_place(&e.to_string());
                Err(Bad { line: self.line + line.saturating_sub(1), column, message, hint })
            }
        }
    }
}

/// A parser's message without its places, which we count from the beginning of the file.
fn without_place(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for (index, part) in message.split(" at line ").enumerate() {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = rest.strip_prefix(" column ").unwrap_or(rest);
        out.push_str(if index == 0 { part } else { rest.trim_start_matches(|c: char| c.is_ascii_digit()) });
    }
    out
}

type Complaint = (String, Option<String>);

/// The objects that a document stands for: itself, or the items of a list.
fn objects(value: Value) -> Result<Vec<Value>, Complaint> {
    let Value::Object(mut fields) = value else {
        let found = match value {
            Value::Null => return Ok(Vec::new()),
            Value::Array(_) => "a list",
            Value::String(_) => "a text",
            _ => "a scalar",
        };
        return Err((format!("expected an object, found {found}"), None));
    };
    let text = |fields: &serde_json::Map<String, Value>, key: &str| {
        fields.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned)
    };
    let (api_version, kind) = (text(&fields, "apiVersion"), text(&fields, "kind"));
    let Some(kind) = kind else {
        let near = fields.keys().find(|k| k.eq_ignore_ascii_case("kind") && *k != "kind");
        let hint = match near {
            Some(near) => format!("`{near}` must be written `kind`"),
            None => "every object says what it is, as in `kind: Pod`".to_owned(),
        };
        return Err(("kind is missing".to_owned(), Some(hint)));
    };
    let Some(api_version) = api_version else {
        return Err((format!("apiVersion of the {kind} is missing"), hint_of_version(&fields, &kind)));
    };
    if let Some(item_kind) = kind.strip_suffix("List")
        && let Some(Value::Array(items)) = fields.remove("items")
    {
        let complete = |mut item: Value| {
            // The items of a typed list need not repeat what they are.
            if let Value::Object(fields) = &mut item
                && !item_kind.is_empty()
            {
                fields.entry("apiVersion").or_insert_with(|| api_version.clone().into());
                fields.entry("kind").or_insert_with(|| item_kind.into());
            }
            objects(item)
        };
        return Ok(items.into_iter().map(complete).collect::<Result<Vec<_>, _>>()?.concat());
    }
    let mut value = Value::Object(fields);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    if merge_keys::is_built_in(group) {
        octal_modes(&mut value, false);
    }
    Ok(vec![value])
}

fn hint_of_version(fields: &serde_json::Map<String, Value>, kind: &str) -> Option<String> {
    if let Some(near) = fields.keys().find(|k| k.eq_ignore_ascii_case("apiversion")) {
        return Some(format!("`{near}` must be written `apiVersion`"));
    }
    let registry = Registry::builtin();
    let found = registry.iter().find(|k| k.kind == kind)?;
    Some(format!("add `apiVersion: {}`", found.api_version()))
}

/// Reads the modes of files in volumes as octal where they begin with 0: so does the YAML 1.1 that Kubernetes reads,
/// whereas to YAML 1.2 `0644` is a text.
fn octal_modes(value: &mut Value, in_volumes: bool) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if in_volumes && matches!(key.as_str(), "mode" | "defaultMode") => {
                        let octal =
                            text.strip_prefix('0').and_then(|digits| i32::from_str_radix(digits, 8).ok());
                        if let Some(mode) = octal {
                            *value = mode.into();
                        }
                    }
                    _ => octal_modes(value, in_volumes || key == "volumes"),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| octal_modes(v, in_volumes)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
