use serde_json::{Value, json};

use crate::kind::Kind;
use crate::registry::Registry;

#[test]
fn names_find_their_kinds() {
    let registry = Registry::builtin();
    for (word, plural, group) in [
        ("po", "pods", ""),
        ("Pod", "pods", ""),
        ("deploy", "deployments", "apps"),
        ("events", "events", ""),
        ("events.events.k8s.io", "events", "events.k8s.io"),
        ("hpa", "horizontalpodautoscalers", "autoscaling"),
        ("ing", "ingresses", "networking.k8s.io"),
        ("netpol", "networkpolicies", "networking.k8s.io"),
        ("crd", "customresourcedefinitions", "apiextensions.k8s.io"),
        ("ep", "endpoints", ""),
        ("pdb", "poddisruptionbudgets", "policy"),
    ] {
        let kind = registry.find(word).unwrap_or_else(|| panic!("no {word}"));
        assert_eq!((&*kind.plural, &*kind.group), (plural, group), "{word}");
    }
}

#[test]
fn short_names_are_unambiguous_within_a_group() {
    let registry = Registry::builtin();
    let mut seen = std::collections::BTreeMap::new();
    for kind in registry.iter() {
        for name in &kind.short_names {
            let owner = seen.entry(name.clone()).or_insert_with(|| kind.plural.clone());
            assert_eq!(*owner, kind.plural, "short name {name}");
        }
    }
}

/// An object of `kind` with nothing but what its type demands. Kubernetes' own types demand nothing.
fn smallest(kind: &Kind) -> Value {
    let mut object = json!({
        "apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": {"name": "x"},
    });
    if kind.kind == "DNS" {
        object["spec"] = json!({"host": "a.example"});
    }
    object
}

#[test]
fn every_kind_has_a_schema_and_a_row_for_its_columns() {
    for kind in Registry::builtin().iter() {
        assert!(kind.schema().is_some(), "{kind:?} has no schema");
        let decoded = kind.decode_value(&smallest(kind)).unwrap();
        let row = kind.row(&*decoded.object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row.len(), kind.columns.len(), "{kind:?}");
        assert!(row.contains(&"x".into()), "{kind:?}: no name in {row:?}");
    }
}

/// Whatever a client leaves out, no step of a write may panic, and a second defaulting changes nothing.
#[test]
fn the_smallest_objects_pass_through_every_step() {
    for kind in Registry::builtin().iter() {
        let mut object = kind.decode_value(&smallest(kind)).unwrap().object;
        kind.default(&mut *object);
        kind.prepare_for_create(&mut *object);
        let once = object.to_value();
        kind.validate(&*object);
        assert!(kind.validate_update(&*object, &*object).is_empty(), "{kind:?} differs from itself");
        kind.default(&mut *object);
        assert_eq!(object.to_value(), once, "{kind:?}");
    }
}
