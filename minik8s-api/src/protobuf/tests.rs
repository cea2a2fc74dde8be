use proptest::prelude::*;
use serde_json::{Value, json};

use super::special::Special;
use super::table::{Message, Shape, Table, Type};
use super::{ProtobufError, to_json};
use crate::registry::Registry;

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, u64::from(number) << 3 | 2);
    varint(&mut out, content.len() as u64);
    out.extend_from_slice(content);
    out
}

fn number(field: u32, n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, u64::from(field) << 3);
    varint(&mut out, n);
    out
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), bytes(1, &types), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

fn json_of(api_version: &str, kind: &str, raw: &[u8]) -> Value {
    let text = to_json(&body(api_version, kind, raw)).unwrap();
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)))
}

#[test]
fn a_deployment_as_kubectl_sends_it() {
    let metadata = |name: &[u8]| {
        // Go writes what is not a pointer, even when it is empty.
        [bytes(1, name), bytes(2, b""), bytes(5, b""), number(7, 0), bytes(8, b""), bytes(11, &app())]
            .concat()
    };
    fn app() -> Vec<u8> {
        [bytes(1, b"app"), bytes(2, b"web")].concat()
    }
    let resources = bytes(2, &[bytes(1, b"cpu"), bytes(2, &bytes(1, b"100m"))].concat());
    let get = [bytes(1, b"/"), bytes(2, &[number(1, 1), number(2, 0), bytes(3, b"http")].concat())].concat();
    let probe = [bytes(1, &bytes(2, &get)), number(2, 0), number(3, 5)].concat();
    let container =
        [bytes(1, b"main"), bytes(2, b"busybox"), bytes(8, &resources), bytes(10, &probe), number(16, 0)];
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, &bytes(1, b"")))].concat();
    let pod = [bytes(1, &volume), bytes(2, &container.concat()), bytes(3, b""), number(4, 30)].concat();
    let template = [bytes(1, &metadata(b"")), bytes(2, &pod)].concat();
    let surge = [number(1, 1), number(2, 0), bytes(3, b"25%")].concat();
    let strategy = [bytes(1, b""), bytes(2, &[bytes(1, &number(1, 0)), bytes(2, &surge)].concat())].concat();
    let spec = [
        number(1, 0),
        bytes(2, &bytes(1, &app())),
        bytes(3, &template),
        bytes(4, &strategy),
        number(5, 0),
        number(7, 0),
    ];
    let raw = [bytes(1, &metadata(b"web")), bytes(2, &spec.concat()), bytes(3, b"")].concat();
    assert_eq!(
        json_of("apps/v1", "Deployment", &raw),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "creationTimestamp": null, "labels": { "app": "web" } },
            "spec": {
                "replicas": 0,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "creationTimestamp": null, "labels": { "app": "web" } },
                    "spec": {
                        "volumes": [{ "name": "v", "emptyDir": {} }],
                        "containers": [{
                            "name": "main", "image": "busybox",
                            "resources": { "requests": { "cpu": "100m" } },
                            "livenessProbe": {
                                "httpGet": { "path": "/", "port": "http" }, "timeoutSeconds": 5,
                            },
                        }],
                        "terminationGracePeriodSeconds": 30,
                    },
                },
                "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": "25%" } },
            },
            "status": {},
        })
    );
}

#[test]
fn special_forms() {
    let secret = [bytes(2, &[bytes(1, b"k"), bytes(2, &[0, 255])].concat()), bytes(3, b"Opaque")].concat();
    let secret = json_of("v1", "Secret", &secret);
    assert_eq!((secret["data"]["k"].as_str(), secret["type"].as_str()), (Some("AP8="), Some("Opaque")));

    let options = [number(1, 0), bytes(2, &bytes(1, b"u")), bytes(4, b"Orphan"), bytes(5, b"All")].concat();
    let options = json_of("apps/v1", "DeleteOptions", &options);
    assert_eq!(options["gracePeriodSeconds"], 0, "a pointer's zero is a wish");
    assert_eq!(options["preconditions"], json!({ "uid": "u" }));

    let extra = bytes(5, &[bytes(1, b"k"), bytes(2, &[bytes(1, b"a"), bytes(1, b"b")].concat())].concat());
    let review = json_of("authorization.k8s.io/v1", "SubjectAccessReview", &bytes(2, &extra));
    assert_eq!(review["spec"]["extra"], json!({ "k": ["a", "b"] }));

    let revision = json_of("apps/v1", "ControllerRevision", &bytes(2, &bytes(1, b"{\"a\":[1]}")));
    assert_eq!(revision["data"], json!({ "a": [1] }));
    let nested = body("v1", "ConfigMap", &bytes(1, &bytes(1, b"in")));
    let revision = json_of("apps/v1", "ControllerRevision", &bytes(2, &bytes(1, &nested)));
    assert_eq!(revision["data"]["metadata"]["name"], "in");

    let minus_one = number(7, u64::MAX);
    assert_eq!(json_of("v1", "Pod", &bytes(1, &minus_one))["metadata"]["generation"], -1);
    let created = bytes(8, &[number(1, 1_700_000_000), number(2, 5)].concat());
    let created = json_of("v1", "Pod", &bytes(1, &created));
    assert_eq!(created["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
    let renewed = bytes(2, &bytes(4, &[number(1, 1_700_000_000), number(2, 123_456_000)].concat()));
    let renewed = json_of("coordination.k8s.io/v1", "Lease", &renewed);
    assert_eq!(renewed["spec"]["renewTime"], "2023-11-14T22:13:20.123456Z");
}

#[test]
fn pieces_are_put_together_and_the_unknown_is_passed_over() {
    let raw = [
        bytes(1, &bytes(1, b"a")),
        number(99, 7),
        bytes(1, &[bytes(1, b"b"), bytes(3, b"ns")].concat()),
        bytes(2, &[bytes(1, b"k"), bytes(2, b"1")].concat()),
        bytes(2, &[bytes(1, b"k"), bytes(2, b"2")].concat()),
    ]
    .concat();
    let map = json_of("v1", "ConfigMap", &raw);
    assert_eq!(map["metadata"], json!({ "name": "b", "namespace": "ns" }));
    assert_eq!(map["data"], json!({ "k": "2" }));
}

#[test]
fn what_is_no_object_is_refused() {
    let refused = |body: &[u8]| to_json(body).expect_err("not an object");
    assert_eq!(refused(b"{}"), ProtobufError::Magic);
    assert!(matches!(refused(b"k8s\0\x0a\x7f"), ProtobufError::Malformed(_)));
    assert!(matches!(refused(&body("v1", "Nothing", b"")), ProtobufError::UnknownKind { .. }));
    let error = refused(&body("v1", "ConfigMap", &number(1, 3)));
    assert_eq!(error.to_string(), "metadata: must be a message");
    let error = refused(&body("apps/v1", "ControllerRevision", &bytes(2, &bytes(1, b"{"))));
    assert_eq!(error.to_string(), "the protobuf message is malformed: what should be JSON is none");
    // Schemas hold schemas.
    let mut schema = Vec::new();
    for _ in 0..500 {
        schema = bytes(28, &schema);
    }
    let version = bytes(7, &[bytes(1, b"v1"), bytes(4, &bytes(1, &schema))].concat());
    let deep = body("apiextensions.k8s.io/v1", "CustomResourceDefinition", &bytes(2, &version));
    assert_eq!(refused(&deep), ProtobufError::Depth);
}

/// A message with every field set, as far as `depth` goes.
fn full(message: &Message, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for field in &message.fields {
        let content: Vec<u8> = match field.type_ {
            Type::String | Type::Bytes => b"1".to_vec(),
            Type::Special(Special::Time | Special::MicroTime) => number(1, 1),
            Type::Special(Special::Raw) => bytes(1, b"{}"),
            Type::Special(Special::Quantity | Special::Strings) => bytes(1, b"1"),
            Type::Special(Special::IntOrString) => number(2, 1),
            Type::Special(Special::SchemaOrBool) => number(1, 1),
            Type::Special(_) => bytes(1, &bytes(2, b"s")),
            Type::Message(_) if depth == 0 => continue,
            Type::Message(inner) => full(Table::get().message(inner), depth - 1),
            Type::Bool | Type::Int => {
                out.extend(number(field.number, 1));
                continue;
            }
            Type::Double => {
                varint(&mut out, u64::from(field.number) << 3 | 1);
                out.extend(0.5f64.to_le_bytes());
                continue;
            }
        };
        let content = match field.shape {
            Shape::Map => [bytes(1, b"k"), bytes(2, &content)].concat(),
            _ => content,
        };
        out.extend(bytes(field.number, &content));
    }
    out
}

#[test]
fn every_field_of_the_table_is_one_of_the_api() {
    let mut seen = 0;
    for kind in Registry::builtin().iter().filter(|k| !k.group.starts_with("minik8s")) {
        let api_version = kind.api_version();
        let message = Table::get().root(&api_version, &kind.kind);
        let message = message.unwrap_or_else(|| panic!("{kind:?} is not in the table"));
        let json = to_json(&body(&api_version, &kind.kind, &full(message, 9))).unwrap();
        let decoded = kind.decode(&json).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert!(decoded.unknown.is_empty(), "{kind:?}: {:?}", decoded.unknown);
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn the_table_is_in_order() {
    for message in Table::get().iter() {
        assert!(message.fields.is_sorted_by(|a, b| a.number < b.number), "{}", message.name);
    }
}

proptest! {
    #[test]
    fn hostile_bodies_are_refused_or_read(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (api_version, kind) in
            [("v1", "Pod"), ("apps/v1", "Deployment"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition")]
        {
            if let Ok(json) = to_json(&body(api_version, kind, &raw)) {
                prop_assert!(serde_json::from_slice::<Value>(&json).is_ok());
            }
        }
    }

    #[test]
    fn damaged_bodies_are_refused_or_read(at in 0usize..4000, byte in any::<u8>(), cut in 0usize..4000) {
        let pod = Table::get().named("core.v1.Pod").expect("in the table");
        let mut whole = body("v1", "Pod", &full(pod, 4));
        let length = whole.len();
        whole[at % length] = byte;
        whole.truncate(length - cut % length);
        if let Ok(json) = to_json(&whole) {
            prop_assert!(serde_json::from_slice::<Value>(&json).is_ok());
        }
    }
}
