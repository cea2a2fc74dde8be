//! Server-side apply.

use std::sync::OnceLock;

use jiff::Timestamp;
use minik8s_api::patch::apply::{ApplyError, FieldSet, ManagedFields, Schema, Writer, apply, update};
use serde_json::{Value, json};

use crate::tree;

/// Two managers apply configurations, which stand on a line each; a third makes an update. Applying again what has been
/// applied changes nothing; who owns what is written in a way that is read again to the same; and nothing grows beyond
/// what was put in.
pub(crate) fn holds(data: &[u8]) {
    let Some([first, second]) = tree::lines::<2>(data) else { return };
    if !first.is_object() || !second.is_object() {
        return;
    }
    let kind = |api_version: &str, kind: &str| {
        crate::registry().by_kind(api_version, kind).expect("a kind").apply_schema()
    };
    for schema in [things(), kind("v1", "Pod"), kind("apps/v1", "Deployment")] {
        sequence(schema, &first, &second);
    }
}

fn sequence(schema: &Schema, first: &Value, second: &Value) {
    let put_in = 2 * (tree::size(first) + tree::size(second)) + 64;
    let (mut live, mut managed) = (json!({}), ManagedFields::default());
    for (manager, config) in [("one", first), ("two", second), ("one", second), ("two", first)] {
        let applied = match apply(schema, &live, config, &managed, &writer(manager), false) {
            Err(ApplyError::Conflicts(conflicts)) => {
                assert!(!conflicts.0.is_empty() && managed.entries.iter().any(|e| e.manager != manager));
                apply(schema, &live, config, &managed, &writer(manager), true)
            }
            other => other,
        };
        let Ok(applied) = applied else { return };
        assert!(tree::size(&applied.object) <= put_in, "{}", applied.object);
        is_sound(schema, &applied.managed);
        let again = apply(schema, &applied.object, config, &applied.managed, &writer(manager), false);
        let again = again.unwrap_or_else(|e| panic!("what is applied is no conflict: {e}"));
        assert_eq!(again.object, applied.object, "{manager} applies {config} again");
        assert_eq!(read(&again.managed), read(&applied.managed), "{manager} applies {config} again");
        (live, managed) = (applied.object, applied.managed);
    }
    let new = minik8s_api::patch::merge::apply(&live, first);
    update(schema, &live, &new, &mut managed, &writer("three"));
    is_sound(schema, &managed);
}

/// Who owns what is written in a way that is read again to the same.
fn is_sound(schema: &Schema, managed: &ManagedFields) {
    assert_eq!(read(managed), read(&read(managed)), "of {schema:?}");
    for entry in &managed.entries {
        assert!(!entry.fields.is_empty(), "{entry:?}");
        let set: FieldSet = serde_json::from_str(&entry.fields.to_fields_v1()).expect("it is read again");
        assert_eq!(set, entry.fields);
    }
}

fn read(managed: &ManagedFields) -> ManagedFields {
    ManagedFields::from_json(managed.to_json().as_bytes()).expect("it is read again")
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "v1", subresource: "", writes: &|_| true, now: Timestamp::UNIX_EPOCH }
}

/// A small custom resource with a list of each kind.
fn things() -> &'static Schema {
    static THINGS: OnceLock<Schema> = OnceLock::new();
    THINGS.get_or_init(|| {
        let text = json!({ "type": "string" });
        Schema::of(&json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
            "size": { "type": "integer" },
            "text": text,
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "labels": { "type": "object", "additionalProperties": text },
            "whole": {
                "type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": text,
            },
            "plain": { "type": "array", "items": { "type": "integer" } },
            "set": { "type": "array", "x-kubernetes-list-type": "set", "items": text },
            "items": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "zone"],
                "items": { "type": "object", "properties": {
                    "name": text, "zone": { "type": "string", "default": "here" },
                    "value": { "type": "integer" },
                } },
            },
        } } } }))
    })
}
