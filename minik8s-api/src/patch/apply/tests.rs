use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::kind::Kind;
use crate::registry::Registry;

fn deployments() -> Schema {
    Kind::of::<Deployment>().schema().build().apply_schema().clone()
}

fn pods() -> Schema {
    Kind::of::<Pod>().schema().build().apply_schema().clone()
}

/// The schema of a small custom resource with a list of each kind.
fn things() -> Schema {
    Schema::of(&json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": { "type": "integer" },
                    "text": { "type": "string" },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                    "whole": {
                        "type": "object", "x-kubernetes-map-type": "atomic",
                        "additionalProperties": { "type": "string" },
                    },
                    "plain": { "type": "array", "items": { "type": "integer" } },
                    "set": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
                    "items": {
                        "type": "array", "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name", "zone"],
                        "items": {
                            "type": "object",
                            "properties": {
                                "name": { "type": "string" },
                                "zone": { "type": "string", "default": "here" },
                                "value": { "type": "integer" },
                                "note": { "type": "string" },
                            },
                        },
                    },
                },
            },
            "status": { "type": "object", "properties": { "ready": { "type": "boolean" } } },
        },
    }))
}

const ALL: &dyn Fn(&str) -> bool = &|_| true;

fn writer(manager: &str) -> Writer<'_> {
    let now = Timestamp::from_second(1000).expect("a time");
    Writer { manager, api_version: "v1", subresource: "", writes: ALL, now }
}

/// An object and its owners, as a sequence of writes leaves them.
struct World {
    schema: Schema,
    object: Value,
    managed: ManagedFields,
}

impl World {
    fn new(schema: Schema) -> Self {
        Self { schema, object: json!({}), managed: ManagedFields::default() }
    }

    fn try_apply(&mut self, manager: &str, config: &Value, force: bool) -> Result<(), ApplyError> {
        let applied = apply(&self.schema, &self.object, config, &self.managed, &writer(manager), force)?;
        self.object = applied.object;
        self.managed = applied.managed;
        Ok(())
    }

    fn apply(&mut self, manager: &str, config: Value) {
        self.try_apply(manager, &config, false).expect("no conflict");
    }

    fn update(&mut self, manager: &str, object: Value) {
        update(&self.schema, &self.object, &object, &mut self.managed, &writer(manager));
        self.object = object;
    }

    /// The fields of each manager, as text.
    fn owners(&self) -> BTreeMap<(String, &'static str), Vec<String>> {
        let entry = |e: &Entry| {
            let paths = e.fields.paths().iter().map(ToString::to_string).collect();
            ((e.manager.clone(), e.operation.name()), paths)
        };
        self.managed.entries.iter().map(entry).collect()
    }

    fn owned(&self, manager: &str) -> Vec<String> {
        let mut all = self.owners().into_iter().filter(|((m, _), _)| m == manager).flat_map(|(_, p)| p);
        let mut paths: Vec<_> = all.by_ref().collect();
        paths.sort();
        paths
    }
}

fn spec(spec: Value) -> Value {
    json!({ "metadata": { "name": "a" }, "spec": spec })
}

#[test]
fn a_new_object_is_its_makers() {
    let mut pod: Value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "a", "namespace": "b", "uid": "c", "labels": { "app": "x" } },
        "spec": {
            "containers": [{
                "name": "main", "image": "i", "resources": {},
                "ports": [{ "containerPort": 80, "protocol": "TCP" }],
            }],
            "nodeSelector": { "a": "b" }, "securityContext": {}, "restartPolicy": "Always",
            "tolerations": [{ "key": "k" }],
        },
    });
    let schema = pods();
    let mut managed = ManagedFields::default();
    update(&schema, schema.zero(), &pod, &mut managed, &writer("me"));
    let [entry] = managed.entries.as_slice() else { panic!("{managed:?}") };
    // As a Kubernetes API server writes it down.
    let expected = json!({
        "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
        "f:spec": {
            "f:containers": {
                "k:{\"name\":\"main\"}": {
                    ".": {}, "f:image": {}, "f:name": {},
                    "f:ports": {
                        ".": {},
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:containerPort": {}, "f:protocol": {},
                        },
                    },
                    "f:resources": {},
                },
            },
            "f:nodeSelector": {}, "f:restartPolicy": {}, "f:securityContext": {}, "f:tolerations": {},
        },
    });
    let json: Value = serde_json::from_str(&entry.fields.to_fields_v1()).expect("JSON");
    assert_eq!(json, expected);

    // Who changes a field owns it, and who had it does not.
    let before = pod.clone();
    pod["spec"]["containers"][0]["image"] = "j".into();
    pod["metadata"]["labels"] = json!({ "other": "y" });
    update(&schema, &before, &pod, &mut managed, &writer("you"));
    let world = World { schema, object: pod, managed };
    assert_eq!(world.owned("you"), [".metadata.labels.other", ".spec.containers[name=\"main\"].image"]);
    assert!(!world.owned("me").contains(&".metadata.labels.app".to_owned()));
}

#[test]
fn structs_that_are_always_there_are_nobodys() {
    let schema = deployments();
    let deployment = json!({
        "metadata": { "name": "a" },
        "spec": {
            "selector": { "matchLabels": { "a": "b" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%" } },
            "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "x", "image": "i" }] },
            },
        },
    });
    let mut managed = ManagedFields::default();
    update(&schema, schema.zero(), &deployment, &mut managed, &writer("me"));
    let json: Value = serde_json::from_str(&managed.entries[0].fields.to_fields_v1()).expect("JSON");
    let expected = json!({
        "f:spec": {
            "f:selector": {},
            "f:strategy": { "f:rollingUpdate": { ".": {}, "f:maxSurge": {} }, "f:type": {} },
            "f:template": {
                "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
                "f:spec": {
                    "f:containers": { "k:{\"name\":\"x\"}": { ".": {}, "f:image": {}, "f:name": {} } },
                },
            },
        },
    });
    assert_eq!(json, expected);
}

#[test]
fn an_applier_owns_what_it_says_and_no_structs() {
    let mut world = World::new(things());
    world.apply(
        "me",
        spec(json!({ "size": 1, "labels": { "a": "1" }, "items": [{ "name": "x", "value": 1 }] })),
    );
    assert_eq!(
        world.owned("me"),
        [
            ".spec.items[name=\"x\",zone=\"here\"]",
            ".spec.items[name=\"x\",zone=\"here\"].name",
            ".spec.items[name=\"x\",zone=\"here\"].value",
            ".spec.labels.a",
            ".spec.size",
        ]
    );
}

#[test]
fn another_value_is_a_conflict_and_the_same_is_shared() {
    let mut world = World::new(things());
    world.apply("one", spec(json!({ "size": 1, "text": "t" })));
    world.apply("two", spec(json!({ "size": 1 })));
    assert_eq!((world.owned("one").len(), world.owned("two").len()), (2, 1));

    let other = spec(json!({ "size": 2, "text": "u" }));
    let error = world.try_apply("two", &other, false).expect_err("both are one's");
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.size\n- .spec.text"
    );
    world.update("kubectl", spec(json!({ "size": 3, "text": "t" })));
    let error = world.try_apply("two", &spec(json!({ "size": 2 })), false).expect_err("a conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl\" using v1: .spec.size"
    );
    world.try_apply("two", &other, true).expect("forced");
    assert_eq!(world.object["spec"], json!({ "size": 2, "text": "u" }));
    assert_eq!(world.owners().keys().collect::<Vec<_>>(), [&("two".to_owned(), "Apply")]);
}

#[test]
fn what_is_not_applied_any_more_goes_unless_somebody_owns_it() {
    let mut world = World::new(things());
    let full = json!({
        "size": 1, "text": "t", "labels": { "a": "1", "b": "2" }, "set": ["x", "y"],
        "items": [{ "name": "p", "value": 1 }, { "name": "q", "value": 2 }],
    });
    world.apply("one", spec(full));
    world.apply("two", spec(json!({ "text": "t", "labels": { "b": "2" }, "items": [{ "name": "q" }] })));
    let mut live = world.object.clone();
    live["spec"]["labels"]["c"] = "3".into();
    world.update("three", live);
    world.apply("one", spec(json!({ "size": 1 })));
    assert_eq!(
        world.object["spec"],
        json!({ "size": 1, "text": "t", "labels": { "b": "2", "c": "3" }, "items": [{ "name": "q" }] })
    );
    world.apply("two", spec(json!({})));
    assert_eq!(world.object["spec"], json!({ "size": 1, "labels": { "c": "3" } }));
    assert_eq!(world.owned("two"), [".spec"], "an empty struct is a value");
}

#[test]
fn a_field_that_others_changed_stays_when_its_applier_lets_go() {
    let mut world = World::new(deployments());
    let config = |spec: Value| json!({ "metadata": { "name": "a" }, "spec": spec });
    world.apply("kubectl", config(json!({ "replicas": 1, "paused": false })));
    let mut scaled = world.object.clone();
    scaled["spec"]["replicas"] = 5.into();
    world.update("hpa", scaled);
    assert_eq!(world.owned("kubectl"), [".spec.paused"]);
    world.apply("kubectl", config(json!({ "paused": false })));
    assert_eq!(world.object["spec"]["replicas"], 5);
}

#[test]
fn lists_are_merged_by_their_kind() {
    let mut world = World::new(things());
    world.apply(
        "one",
        spec(json!({
            "plain": [1, 2], "whole": { "a": "1" }, "set": ["a", "b"],
            "items": [{ "name": "a", "value": 1 }, { "name": "b", "value": 1 }, { "name": "c", "value": 1 }],
        })),
    );
    world.apply(
        "two",
        spec(json!({
            "set": ["z", "b"],
            "items": [{ "name": "c", "note": "n" }, { "name": "new" }, { "name": "b", "zone": "there" }],
        })),
    );
    assert_eq!(world.object["spec"]["set"], json!(["a", "z", "b"]));
    assert_eq!(
        world.object["spec"]["items"],
        json!([
            { "name": "a", "value": 1 }, { "name": "b", "value": 1 },
            { "name": "c", "value": 1, "note": "n" }, { "name": "new" }, { "name": "b", "zone": "there" },
        ])
    );
    for atomic in [json!({ "plain": [1] }), json!({ "whole": { "b": "2" } })] {
        let error = world.try_apply("two", &spec(atomic), false).expect_err("it is one's as a whole");
        assert!(matches!(error, ApplyError::Conflicts(c) if c.0.len() == 1));
    }
    // The configuration's order is the one that counts among its items.
    let mut world = World::new(things());
    world.apply("one", spec(json!({ "set": ["a", "b", "c"] })));
    world.apply("one", spec(json!({ "set": ["c", "a", "b"] })));
    assert_eq!(world.object["spec"]["set"], json!(["c", "a", "b"]));
}

#[test]
fn a_configuration_must_fit_its_schema() {
    let wrong = |schema: &Schema, config: Value| check(schema, &config).expect_err("wrong").to_string();
    let schema = deployments();
    assert_eq!(wrong(&schema, spec(json!({ "foo": 1 }))), ".spec.foo: field not declared in schema");
    let nested =
        json!({ "selector": { "labels": {} }, "template": { "spec": { "containers": [{ "image": "i" }] } } });
    assert_eq!(
        wrong(&schema, spec(nested)),
        "errors:\n  .spec.selector.labels: field not declared in schema\n  .spec.template.spec.containers: element 0: \
         associative list with keys has an element that omits key field \"name\" (and doesn't have default value)"
    );
    let twice = json!({ "set": ["a", "a"], "free": { "any": [1] } });
    assert_eq!(wrong(&things(), spec(twice)), ".spec.set: duplicate entries for key [=\"a\"]");
    assert_eq!(wrong(&schema, json!({ "spec": [] })), ".spec: expected map, got []");
    check(&Schema::untyped(), &json!({ "metadata": { "name": "a" }, "any": { "thing": [] } }))
        .expect("anything");
    let metadata = wrong(&Schema::untyped(), json!({ "metadata": { "nam": "a" } }));
    assert_eq!(metadata, ".metadata.nam: field not declared in schema");
}

#[test]
fn items_that_are_there_twice_are_taken_together() {
    let mut world = World::new(pods());
    let pod = |env: Value| json!({ "spec": { "containers": [{ "name": "c", "env": env }] } });
    world.update("me", pod(json!([{ "name": "a", "value": "1" }, { "name": "a", "value": "2" }])));
    let element = ".spec.containers[name=\"c\"].env[name=\"a\"]".to_owned();
    assert!(world.owned("me").contains(&element));
    world.update("you", pod(json!([{ "name": "a", "value": "1" }, { "name": "a", "value": "3" }])));
    assert_eq!(world.owned("you"), [element]);
}

#[test]
fn what_kubectl_applied_on_its_side_is_its_own() {
    let mut world = World::new(things());
    let last = json!({ "apiVersion": "v1", "spec": { "size": 1, "text": "a" } });
    let object = json!({
        "metadata": { "annotations": { "kubectl.kubernetes.io/last-applied-configuration": last.to_string() } },
        "spec": { "size": 1, "text": "a" },
    });
    world.update("kubectl-client-side-apply", object);
    let config = spec(json!({ "size": 2, "text": "a" }));
    world.try_apply("other", &config, false).expect_err("only kubectl can know");
    world.try_apply("kubectl", &config, false).expect("it was its own");
    let noted =
        world.object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert_eq!(noted.map(|n| serde_json::from_str(n).expect("JSON")), Some(config));
    let mut changed = world.object.clone();
    changed["spec"]["text"] = "b".into();
    world.update("somebody", changed);
    world.try_apply("kubectl", &spec(json!({ "text": "c" })), false).expect_err("it is not what was applied");
}

#[test]
fn old_updates_are_merged() {
    let mut managed = ManagedFields::default();
    for second in 0..14 {
        let mut fields = FieldSet::new();
        fields.insert(&[PathElement::Field(format!("f{second}").into())]);
        managed.entries.push(Entry {
            manager: format!("m{second}"),
            operation: if second == 0 { Operation::Apply } else { Operation::Update },
            api_version: if second == 2 { "v2" } else { "v1" }.to_owned(),
            subresource: String::new(),
            time: Some(Timestamp::from_second(second).expect("a time")),
            fields,
        });
    }
    managed.cap_updates(10);
    let count = managed.entries.iter().filter(|e| e.operation == Operation::Update).count();
    assert_eq!((managed.entries.len(), count), (11, 10));
    let ancient: Vec<_> = managed.entries.iter().filter(|e| e.manager == "ancient-changes").collect();
    assert_eq!(ancient.len(), 1);
    assert_eq!((ancient[0].fields.len(), ancient[0].time.map(Timestamp::as_second)), (4, Some(5)));
    assert!(managed.entries.iter().any(|e| e.manager == "m2"), "another version keeps its own");
    let before = managed.clone();
    managed.cap_updates(10);
    assert_eq!(managed.entries.len(), before.entries.len());
}

#[test]
fn entries_are_read_as_they_are_written() {
    let mut world = World::new(things());
    world.apply("a\"b", spec(json!({ "labels": { "x\\y/z\"": "1" }, "set": ["\n", "ä"] })));
    world.update("c", spec(json!({ "size": 1 })));
    world.managed.entries[0].subresource = "status".to_owned();
    let text = world.managed.to_json();
    let read = ManagedFields::from_json(text.as_bytes()).expect("entries");
    assert_eq!(read.to_json(), text);
    for bad in [
        json!([{ "operation": "Other", "apiVersion": "v1", "fieldsType": "FieldsV1" }]),
        json!([{ "operation": "Apply", "fieldsType": "FieldsV1" }]),
        json!([{ "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV2" }]),
        json!([{ "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": { "k:x": {} } }]),
        json!("x"),
    ] {
        ManagedFields::from_json(bad.to_string().as_bytes()).expect_err("not an entry");
    }
}

#[test]
fn steps_of_unknown_forms_are_passed_over() {
    let json = json!({ "f:a": {}, "x:b": { "f:c": {} }, "i:3": {}, "v:1.5": {}, "v:true": {}, ".": {} });
    let set = FieldSet::deserialize(&json).expect("a set");
    assert_eq!(set.to_fields_v1(), r#"{"f:a":{},"v:1.5":{},"v:true":{},"i:3":{}}"#);
    for bad in ["nothing", "i:x", "k:[]", "v:{", "k:{\"a\":[]}"] {
        PathElement::parse(bad).expect_err(bad);
    }
}

#[test]
fn every_built_in_kind_has_a_schema() {
    for kind in Registry::builtin().iter() {
        let (_, named) = kind.apply_schema().root().entry("metadata").expect("metadata");
        assert!(named, "{kind:?}");
    }
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<i64>().prop_map(Scalar::Integer),
        "[a-c\"\\\\:\n]{0,3}".prop_map(|s| Scalar::String(s.into())),
        any::<bool>().prop_map(Scalar::Bool),
    ]
}

fn element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        3 => "[a-c\"\\\\:.]{0,2}".prop_map(|s| PathElement::Field(s.into())),
        1 => proptest::collection::btree_map("[a-b\"]", scalar(), 1..3)
            .prop_map(|m| PathElement::key(m.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        1 => scalar().prop_map(PathElement::Value),
        1 => any::<u64>().prop_map(PathElement::Index),
    ]
}

fn field_set() -> impl Strategy<Value = FieldSet> {
    // Few different steps, so that sets have something in common.
    proptest::collection::vec(proptest::collection::vec(element(), 1..4), 0..8).prop_map(|paths| {
        let mut set = FieldSet::new();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

/// A configuration whose maps and lists have at least so many entries.
fn config(least: usize) -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[12]", least..3);
    let set = proptest::sample::subsequence(vec!["a", "b", "c", "d"], least..4).prop_shuffle();
    let item = (proptest::option::of("[xy]"), proptest::option::of(0..2));
    let items = proptest::collection::btree_map("[a-d]", item, least..4);
    let optional = proptest::option::of::<proptest::strategy::BoxedStrategy<Value>>;
    (
        optional((0..2).prop_map(|n| json!(n)).boxed()),
        optional(labels.clone().prop_map(|l| json!(l)).boxed()),
        optional(labels.prop_map(|l| json!(l)).boxed()),
        optional(set.prop_map(|s| json!(s)).boxed()),
        optional(items.prop_map(items_json).boxed()),
        optional(proptest::collection::vec(0..3, least..3).prop_map(|l| json!(l)).boxed()),
    )
        .prop_map(|(size, labels, whole, set, items, plain)| {
            let fields = [
                ("size", size),
                ("labels", labels),
                ("whole", whole),
                ("set", set),
                ("items", items),
                ("plain", plain),
            ];
            let spec: serde_json::Map<_, _> =
                fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect();
            json!({ "spec": spec })
        })
}

type Item = (Option<String>, Option<i32>);

fn items_json(items: BTreeMap<String, Item>) -> Value {
    let item = |(name, (zone, value)): (String, Item)| {
        let mut item = json!({ "name": name });
        if let Some(zone) = zone {
            item["zone"] = zone.into();
        }
        if let Some(value) = value {
            item["value"] = value.into();
        }
        item
    };
    items.into_iter().map(item).collect()
}

proptest! {
    #[test]
    fn a_set_is_read_as_it_is_written(set in field_set()) {
        let json: Value = serde_json::from_str(&set.to_fields_v1()).expect("JSON");
        prop_assert_eq!(FieldSet::deserialize(&json).expect("a set"), set);
    }

    #[test]
    fn sets_are_sets(a in field_set(), b in field_set(), c in field_set()) {
        let model = |set: &FieldSet| set.paths().into_iter().collect::<std::collections::BTreeSet<_>>();
        // Halves of others, so that they meet.
        let (a, b) = (a.union(&c), b.union(&c));
        prop_assert_eq!(model(&a.union(&b)), &model(&a) | &model(&b));
        prop_assert_eq!(model(&a.intersection(&b)), &model(&a) & &model(&b));
        prop_assert_eq!(model(&a.difference(&b)), &model(&a) - &model(&b));
        prop_assert_eq!(a.len(), model(&a).len());
        prop_assert_eq!(a.difference(&a), FieldSet::new());
        prop_assert!(a.paths().iter().all(|p| a.contains(&p.0)));
    }

    #[test]
    fn an_object_holds_what_was_applied(first in config(1), second in config(1), third in config(1)) {
        let mut world = World::new(things());
        world.try_apply("one", &first, false).expect("there is nobody else");
        world.try_apply("two", &second, true).expect("forced");
        world.try_apply("one", &third, true).expect("forced");
        let schema = things();
        // To merge what is there changes nothing, but for the order of items.
        let again = Changes::between(&schema, &world.object, &merge(&schema, &world.object, &third));
        prop_assert_eq!(again, Changes::default());
        // And it holds nothing that nobody owns.
        let owned = world.managed.entries.iter().fold(FieldSet::new(), |all, e| all.union(&e.fields));
        let there = FieldSet::of(&schema, &world.object);
        let stray: Vec<_> = there.difference(&owned.with_structs(&schema)).paths().iter().map(ToString::to_string).collect();
        prop_assert_eq!(stray, Vec::<String>::new());
    }

    #[test]
    fn to_apply_again_changes_nothing(first in config(0), second in config(0)) {
        let mut world = World::new(things());
        world.try_apply("one", &first, false).expect("there is nobody else");
        world.try_apply("two", &second, true).expect("forced");
        let (object, managed) = (world.object.clone(), world.managed.clone());
        world.try_apply("two", &second, false).expect("all is its own");
        prop_assert_eq!(world.object, object);
        prop_assert_eq!(world.managed.to_json(), managed.to_json());
    }

    #[test]
    fn changes_lead_from_one_object_to_the_other(mut old in config(1), mut new in config(1)) {
        // So that the struct is empty in neither: that would be a value of its own.
        old["spec"]["text"] = "t".into();
        new["spec"]["text"] = "t".into();
        let schema = things();
        let changes = Changes::between(&schema, &old, &new);
        prop_assert_eq!(Changes::between(&schema, &new, &new), Changes::default());
        prop_assert!(changes.written.intersection(&changes.removed).is_empty());
        let (before, after) = (FieldSet::of(&schema, &old), FieldSet::of(&schema, &new));
        prop_assert!(after.difference(&before).difference(&changes.written).is_empty(), "what is new was written");
        prop_assert!(before.difference(&after).difference(&changes.removed).difference(&changes.written).is_empty());
        let kept = before.difference(&changes.removed).difference(&changes.written);
        prop_assert!(kept.difference(&after).is_empty());
    }
}
