//! `metadata.managedFields`: who owns what.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::Error;
use serde_json::Value;

use super::field_set::FieldSet;

/// How an entry came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    /// `Apply` or `Update`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What one manager owns by one way of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The manager's name.
    pub manager: String,
    /// How it wrote.
    pub operation: Operation,
    /// The version of the kind that the fields are of, such as `apps/v1`.
    pub api_version: String,
    /// The subresource that it wrote through; empty for none.
    pub subresource: String,
    /// When the entry last changed.
    pub time: Option<Timestamp>,
    /// The fields.
    pub fields: FieldSet,
}

impl Entry {
    /// Whether `other` is an entry of the same manager by the same way. An applier has one whatever the version.
    pub fn is_of_same(&self, other: &Self) -> bool {
        (&self.manager, self.operation, &self.subresource)
            == (&other.manager, other.operation, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// All owners of an object's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    /// In no order that matters.
    pub entries: Vec<Entry>,
}

/// Why `managedFields` cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("managedFields cannot be read: {0}")]
pub struct BadManagedFields(#[from] serde_json::Error);

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(default)]
    manager: String,
    operation: Operation,
    api_version: String,
    #[serde(default)]
    subresource: String,
    time: Option<Time>,
    #[serde(borrow, default)]
    fields_type: Cow<'a, str>,
    fields_v1: Option<FieldSet>,
}

impl TryFrom<Written<'_>> for Entry {
    type Error = serde_json::Error;

    fn try_from(written: Written<'_>) -> Result<Self, serde_json::Error> {
        let Written { manager, operation, api_version, subresource, time, fields_type, fields_v1 } = written;
        if fields_type != "FieldsV1" {
            return Err(serde_json::Error::custom("fieldsType must be `FieldsV1`"));
        }
        if api_version.is_empty() {
            return Err(serde_json::Error::custom("apiVersion must not be empty"));
        }
        let time = time.map(|Time(time)| time);
        Ok(Self { manager, operation, api_version, subresource, time, fields: fields_v1.unwrap_or_default() })
    }
}

impl ManagedFields {
    /// Reads the JSON of `metadata.managedFields`.
    ///
    /// # Errors
    /// An entry is of an operation or a form that is not known, or not well-formed; or it is no list of entries.
    pub fn from_json(json: &[u8]) -> Result<Self, BadManagedFields> {
        let written: Vec<Written<'_>> = serde_json::from_slice(json)?;
        let entries = written.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// The JSON of `metadata.managedFields`, as text. Entries are ordered as Kubernetes does, those by apply first, the
    /// oldest first.
    pub fn to_json(&self) -> String {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_cached_key(|e| {
            let seconds = e.time.map_or(0, Timestamp::as_second);
            (e.operation, seconds, e.manager.clone(), e.api_version.clone(), e.subresource.clone())
        });
        let mut out = String::from("[");
        for (index, entry) in entries.into_iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            entry.write(&mut out);
        }
        out.push(']');
        out
    }

    /// Merges the oldest entries of updates into one of `ancient-changes` a version, until no more than `most` updates
    /// have entries.
    pub fn cap_updates(&mut self, most: usize) {
        let is_update = |e: &Entry| e.operation == Operation::Update;
        let mut updates = self.entries.iter().filter(|e| is_update(e)).count();
        if updates <= most {
            return;
        }
        self.entries.sort_by_cached_key(|e| {
            (e.operation, e.time.map_or(0, Timestamp::as_second), e.manager.clone(), e.subresource.clone())
        });
        let mut kept: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in std::mem::take(&mut self.entries) {
            let bucket = kept.iter_mut().find(|k| is_update(k) && k.api_version == entry.api_version);
            match bucket {
                Some(bucket) if is_update(&entry) && updates > most => {
                    updates -= 1;
                    bucket.manager = ANCIENT.to_owned();
                    bucket.subresource.clear();
                    bucket.fields = bucket.fields.union(&entry.fields);
                    bucket.time = entry.time;
                }
                _ => kept.push(entry),
            }
        }
        self.entries = kept;
    }
}

/// The manager of changes whose authors are not remembered.
const ANCIENT: &str = "ancient-changes";

impl Entry {
    fn write(&self, out: &mut String) {
        let text = |text: &str| Value::from(text).to_string();
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{{\"apiVersion\":{},\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{},\"manager\":{},\"operation\":\"{}\"",
            text(&self.api_version),
            self.fields.to_fields_v1(),
            text(&self.manager),
            self.operation.name(),
        );
        if !self.subresource.is_empty() {
            let _ = write!(out, ",\"subresource\":{}", text(&self.subresource));
        }
        if let Some(time) = self.time {
            // Whole seconds, as all times of metadata.
            let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
            let _ = write!(out, ",\"time\":\"{whole}\"");
        }
        out.push('}');
    }
}
