//! What a server must know of a kind: its names, and what to do with its objects.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::WebhookConversion;
use serde_json::Value;

use crate::conversion::{ConversionError, StoredForm, TypedForm};
use crate::field::FieldErrors;
use crate::object::{DecodeError, Decoded, Object, Resource, decode};
use crate::patch::apply::Schema;
use crate::scale::ScalePaths;

pub(crate) type Name = Cow<'static, str>;

/// A column of the table that `kubectl get` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading, such as `Ready`.
    pub name: Name,
    /// The OpenAPI type of its cells: `string`, `integer`, `date`, …
    pub type_: Name,
    /// The OpenAPI format: `name` for the column that names the object.
    pub format: Name,
    /// What it says.
    pub description: Name,
    /// Above 0 it is shown with `-o wide` only.
    pub priority: i32,
}

impl Column {
    /// A column of text that is always shown.
    pub const fn new(name: &'static str, description: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            type_: Cow::Borrowed("string"),
            format: Cow::Borrowed(""),
            description: Cow::Borrowed(description),
            priority: 0,
        }
    }

    /// The column that names the object.
    pub fn name() -> Self {
        let mut column = Self::new("Name", "Name must be unique within a namespace.");
        column.format = Cow::Borrowed("name");
        column
    }

    /// The column that holds how long the object has existed.
    pub fn age() -> Self {
        Self::new("Age", "How long ago the object was created.")
    }

    /// The same column, of whole numbers.
    #[must_use]
    pub fn integer(mut self) -> Self {
        self.type_ = Cow::Borrowed("integer");
        self
    }

    /// The same column, shown with `-o wide` only.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// A webhook that converts objects between the versions of their kind.
#[derive(Clone, Debug)]
pub struct Converter {
    /// Where it is.
    pub webhook: WebhookConversion,
    /// The `apiVersion` in which objects are stored.
    pub stored: String,
}

/// One cell of a table: text or a number.
pub type Cell = Value;

type OwnsFn = fn(&dyn Object) -> bool;
type DecodeFn = Box<dyn Fn(&[u8]) -> Result<Decoded, DecodeError> + Send + Sync>;
type DefaultFn = Box<dyn Fn(&mut dyn Object) + Send + Sync>;
type ValidateFn = Box<dyn Fn(&dyn Object) -> FieldErrors + Send + Sync>;
type ValidateUpdateFn = Box<dyn Fn(&dyn Object, &dyn Object) -> FieldErrors + Send + Sync>;
type ValidateChangeFn = Box<dyn Fn(&dyn Object, &dyn Object) -> FieldErrors + Send + Sync>;
type CreateFn = Box<dyn Fn(&mut dyn Object) + Send + Sync>;
type RowFn = Box<dyn Fn(&dyn Object, Timestamp) -> Vec<Cell> + Send + Sync>;
type FieldFn = Box<dyn Fn(&dyn Object) -> String + Send + Sync>;
type SchemaFn = Box<dyn Fn() -> Value + Send + Sync>;

/// A kind: its names and the functions that a server calls on objects whose type it does not know.
///
/// ```
/// use k8s_openapi::api::core::v1::ConfigMap;
/// use minik8s_api::Kind;
///
/// let kind = Kind::of::<ConfigMap>().short_names(&["cm"]).build();
/// assert_eq!(kind.plural, "configmaps");
/// assert!(kind.namespaced);
/// ```
#[non_exhaustive]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: Name,
    /// The version, such as `v1`.
    pub version: Name,
    /// The kind in CamelCase, such as `ConfigMap`.
    pub kind: Name,
    /// The name in paths, such as `configmaps`.
    pub plural: Name,
    /// The name of one, such as `configmap`.
    pub singular: Name,
    /// Abbreviations that the command line takes.
    pub short_names: Vec<Name>,
    /// Groups of kinds that it belongs to, such as `all`.
    pub categories: Vec<Name>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `/status` is a resource of its own, written apart from the rest.
    pub status: bool,
    /// Whether objects are kept. Those of the other kinds are answered and forgotten: they can be created, no more.
    pub stored: bool,
    /// What `/scale` shows, for kinds that can be scaled.
    pub scale: Option<ScalePaths>,
    /// Further subresources, by name, such as `log` or `binding`.
    pub subresources: Vec<Name>,
    /// Whether `DELETE` answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Seconds that an object of this kind is given to end after a `DELETE` without `gracePeriodSeconds`, read from
    /// the object itself. `None`: it is removed at once.
    grace: Option<fn(&dyn Object) -> i64>,
    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// Columns of its table.
    pub columns: Vec<Column>,
    /// Whether it came with a custom resource definition, and may change or go while a server runs.
    pub custom: bool,
    /// Whether its definition is being deleted, so that no new objects may be made.
    pub terminating: bool,
    /// The webhook that knows how to get from one version of the kind to another, if the definition names one: objects
    /// of another version must have been to it before they come to [`Self::to_stored`] or [`Self::from_stored`].
    pub converter: Option<Converter>,
    /// Whether checking an object runs rules that somebody wrote, which may take tenths of a second.
    pub runs_rules: bool,
    /// What to tell users of a version that will go.
    pub deprecation: Option<String>,
    owns: OwnsFn,
    decode: DecodeFn,
    pub(crate) defaults: Option<DefaultFn>,
    pub(crate) prepare: Option<CreateFn>,
    pub(crate) validate: Option<ValidateFn>,
    validate_update: Option<ValidateUpdateFn>,
    /// Takes the place of `validate` and `validate_update` for changes, those of the status included.
    pub(crate) validate_change: Option<ValidateChangeFn>,
    pub(crate) row: Option<RowFn>,
    pub(crate) fields: Vec<(Name, FieldFn)>,
    pub(crate) schema: Option<SchemaFn>,
    pub(crate) form: Option<Box<dyn StoredForm>>,
    apply_schema: OnceLock<Schema>,
}

impl Kind {
    /// Describes `K`, to be completed by the builder's methods.
    pub fn of<K: Resource>() -> KindBuilder<K> {
        let owns = |object: &dyn Object| (object as &dyn Any).is::<K>();
        let mut kind = Self::bare(K::kind(&()).into_owned(), owns, Box::new(decode::<K>));
        kind.group = K::group(&()).into_owned().into();
        kind.version = K::version(&()).into_owned().into();
        kind.plural = K::plural(&()).into_owned().into();
        kind.namespaced = TypeId::of::<K::Scope>() == TypeId::of::<NamespaceResourceScope>();
        KindBuilder { kind, _type: PhantomData }
    }

    /// A kind of which nothing is known but how to read its objects.
    pub(crate) fn bare(kind: String, owns: OwnsFn, decode: DecodeFn) -> Self {
        Self {
            group: Name::default(),
            version: Name::default(),
            plural: Name::default(),
            singular: kind.to_lowercase().into(),
            kind: kind.into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: false,
            status: false,
            stored: true,
            subresources: Vec::new(),
            returns_deleted: false,
            grace: None,
            generation: false,
            columns: vec![Column::name(), Column::age()],
            scale: None,
            custom: false,
            converter: None,
            terminating: false,
            runs_rules: false,
            deprecation: None,
            owns,
            decode,
            defaults: None,
            prepare: None,
            validate: None,
            validate_update: None,
            validate_change: None,
            row: None,
            fields: Vec::new(),
            schema: None,
            apply_schema: OnceLock::new(),
            form: None,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`: how errors name the resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// What can be done with its objects, as discovery lists it.
    pub fn verbs(&self) -> &'static [&'static str] {
        const ALL: &[&str] =
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        match self.kind.as_ref() {
            _ if !self.stored => &["create"],
            _ if self.terminating => &["delete", "deletecollection", "get", "list", "watch"],
            // Nobody means to delete all of them.
            "Namespace" if self.group.is_empty() => {
                &["create", "delete", "get", "list", "patch", "update", "watch"]
            }
            _ => ALL,
        }
    }

    /// Whether `object` is of the type in which this kind's functions take objects. Others are read anew from their
    /// JSON, such as the typed object of a kind that is served by its definition.
    pub fn owns(&self, object: &dyn Object) -> bool {
        (self.owns)(object)
    }

    /// The resource under which the objects are stored: [`Self::qualified`], if no other kind is their stored form.
    pub fn stored_resource(&self) -> Cow<'_, str> {
        match &self.form {
            Some(form) => form.resource().into(),
            None => self.qualified().into(),
        }
    }

    /// Whether objects are stored in this version of the kind, and not in another that they are converted to.
    pub fn is_stored_form(&self) -> bool {
        self.form.as_ref().is_none_or(|f| f.is_hub())
    }

    /// Whether what is stored may differ from what is served, so that it must go through [`Self::from_stored`].
    pub fn is_converted(&self) -> bool {
        self.form.is_some()
    }

    /// The JSON text to store for an object.
    ///
    /// # Errors
    /// It cannot be converted to the version in which the kind is stored.
    pub fn to_stored(&self, object: &dyn Object) -> Result<Vec<u8>, ConversionError> {
        match &self.form {
            Some(form) => form.store(object),
            None => Ok(object.to_json()),
        }
    }

    /// The JSON text to serve for one that is stored; `None` if that is the same.
    ///
    /// # Errors
    /// It cannot be converted to this version of the kind.
    pub fn from_stored(&self, stored: &[u8]) -> Result<Option<Vec<u8>>, ConversionError> {
        match &self.form {
            Some(form) => form.serve(stored),
            None => Ok(None),
        }
    }

    /// Reads an object from JSON text.
    ///
    /// # Errors
    /// The text is not JSON, or a field has the wrong type; the error names the field.
    pub fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        (self.decode)(json)
    }

    /// Reads an object from a JSON tree.
    ///
    /// # Errors
    /// A field has the wrong type; the error names it.
    pub fn decode_value(&self, value: &Value) -> Result<Decoded, DecodeError> {
        // Through text: reading trees too would double the code of every kind, which is what takes long to compile.
        self.decode(value.to_string().as_bytes())
    }

    /// Fills in what was left out, as Kubernetes does.
    pub fn default(&self, object: &mut dyn Object) {
        if let Some(defaults) = &self.defaults {
            defaults(object);
        }
    }

    /// Readies an object for its creation: drops what a client may not choose, such as a status.
    pub fn prepare_for_create(&self, object: &mut dyn Object) {
        if let Some(prepare) = &self.prepare {
            prepare(object);
        }
    }

    /// What is wrong with the object. Metadata is checked elsewhere.
    pub fn validate(&self, object: &dyn Object) -> FieldErrors {
        self.validate.as_ref().map(|f| f(object)).unwrap_or_default()
    }

    /// What is wrong with `new` in place of `old`: changes of immutable fields.
    pub fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> FieldErrors {
        self.validate_update.as_ref().map(|f| f(new, old)).unwrap_or_default()
    }

    /// What is wrong with `new` in place of `old`, where the change is about everything but the status, or about the
    /// status alone.
    pub fn validate_change(&self, new: &dyn Object, old: &dyn Object, status: bool) -> FieldErrors {
        match &self.validate_change {
            Some(validate) => validate(new, old),
            // The status of a built-in kind is what its controllers make it.
            None if status => FieldErrors::new(),
            None => {
                let mut errors = self.validate(new);
                errors.extend(self.validate_update(new, old));
                errors
            }
        }
    }

    /// The object's row of the table, one cell a column.
    pub fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Cell> {
        match &self.row {
            Some(row) => row(object, now),
            None => vec![object.metadata().name.clone().unwrap_or_default().into(), age(object, now).into()],
        }
    }

    /// The value of a field that a field selector may name; `None` for a field that may not be selected by.
    pub fn selectable_field(&self, object: &dyn Object, path: &str) -> Option<String> {
        match path {
            "metadata.name" => object.metadata().name.clone().or_else(|| Some(String::new())),
            "metadata.namespace" if self.namespaced => {
                object.metadata().namespace.clone().or_else(|| Some(String::new()))
            }
            _ => self.fields.iter().find(|(name, _)| name == path).map(|(_, f)| f(object)),
        }
    }

    /// Whether a field selector may name `path`.
    pub fn is_selectable(&self, path: &str) -> bool {
        path == "metadata.name"
            || (path == "metadata.namespace" && self.namespaced)
            || self.fields.iter().any(|(name, _)| name == path)
    }

    /// The fields that field selectors may name.
    pub fn selectable_paths(&self) -> Vec<&str> {
        let metadata = ["metadata.name"].into_iter().chain(self.namespaced.then_some("metadata.namespace"));
        metadata.chain(self.fields.iter().map(|(name, _)| name.as_ref())).collect()
    }

    /// The values of all fields that field selectors may name.
    pub fn selectable_fields(&self, object: &dyn Object) -> Vec<(Cow<'static, str>, String)> {
        let metadata = object.metadata();
        let name = (Cow::Borrowed("metadata.name"), metadata.name.clone().unwrap_or_default());
        let namespace = self
            .namespaced
            .then(|| (Cow::Borrowed("metadata.namespace"), metadata.namespace.clone().unwrap_or_default()));
        let own = self.fields.iter().map(|(name, f)| (name.clone(), f(object)));
        std::iter::once(name).chain(namespace).chain(own).collect()
    }

    /// Seconds to end gracefully when the `DELETE` does not say; `None` if objects of this kind just go.
    pub fn grace_period(&self, object: &dyn Object) -> Option<i64> {
        self.grace.map(|f| f(object))
    }

    /// The kind's JSON schema with its definitions under `$defs`, where it has one.
    pub fn schema(&self) -> Option<Value> {
        self.schema.as_ref().map(|f| f())
    }

    /// What server-side apply must know of the kind's objects. The first call reads it from [`Kind::schema`].
    pub fn apply_schema(&self) -> &Schema {
        self.apply_schema.get_or_init(|| match self.schema() {
            Some(schema) => Schema::of(&schema),
            None => Schema::untyped(),
        })
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({}, {})", self.api_version(), self.kind)
    }
}

/// Completes a [`Kind`] with what is special about `K`.
#[must_use = "call `build`"]
pub struct KindBuilder<K> {
    kind: Kind,
    _type: PhantomData<fn(K)>,
}

impl<K> fmt::Debug for KindBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KindBuilder({:?})", self.kind)
    }
}

impl<K: Resource> KindBuilder<K> {
    /// Abbreviations for the command line.
    pub fn short_names(mut self, names: &[&'static str]) -> Self {
        self.kind.short_names = names.iter().map(|&n| n.into()).collect();
        self
    }

    /// Groups of kinds it is listed with.
    pub fn categories(mut self, names: &[&'static str]) -> Self {
        self.kind.categories = names.iter().map(|&n| n.into()).collect();
        self
    }

    /// Its status is written through `/status` only, and its generation counts changes of its spec.
    pub fn status(mut self) -> Self {
        self.kind.status = true;
        self.kind.generation = true;
        self
    }

    /// Whether `metadata.generation` counts changes of its spec, where that does not follow from [`Self::status`].
    pub fn generation(mut self, counts: bool) -> Self {
        self.kind.generation = counts;
        self
    }

    /// Further subresources.
    pub fn subresources(mut self, names: &[&'static str]) -> Self {
        self.kind.subresources.extend(names.iter().map(|&n| n.into()));
        self
    }

    /// It can be scaled: `/scale` shows what is at these paths, such as `.spec.replicas`.
    pub fn scale(mut self, spec_replicas: &str, status_replicas: &str, label_selector: &str) -> Self {
        self.kind.scale = Some(ScalePaths::new(spec_replicas, status_replicas, Some(label_selector)));
        self.subresources(&["scale"])
    }

    /// Its objects are questions, which are answered and not kept.
    pub fn not_stored(mut self) -> Self {
        self.kind.stored = false;
        self
    }

    /// `DELETE` answers with the object.
    pub fn returns_deleted(mut self) -> Self {
        self.kind.returns_deleted = true;
        self
    }

    /// Objects end gracefully, in the seconds that `grace` reads from them.
    pub fn graceful(mut self, grace: fn(&dyn Object) -> i64) -> Self {
        self.kind.grace = Some(grace);
        self
    }

    /// Fills in what was left out.
    pub fn defaults(mut self, f: fn(&mut K)) -> Self {
        self.kind.defaults = Some(Box::new(move |o| f(typed_mut(o))));
        self
    }

    /// Drops what a creator may not set.
    pub fn prepare_for_create(mut self, f: fn(&mut K)) -> Self {
        self.kind.prepare = Some(Box::new(move |o| f(typed_mut(o))));
        self
    }

    /// Checks an object.
    pub fn validate(mut self, f: fn(&K) -> FieldErrors) -> Self {
        self.kind.validate = Some(Box::new(move |o| f(typed(o))));
        self
    }

    /// Checks a change: `f(new, old)`.
    pub fn validate_update(mut self, f: fn(&K, &K) -> FieldErrors) -> Self {
        self.kind.validate_update = Some(Box::new(move |new, old| f(typed(new), typed(old))));
        self
    }

    /// Its table.
    pub fn table(mut self, columns: Vec<Column>, row: fn(&K, Timestamp) -> Vec<Cell>) -> Self {
        self.kind.columns = columns;
        self.kind.row = Some(Box::new(move |o, now| row(typed(o), now)));
        self
    }

    /// A field that field selectors may name.
    pub fn selectable(mut self, path: &'static str, f: fn(&K) -> String) -> Self {
        self.kind.fields.push((path.into(), Box::new(move |o| f(typed(o)))));
        self
    }

    /// Publishes the schema that `K` derives.
    pub fn schema(mut self) -> Self
    where
        K: schemars::JsonSchema,
    {
        self.kind.schema =
            Some(Box::new(|| schemars::SchemaGenerator::default().into_root_schema_for::<K>().to_value()));
        self
    }

    /// Its objects are stored as `Hub`s, which is another version of the kind: `to` and `from` convert.
    pub fn stored_as<Hub: Resource>(mut self, to: fn(&K) -> Hub, from: fn(&Hub) -> K) -> Self {
        self.kind.form = Some(Box::new(TypedForm::new(to, from)));
        self
    }

    /// The kind.
    pub fn build(self) -> Kind {
        self.kind
    }
}

fn typed<K: Resource>(object: &dyn Object) -> &K {
    object.downcast_ref().expect("a kind is only given objects that it decoded")
}

fn typed_mut<K: Resource>(object: &mut dyn Object) -> &mut K {
    object.downcast_mut().expect("a kind is only given objects that it decoded")
}

/// How long ago the object was created, as `kubectl` words it; `<unknown>` before it has been.
pub fn age(object: &dyn Object, now: Timestamp) -> String {
    match &object.metadata().creation_timestamp {
        Some(created) => human_duration(now.as_second() - created.0.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in at most two units: `45s`, `3m20s`, `5h`, `2d4h`, `3y12d`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        ..0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}
