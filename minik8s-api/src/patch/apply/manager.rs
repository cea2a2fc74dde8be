//! `metadata.managedFields`: who owns what.

use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use serde_json::Value;

use super::field_set::FieldSet;

/// How an entry came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadManagedFields(String);

impl From<super::path::BadPathElement> for BadManagedFields {
    fn from(error: super::path::BadPathElement) -> Self {
        Self(error.to_string())
    }
}

impl ManagedFields {
    /// Reads the entries of an object's metadata.
    ///
    /// # Errors
    /// An entry is of an operation or a form that is not known, or not well-formed.
    pub fn read(entries: &[ManagedFieldsEntry]) -> Result<Self, BadManagedFields> {
        let bad = |why: &str| BadManagedFields(why.to_owned());
        let mut out = Self::default();
        for entry in entries {
            let operation = match entry.operation.as_deref() {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => return Err(bad("operation must be `Apply` or `Update`")),
            };
            let api_version = entry.api_version.clone().unwrap_or_default();
            if api_version.is_empty() {
                return Err(bad("apiVersion must not be empty"));
            }
            if entry.fields_type.as_deref() != Some("FieldsV1") {
                return Err(bad("fieldsType must be `FieldsV1`"));
            }
            let fields = match &entry.fields_v1 {
                Some(fields) => FieldSet::from_fields_v1(&fields.0)?,
                None => FieldSet::new(),
            };
            out.entries.push(Entry {
                manager: entry.manager.clone().unwrap_or_default(),
                operation,
                api_version,
                subresource: entry.subresource.clone().unwrap_or_default(),
                time: entry.time.as_ref().map(|Time(time)| *time),
                fields,
            });
        }
        Ok(out)
    }

    /// Reads the JSON of `metadata.managedFields`.
    ///
    /// # Errors
    /// As [`ManagedFields::read`], or it is no list of entries.
    pub fn from_json(json: &Value) -> Result<Self, BadManagedFields> {
        let entries: Vec<ManagedFieldsEntry> = serde::Deserialize::deserialize(json)
            .map_err(|e: serde_json::Error| BadManagedFields(e.to_string()))?;
        Self::read(&entries)
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
