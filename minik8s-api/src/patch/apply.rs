//! Server-side apply: who owns which field of an object, and what a configuration makes of it.
//!
//! The rules are Kubernetes' (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>). Every function here
//! is pure: [`apply()`] and [`update()`] take an object, what is wanted and who owns what, and say what becomes of it.

mod compare;
mod config;
mod conflict;
mod field_set;
mod fields_v1;
mod items;
mod last_applied;
pub mod list_types;
mod manager;
mod merge;
mod path;
mod schema;

use jiff::Timestamp;
use serde_json::Value;

pub use compare::Changes;
pub use config::{SchemaErrors, check};
pub use conflict::{Conflict, Conflicts};
pub use field_set::FieldSet;
pub use manager::{BadManagedFields, Entry, ManagedFields, Operation};
pub use merge::{merge, remove};
pub use path::{BadPathElement, Path, PathElement, Scalar};
pub use schema::Schema;

/// How many entries of updates an object may have before the oldest are merged.
pub const UPDATE_ENTRIES_MAX: usize = 10;

/// Who writes, and what.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The manager's name.
    pub manager: &'a str,
    /// The version of the kind that it writes, such as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource that it writes through; empty for none.
    pub subresource: &'a str,
    /// Whether this field of the object can be written in this way: others are not owned by it.
    pub writes: &'a dyn Fn(&str) -> bool,
    /// The present time.
    pub now: Timestamp,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({:?}, {}, {:?})", self.manager, self.api_version, self.subresource)
    }
}

impl Writer<'_> {
    fn entry(&self, operation: Operation, fields: FieldSet) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: Some(self.now),
            fields,
        }
    }

    /// The set without what nobody can own in this way.
    fn owned(&self, mut fields: FieldSet) -> FieldSet {
        fields.retain_fields(|name| !matches!(name, "apiVersion" | "kind") && (self.writes)(name));
        fields.subtract(&unowned_metadata());
        fields
    }
}

/// What the server says of an object, and nobody owns.
fn unowned_metadata() -> FieldSet {
    let field = |name: &str| PathElement::Field(name.into());
    let mut set = FieldSet::new();
    set.insert(&[field("metadata")]);
    for name in [
        "clusterName",
        "creationTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ] {
        set.insert(&[field("metadata"), field(name)]);
    }
    set
}

/// Who owns what after `live` has become `new` by anything but an apply: the writer owns what it changed.
///
/// To make an object, `live` is [`Schema::zero`].
pub fn update(schema: &Schema, live: &Value, new: &Value, managed: &mut ManagedFields, writer: &Writer<'_>) {
    let changes = Changes::between(schema, live, new);
    disown(managed, &changes);
    let fields = writer.owned(changes.written);
    if !fields.is_empty() {
        let mut entry = writer.entry(Operation::Update, fields);
        match managed.entries.iter_mut().find(|e| e.is_of_same(&entry)) {
            Some(own) => {
                entry.fields = entry.fields.union(&own.fields);
                *own = entry;
            }
            None => managed.entries.push(entry),
        }
    }
    managed.cap_updates(UPDATE_ENTRIES_MAX);
}

/// Takes changed fields from all their owners.
fn disown(managed: &mut ManagedFields, changes: &Changes) {
    if changes.written.is_empty() && changes.removed.is_empty() {
        return;
    }
    managed.entries.retain_mut(|entry| {
        entry.fields.subtract(&changes.written);
        entry.fields.subtract(&changes.removed);
        !entry.fields.is_empty()
    });
}

/// What an apply comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The object, before defaults are filled in.
    pub object: Value,
    /// Who owns what then.
    pub managed: ManagedFields,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that it would change.
    #[error(transparent)]
    Conflicts(#[from] Conflicts),
    /// It is not what the schema asks for.
    #[error(transparent)]
    Schema(#[from] SchemaErrors),
}

/// Applies `config` to `live`, which is `{}` if there is no such object yet. With `force`, the writer takes over what
/// others own.
///
/// # Errors
/// Without `force`, others own fields that would get another value; or the configuration is not what the schema asks
/// for.
pub fn apply(
    schema: &Schema,
    live: &Value,
    config: &Value,
    managed: &ManagedFields,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    check(schema, config)?;
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind") || (writer.writes)(name));
    }
    let mut entry = writer.entry(Operation::Apply, FieldSet::of(schema, &config));
    let mut all = managed.clone();
    let last = all.entries.iter().position(|e| e.is_of_same(&entry)).map(|at| all.entries.remove(at));
    let merged = merge(schema, live, &config);
    let mut object = match &last {
        Some(last) => prune(schema, &merged, &all, &entry.fields, &last.fields),
        None => merged,
    };
    let changes = Changes::between(schema, live, &object);
    if !force {
        let conflicts = conflicts(&all, &changes);
        if !conflicts.0.is_empty() {
            last_applied::allow(schema, live, conflicts, writer)?;
        }
    }
    disown(&mut all, &changes);
    entry.fields = writer.owned(entry.fields.difference(&changes.removed));
    if let Some(last) = last.filter(|l| l.fields == entry.fields && l.api_version == entry.api_version)
        && (changes.written.is_empty() && changes.removed.is_empty())
    {
        entry.time = last.time;
    }
    if !entry.fields.is_empty() {
        all.entries.push(entry);
    }
    last_applied::renew(&mut object, &config, writer);
    Ok(Applied { object, managed: all })
}

fn conflicts(managed: &ManagedFields, changes: &Changes) -> Conflicts {
    let mut conflicts = Vec::new();
    for entry in &managed.entries {
        for path in entry.fields.intersection(&changes.written).paths() {
            conflicts.push(Conflict { owner: conflict::owner(entry), path });
        }
    }
    Conflicts(conflicts)
}

/// `merged` without what the writer applied before, does not apply now, and nobody else owns.
fn prune(
    schema: &Schema,
    merged: &Value,
    others: &ManagedFields,
    config: &FieldSet,
    last: &FieldSet,
) -> Value {
    if last.difference(config).is_empty() {
        return merged.clone();
    }
    let all = |object: &Value| FieldSet::of(schema, object).with_structs(schema);
    let last = last.with_structs(schema);
    let owned = others.entries.iter().fold(config.clone(), |owned, e| owned.union(&e.fields));
    let there = all(merged);
    // Everything but what the writer had, then with what is owned, then with what nobody owns: a field goes with what is
    // below it, so what stays is found by what its parts are.
    let without = remove(schema, merged, &last);
    let kept = all(&without).union(&owned.with_structs(schema));
    let pruned = remove(schema, merged, &there.difference(&kept));
    let gone = there.difference(&all(&pruned)).intersection(&last);
    remove(schema, merged, &gone)
}

#[cfg(test)]
mod tests;
