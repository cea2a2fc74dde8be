//! From a definition to kinds.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    JSONSchemaProps,
};
use serde_json::Value;

use super::json_path::JsonPath;
use super::schema::Schema;
use super::{names, publish};
use crate::conversion::{ConversionError, StoredForm};
use crate::field::{FieldErrors, FieldPath};
use crate::kind::{Cell, Column, Converter, Kind, Name, age, human_duration};
use crate::object::{DecodeError, Decoded, Object};
use crate::scale::ScalePaths;
use crate::unstructured::Unstructured;

/// The kinds that a definition describes, one a version that is served, under the names that it was granted. Of a
/// definition that is being deleted, the stored version is among them in any case, so that its objects can be removed.
///
/// # Errors
/// The definition is not valid; the errors are those of [`super::definition::validate`].
pub fn kinds(crd: &CustomResourceDefinition) -> Result<Vec<Kind>, FieldErrors> {
    let going = crd.metadata.deletion_timestamp.is_some();
    let versions = FieldPath::new("spec").child("versions");
    let wanted = crd.spec.versions.iter().enumerate().filter(|(_, v)| v.served || going && v.storage);
    wanted.map(|(i, version)| kind(crd, version, &versions.index(i))).collect()
}

fn kind(
    crd: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
    path: &FieldPath,
) -> Result<Kind, FieldErrors> {
    let any = JSONSchemaProps::default();
    let props = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).unwrap_or(&any);
    let mut schema = Schema::compile(props, &path.child("schema").child("openAPIV3Schema"))?;
    // A relic: definitions that were made before there were schemas.
    schema.preserve |= crd.spec.preserve_unknown_fields.unwrap_or(false);
    let schema = Arc::new(schema);
    let accepted = names::accepted(crd);
    let subresources = version.subresources.as_ref();
    let status = subresources.is_some_and(|s| s.status.is_some());

    let decode = decode(&format!("{}/{}", crd.spec.group, version.name), &accepted.kind, &schema);
    let mut kind = Kind::bare(accepted.kind.clone(), |o| o.as_unstructured().is_some(), decode);
    let name = |text: &str| Name::from(text.to_owned());
    kind.group = name(&crd.spec.group);
    kind.version = name(&version.name);
    kind.plural = name(&accepted.plural);
    if let Some(singular) = accepted.singular.as_deref().filter(|s| !s.is_empty()) {
        kind.singular = name(singular);
    }
    kind.short_names = accepted.short_names.iter().flatten().map(|n| name(n)).collect();
    kind.categories = accepted.categories.iter().flatten().map(|n| name(n)).collect();
    kind.namespaced = crd.spec.scope == "Namespaced";
    kind.custom = true;
    kind.terminating = crd.metadata.deletion_timestamp.is_some();
    kind.deprecation = version.deprecated.unwrap_or(false).then(|| {
        let plain = || format!("{}/{} {} is deprecated", crd.spec.group, version.name, accepted.kind);
        version.deprecation_warning.clone().unwrap_or_else(plain)
    });
    kind.runs_rules = schema.rules_below;
    kind.status = status;
    kind.generation = true;
    kind.scale = subresources.and_then(|s| s.scale.as_ref()).map(|scale| {
        let selector = scale.label_selector_path.as_deref();
        ScalePaths::new(&scale.spec_replicas_path, &scale.status_replicas_path, selector)
    });
    if kind.scale.is_some() {
        kind.subresources.push("scale".into());
    }
    let (columns, cells) = columns(version.additional_printer_columns.as_deref().unwrap_or_default());
    kind.columns = columns;
    kind.row = Some(Box::new(move |object, now| row(object, &cells, now)));
    kind.fields = version
        .selectable_fields
        .iter()
        .flatten()
        .filter_map(|field| Some((field.json_path.parse::<JsonPath>().ok()?, &field.json_path)))
        .map(|(path, text)| {
            let shown = name(text.trim_start_matches('.'));
            let value = move |object: &dyn Object| path.first(tree(object)).map(text_of).unwrap_or_default();
            (shown, Box::new(value) as Box<_>)
        })
        .collect();

    let schema_of = schema.clone();
    kind.defaults = Some(Box::new(move |object| schema_of.fill(&mut tree_mut(object).fields)));
    if status {
        kind.prepare = Some(Box::new(|object| drop(tree_mut(object).fields.remove("status"))));
    }
    let schema_of = schema.clone();
    kind.validate = Some(Box::new(move |object| schema_of.validate(tree(object), None)));
    let schema_of = schema.clone();
    kind.validate_change = Some(Box::new(move |new, old| schema_of.validate(tree(new), Some(tree(old)))));
    let published = publish::schema(props, &accepted.kind);
    kind.schema = Some(Box::new(move || published.clone()));
    let form = Form::new(crd, &kind, schema);
    let conversion = crd.spec.conversion.as_ref().filter(|c| c.strategy == "Webhook");
    kind.converter = conversion
        .and_then(|c| c.webhook.clone())
        .map(|webhook| Converter { webhook, stored: form.stored.clone() });
    kind.form = Some(Box::new(form));
    Ok(kind)
}

fn tree(object: &dyn Object) -> &Unstructured {
    object.as_unstructured().expect("a kind is only given objects that it decoded")
}

fn tree_mut(object: &mut dyn Object) -> &mut Unstructured {
    object.as_unstructured_mut().expect("a kind is only given objects that it decoded")
}

type Decode = Box<dyn Fn(&[u8]) -> Result<Decoded, DecodeError> + Send + Sync>;

fn decode(api_version: &str, kind: &str, schema: &Arc<Schema>) -> Decode {
    let (api_version, kind, schema) = (api_version.to_owned(), kind.to_owned(), schema.clone());
    Box::new(move |json| {
        let mut unknown = Vec::new();
        let mut object = Unstructured::read(json, &mut unknown)?;
        object.check_depth()?;
        // What it is, is a matter of where it stands.
        object.api_version.clone_from(&api_version);
        object.kind.clone_from(&kind);
        schema.prune(&mut object.fields, &mut unknown);
        Ok(Decoded { object: Box::new(object), unknown })
    })
}

/// A column's way to its value, and the type that this has.
type CellSource = (Option<JsonPath>, String);

fn columns(definitions: &[CustomResourceColumnDefinition]) -> (Vec<Column>, Vec<CellSource>) {
    let mut columns = vec![Column::name()];
    if definitions.is_empty() {
        columns.push(Column::age());
        return (columns, vec![(None, "age".to_owned())]);
    }
    let mut cells = Vec::new();
    for column in definitions {
        let name = |text: &str| Name::from(text.to_owned());
        let mut shown = Column::name();
        shown.name = name(&column.name);
        shown.type_ = name(&column.type_);
        shown.format = name(column.format.as_deref().unwrap_or_default());
        shown.description = match column.description.as_deref() {
            Some(words) if !words.is_empty() => name(words),
            _ => {
                name(&format!("Custom resource definition column (in JSONPath format): {}", column.json_path))
            }
        };
        shown.priority = column.priority.unwrap_or(0);
        columns.push(shown);
        cells.push((column.json_path.parse().ok(), column.type_.clone()));
    }
    (columns, cells)
}

fn row(object: &dyn Object, cells: &[CellSource], now: Timestamp) -> Vec<Cell> {
    let name = object.metadata().name.clone().unwrap_or_default().into();
    let cells = cells.iter().map(|(path, type_)| match path {
        Some(path) => path.first(tree(object)).map_or(Value::Null, |value| cell(type_, value, now)),
        None if type_ == "age" => age(object, now).into(),
        None => Value::Null,
    });
    std::iter::once(name).chain(cells).collect()
}

fn cell(type_: &str, value: Value, now: Timestamp) -> Cell {
    match (type_, value) {
        (_, Value::Null) => Value::Null,
        ("string", value) => text_of(value).into(),
        ("integer", Value::Number(n)) => match n.as_f64() {
            Some(float) if !n.is_i64() && !n.is_u64() => (float as i64).into(),
            _ => Value::Number(n),
        },
        ("number", value @ Value::Number(_)) | ("boolean", value @ Value::Bool(_)) => value,
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(then) => human_duration(now.as_second() - then.as_second()).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// How instances are stored: in the storage version, as whole trees.
struct Form {
    resource: String,
    /// The `apiVersion`s that are served and stored.
    served: String,
    stored: String,
    kind: String,
    /// Whether versions differ in nothing but their name.
    trivial: bool,
    schema: Arc<Schema>,
}

impl Form {
    fn new(crd: &CustomResourceDefinition, kind: &Kind, schema: Arc<Schema>) -> Self {
        let storage = crd.spec.versions.iter().find(|v| v.storage).map_or("", |v| v.name.as_str());
        Self {
            resource: kind.qualified(),
            served: kind.api_version(),
            stored: format!("{}/{storage}", crd.spec.group),
            kind: kind.kind.to_string(),
            trivial: crd.spec.conversion.as_ref().is_none_or(|c| c.strategy == "None"),
            schema,
        }
    }

    /// Whether an object can be had in another version.
    fn convertible(&self, from: &str, to: &str) -> Result<(), ConversionError> {
        if self.trivial || from == to {
            return Ok(());
        }
        Err(ConversionError(format!(
            "conversion webhook for {from}, Kind={} failed: it was not asked for {to}",
            self.kind
        )))
    }
}

impl StoredForm for Form {
    fn resource(&self) -> &str {
        &self.resource
    }

    fn is_hub(&self) -> bool {
        self.served == self.stored
    }

    fn store(&self, object: &dyn Object) -> Result<Vec<u8>, ConversionError> {
        self.convertible(&self.served, &self.stored)?;
        if self.is_hub() {
            return Ok(object.to_json());
        }
        let mut object = tree(object).clone();
        object.api_version.clone_from(&self.stored);
        Ok(object.to_json())
    }

    fn serve(&self, stored: &[u8]) -> Result<Option<Vec<u8>>, ConversionError> {
        let damaged = |e: DecodeError| ConversionError(format!("what is stored cannot be read: {e}"));
        let mut unknown = Vec::new();
        let mut object = Unstructured::read(stored, &mut unknown).map_err(damaged)?;
        let renamed = object.api_version != self.served;
        if renamed {
            self.convertible(&object.api_version, &self.served)?;
            object.api_version.clone_from(&self.served);
        }
        // The schema may have changed since it was written.
        self.schema.prune(&mut object.fields, &mut unknown);
        if self.schema.defaults_below {
            self.schema.fill(&mut object.fields);
        } else if !renamed && unknown.is_empty() {
            return Ok(None);
        }
        let json = object.to_json();
        Ok((json != stored).then_some(json))
    }
}
