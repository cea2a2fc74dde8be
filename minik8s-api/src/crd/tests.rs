use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

use super::*;
use crate::field::FieldPath;
use crate::kind::Kind;
use crate::registry::Registry;
use crate::unstructured::Unstructured;

fn schema(properties: Value) -> Schema {
    let value = json!({"type": "object", "properties": properties});
    let props = serde_json::from_value(value).expect("a schema");
    Schema::compile(&props, &FieldPath::new("schema")).expect("a good schema")
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

/// What is wrong with a spec of that schema.
fn wrong(spec: Value, value: Value) -> Vec<String> {
    let schema = schema(json!({"spec": spec}));
    let object = json!({"apiVersion": "e.dev/v1", "kind": "T", "metadata": {"name": "a"}, "spec": value});
    let object = Unstructured::from_value(object, &mut Vec::new()).expect("an object");
    schema.validate(&object, None).0.iter().map(ToString::to_string).collect()
}

#[test]
fn types_and_limits() {
    let none: [&str; 0] = [];
    for (schema, value, expected) in [
        (json!({"type": "integer"}), json!(3.0), &none[..]),
        (
            json!({"type": "integer"}),
            json!("3"),
            &["spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
        ),
        (
            json!({"type": "string"}),
            json!(null),
            &["spec: Invalid value: \"null\": spec in body must be of type string: \"null\""],
        ),
        (json!({"type": "string", "nullable": true}), json!(null), &none),
        (json!({"x-kubernetes-int-or-string": true}), json!("80%"), &none),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(1.5),
            &["spec: Invalid value: \"number\": spec in body must be of type integer,string: \"number\""],
        ),
        (
            json!({"type": "integer", "minimum": 1, "maximum": 5}),
            json!(0),
            &["spec: Invalid value: 0: spec in body should be greater than or equal to 1"],
        ),
        (
            json!({"type": "number", "maximum": 0.5, "exclusiveMaximum": true}),
            json!(0.5),
            &["spec: Invalid value: 0.5: spec in body should be less than 0.5"],
        ),
        (json!({"type": "number", "multipleOf": 0.1}), json!(0.3), &none),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            &["spec: Invalid value: 4: spec in body should be a multiple of 3"],
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_i64),
            &[
                "spec: Invalid value: 3000000000: Checked value must be of type integer with format int32 in spec",
            ],
        ),
        (
            json!({"type": "string", "minLength": 3}),
            json!("äö"),
            &["spec: Invalid value: \"äö\": spec in body should be at least 3 chars long"],
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            &["spec: Too long: may not be more than 2 bytes"],
        ),
        (
            json!({"type": "string", "pattern": r"^\d+$"}),
            json!("x"),
            &[r#"spec: Invalid value: "x": spec in body should match '^\d+$'"#],
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            &["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("tomorrow"),
            &["spec: Invalid value: \"tomorrow\": spec in body must be of type date-time: \"tomorrow\""],
        ),
        (json!({"type": "string", "format": "of-my-own"}), json!("anything"), &none),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 2}),
            json!(["a"]),
            &["spec: Invalid value: [\"a\"]: spec in body should have at least 2 items"],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            &["spec: Too many: 2: must have at most 1 items"],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            &["spec[2]: Duplicate value: \"a\""],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                   "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer"}}}}),
            json!([{"n": "a", "v": 1}, {"n": "a", "v": 2}]),
            &["spec[1]: Duplicate value: {\"n\":\"a\"}"],
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            &["spec.a: Required value"],
        ),
        (
            json!({"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}}),
            json!({}),
            &["spec: Invalid value: {}: spec in body should have at least 1 properties"],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"x": true}),
            &["spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer: \"boolean\""],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true,
                   "x-kubernetes-preserve-unknown-fields": true}),
            json!({"kind": "Pod"}),
            &["spec.apiVersion: Required value: must not be empty"],
        ),
    ] {
        assert_eq!(wrong(schema.clone(), value.clone()), expected, "{value} for {schema}");
    }
}

#[test]
fn unions() {
    let fields = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let one_of =
        json!({"type": "object", "properties": fields, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert_eq!(wrong(one_of.clone(), json!({"a": "x"})), Vec::<String>::new());
    assert_eq!(
        wrong(one_of.clone(), json!({"a": "x", "b": "y"})),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    assert_eq!(
        wrong(one_of, json!({})),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            "spec.a: Required value",
        ]
    );
    let any_of = json!({"type": "integer", "anyOf": [{"maximum": 1}, {"minimum": 9}]});
    assert_eq!(wrong(any_of.clone(), json!(9)), Vec::<String>::new());
    assert!(wrong(any_of, json!(5))[0].contains("must validate at least one schema (anyOf)"));
    let all_of = json!({"type": "integer", "allOf": [{"maximum": 8}, {"minimum": 2}]});
    assert_eq!(
        wrong(all_of, json!(9)),
        ["spec: Invalid value: 9: spec in body should be less than or equal to 8"]
    );
    let not = json!({"type": "string", "not": {"enum": ["x"]}});
    assert!(wrong(not, json!("x"))[0].contains("must not validate the schema (not)"));
}

#[test]
fn formats() {
    for (format, good, bad) in [
        ("date-time", "2014-12-15T19:30:20.000Z", "2014-12-15"),
        ("date", "2006-01-02", "2006-13-02"),
        ("duration", "1h30m", "soon"),
        ("byte", "aGVsbG8=", "a=b"),
        ("ipv4", "10.0.0.1", "::1"),
        ("ipv6", "::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("mac", "01:23:45:67:89:ab", "01:23"),
        ("hostname", "example.com", "exa mple"),
        ("uri", "https://example.com/x", "not a uri"),
        ("email", "a.b@example.com", "a.b.example.com"),
        ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"),
        ("uuid4", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("hexcolor", "#FFFFFF", "#GG"),
    ] {
        assert!(format::is_valid(format, good), "{format}: {good}");
        assert!(!format::is_valid(format, bad), "{format}: {bad}");
    }
}

#[test]
fn unknown_fields_go_unless_they_are_to_stay() {
    let schema = schema(json!({
        "spec": {"type": "object", "properties": {
            "known": {"type": "string"},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"strict": {"type": "object", "properties": {"x": {"type": "integer"}}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {}}},
            "any": {"type": "object", "additionalProperties": true},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true,
                         "properties": {"spec": {"type": "object"}}},
        }},
    }));
    let mut fields = map(json!({
        "spec": {
            "known": "x", "strange": 1,
            "open": {"anything": [1], "strict": {"x": 1, "y": 2}},
            "list": [{"a": 1}, {"a": 2, "b": 3}],
            "map": {"k": {"z": 1}}, "any": {"q": {"r": 1}},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"s": 1}, "t": 2},
        },
        "status": {},
    }));
    let mut unknown = Vec::new();
    schema.prune(&mut fields, &mut unknown);
    assert_eq!(
        Value::from(fields),
        json!({"spec": {
            "known": "x", "open": {"anything": [1], "strict": {"x": 1}}, "list": [{"a": 1}, {"a": 2}],
            "map": {"k": {}}, "any": {"q": {"r": 1}},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
        }})
    );
    assert_eq!(
        unknown,
        [
            "spec.embedded.spec.s",
            "spec.embedded.t",
            "spec.list[1].b",
            "spec.map.k.z",
            "spec.open.strict.y",
            "spec.strange",
            "status"
        ]
    );
}

#[test]
fn defaults_fill_in_what_is_left_out() {
    let schema = schema(json!({
        "spec": {"type": "object", "default": {}, "properties": {
            "size": {"type": "integer", "default": 1},
            "kept": {"type": "string", "nullable": true, "default": "x"},
            "gone": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 7}},
        }},
    }));
    let mut fields = map(json!({}));
    schema.fill(&mut fields);
    assert_eq!(Value::from(fields.clone()), json!({"spec": {"size": 1, "kept": "x"}}));
    let mut again = fields.clone();
    schema.fill(&mut again);
    assert_eq!(again, fields, "a second time changes nothing");
    let mut fields = map(json!({"spec": {
        "size": null, "kept": null, "gone": null, "list": [{}, {"p": "UDP"}], "map": {"a": null, "b": 1},
    }}));
    schema.fill(&mut fields);
    assert_eq!(
        Value::from(fields),
        json!({"spec": {"size": 1, "kept": null, "list": [{"p": "TCP"}, {"p": "UDP"}], "map": {"a": 7, "b": 1}}})
    );
}

fn not_structural(schema: Value) -> Vec<String> {
    let props = serde_json::from_value(schema).expect("a schema");
    structural::check(&props, &FieldPath::new("s")).0.iter().map(ToString::to_string).collect()
}

#[test]
fn structural_schemas() {
    let with = |a: Value| json!({"type": "object", "properties": {"a": a}});
    let none: [&str; 0] = [];
    for (schema, expected) in [
        (json!({"type": "object"}), &none[..]),
        (json!({}), &["s.type: Required value: must not be empty at the root"]),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            &["s.type: Invalid value: \"array\": must be object at the root"],
        ),
        (
            with(json!({})),
            &["s.properties[a].type: Required value: must not be empty for specified object fields"],
        ),
        (with(json!({"x-kubernetes-preserve-unknown-fields": true})), &none),
        (
            with(json!({"type": "array", "items": {}})),
            &["s.properties[a].items.type: Required value: must not be empty for specified array items"],
        ),
        (with(json!({"type": "array"})), &["s.properties[a].items: Required value: must be specified"]),
        (
            with(
                json!({"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            ),
            &[
                "s.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        ),
        (
            with(
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
            &none,
        ),
        (
            with(json!({"type": "string", "anyOf": [{"type": "string"}]})),
            &["s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        (
            with(json!({"type": "object", "anyOf": [{"properties": {"x": {"minimum": 1}}}]})),
            &[
                "s.properties[a].properties[x]: Required value: because it is defined in s.properties[a].anyOf[0].properties[x]",
            ],
        ),
        (
            with(json!({"type": "string", "pattern": "("})),
            &[
                "s.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: unclosed group",
            ],
        ),
        (
            with(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
            &[
                "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (
            with(json!({"type": "integer", "default": "x"})),
            &[
                "s.properties[a].default: Invalid value: \"string\": s.properties[a].default in body must be of type integer: \"string\"",
            ],
        ),
        (
            with(
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
            ),
            &[
                "s.properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            &[
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        ),
        (
            with(json!({"type": "string", "$ref": "#/x"})),
            &["s.properties[a].$ref: Forbidden: $ref is not supported"],
        ),
    ] {
        assert_eq!(not_structural(schema.clone()), expected, "{schema}");
    }
}

fn definition(spec: Value) -> CustomResourceDefinition {
    let base = json!({
        "metadata": {"name": "things.example.dev", "uid": "u", "generation": 1},
        "spec": {"group": "example.dev", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}},
    });
    let mut base = base;
    for (key, value) in map(spec) {
        base["spec"][key] = value;
    }
    let mut crd = serde_json::from_value(base).expect("a definition");
    crate::default::cluster::custom_resource(&mut crd);
    crd
}

fn version(more: Value) -> Value {
    let mut version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    });
    for (key, value) in map(more) {
        version[key] = value;
    }
    version
}

fn only_kind(version: Value) -> Kind {
    let mut kinds = kinds(&definition(json!({"versions": [version]}))).expect("a good definition");
    assert_eq!(kinds.len(), 1);
    kinds.remove(0)
}

#[test]
fn columns_are_printed_as_defined() {
    let kind = only_kind(version(json!({"additionalPrinterColumns": [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.n", "description": "How much."},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Since", "type": "date", "jsonPath": ".status.since", "priority": 1},
        {"name": "Flag", "type": "boolean", "jsonPath": ".status.flag"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]})));
    let names: Vec<_> = kind.columns.iter().map(|c| (c.name.as_ref(), c.priority)).collect();
    assert_eq!(names, [("Name", 0), ("Size", 0), ("Ready", 0), ("Since", 1), ("Flag", 0), ("Age", 0)]);
    let object = json!({
        "metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"n": 3},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "since": "2024-01-01T00:00:30Z", "flag": "x"},
    });
    let object = kind.decode_value(&object).expect("an object").object;
    let now: Timestamp = "2024-01-01T00:01:00Z".parse().expect("a time");
    assert_eq!(
        Value::from(kind.row(&*object, now)),
        json!(["a", 3, "True", "30s", null, "60s"]),
        "a cell of the wrong type stays empty"
    );
    let plain = only_kind(version(json!({})));
    assert_eq!(plain.columns.iter().map(|c| c.name.as_ref()).collect::<Vec<_>>(), ["Name", "Age"]);
}

#[test]
fn objects_are_selected_by_fields() {
    let kind =
        only_kind(version(json!({"selectableFields": [{"jsonPath": ".spec.s"}, {"jsonPath": ".spec.n"}]})));
    let object =
        kind.decode_value(&json!({"metadata": {"name": "a"}, "spec": {"s": "x", "n": 4}})).unwrap().object;
    assert_eq!(kind.selectable_field(&*object, "spec.s").as_deref(), Some("x"));
    assert_eq!(kind.selectable_field(&*object, "spec.n").as_deref(), Some("4"));
    assert!(!kind.is_selectable("spec.other"));
}

#[test]
fn definitions_are_checked() {
    let wrong = |spec: Value| -> Vec<String> {
        definition::validate(&definition(spec)).0.iter().map(ToString::to_string).collect()
    };
    assert_eq!(wrong(json!({"versions": [version(json!({}))]})), Vec::<String>::new());
    for (more, expected) in [
        (
            json!({"additionalPrinterColumns": [{"name": "A", "type": "list", "jsonPath": "spec"}]}),
            &[
                "spec.versions[0].additionalPrinterColumns[0].type: Unsupported value: \"list\": supported values: \
                 \"boolean\", \"date\", \"integer\", \"number\", \"string\"",
                "spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: \"spec\": is an invalid path: \
                 unexpected 's' before the last 4 characters",
            ][..],
        ),
        (
            json!({"subresources": {"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ".status.list[0]"}}}),
            &[
                "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json \
                 path under .spec",
                "spec.versions[0].subresources.scale.statusReplicasPath: Invalid value: \".status.list[0]\": should be \
                 a json path without array notation",
            ],
        ),
        (
            json!({"selectableFields": [{"jsonPath": ".spec.x"}, {"jsonPath": ".metadata.labels"}]}),
            &[
                "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.x\": is an invalid path: does \
                 not refer to a valid field",
                "spec.versions[0].selectableFields[1].jsonPath: Invalid value: \".metadata.labels\": is an invalid \
                 path: must not point to fields in metadata",
            ],
        ),
    ] {
        assert_eq!(wrong(json!({"versions": [version(more)]})), expected);
    }
    let found = wrong(json!({"versions": [version(json!({}))], "conversion": {"strategy": "Webhook"}}));
    assert_eq!(
        found,
        ["spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook"]
    );
    let community = wrong(json!({"group": "things.k8s.io", "versions": [version(json!({}))]}));
    assert!(
        community.iter().any(|e| e.starts_with("metadata.annotations[api-approved.kubernetes.io]: Required"))
    );
}

#[test]
fn built_in_names_are_taken() {
    let mut crd = definition(json!({"group": "apps", "versions": [version(json!({}))]}));
    crd.spec.names.short_names = Some(vec!["deploy".into()]);
    let settled = names::settle(&[crd], &Registry::builtin(), Timestamp::UNIX_EPOCH);
    let conditions = settled[0].conditions.as_deref().unwrap_or_default();
    let found = conditions.iter().find(|c| c.type_ == "NamesAccepted").expect("a condition");
    assert_eq!((found.status.as_str(), found.reason.as_deref()), ("False", Some("ShortNamesConflict")));
    assert_eq!(found.message.as_deref(), Some("\"deploy\" is already in use"));
}
