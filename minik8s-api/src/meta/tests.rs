use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some("default".to_owned()), ..Default::default() }
}

fn messages(errors: &FieldErrors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}

fn map(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect())
}

#[test]
fn names_by_kind() {
    let config_map = Kind::of::<ConfigMap>().build();
    assert!(validate(&meta("a.b-c"), &config_map).is_empty());
    let bad = messages(&validate(&meta("Bad_Name"), &config_map));
    assert_eq!(bad.len(), 1);
    assert!(
        bad[0].starts_with("metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain"),
        "{bad:?}"
    );
    assert!(!validate(&meta("a.b"), &Kind::of::<Service>().build()).is_empty());

    let mut role = meta("system:node");
    role.namespace = None;
    assert!(validate(&role, &Kind::of::<ClusterRole>().build()).is_empty());
    role.name = Some("a/b".to_owned());
    let wrong = messages(&validate(&role, &Kind::of::<ClusterRole>().build()));
    assert_eq!(wrong, ["metadata.name: Invalid value: \"a/b\": may not contain '/'"]);
}

#[test]
fn namespaces_and_missing_names() {
    let kind = Kind::of::<ConfigMap>().build();
    let empty = messages(&validate(&ObjectMeta::default(), &kind));
    assert_eq!(
        empty,
        [
            "metadata.name: Required value: name or generateName is required",
            "metadata.namespace: Required value",
        ]
    );
    let wrong = messages(&validate(&meta("a"), &Kind::of::<Namespace>().build()));
    assert_eq!(wrong, ["metadata.namespace: Forbidden: not allowed on this type"]);
}

#[test]
fn prefixes_may_end_with_a_dash() {
    let kind = Kind::of::<ConfigMap>().build();
    let with = |prefix: &str| ObjectMeta { generate_name: Some(prefix.to_owned()), ..meta("a") };
    assert!(validate(&with("web-"), &kind).is_empty());
    assert!(!validate(&with("-"), &kind).is_empty());
    assert!(!validate(&with("Web-"), &kind).is_empty());
}

#[test]
fn labels_annotations_owners_finalizers() {
    let kind = Kind::of::<ConfigMap>().build();
    let owner = |name: &str| OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: name.to_owned(),
        uid: "u".to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let mut object = meta("a");
    object.labels = map(&[("ok", "v"), ("bad key", "-v")]);
    object.annotations = map(&[("Example.COM/Note", "any: text")]);
    object.owner_references = Some(vec![owner("x"), owner("y")]);
    object.finalizers = Some(vec!["mine".to_owned(), "a.b/c".to_owned()]);
    let wrong = messages(&validate(&object, &kind));
    assert_eq!(wrong.len(), 4, "{wrong:#?}");
    assert!(wrong[0].starts_with("metadata.labels: Invalid value: \"bad key\": name part must consist"));
    assert!(wrong[1].starts_with("metadata.labels: Invalid value: \"-v\": a valid label must be"));
    assert!(wrong[2].ends_with("Found \"true\" in references for ReplicaSet/x and ReplicaSet/y"));
    let words = "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is \
                 it fully qualified";
    assert_eq!(wrong[3], words);

    object = meta("a");
    object.annotations = map(&[("k", &"x".repeat(ANNOTATIONS_MAX))]);
    let wrong = messages(&validate(&object, &kind));
    assert_eq!(wrong, ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
}

#[test]
fn updates_keep_what_identifies() {
    let kind = Kind::of::<ConfigMap>().build();
    let mut old = meta("a");
    old.uid = Some("1".to_owned());
    old.generation = Some(2);
    assert!(validate_update(&old, &old, &kind).is_empty());
    let new = ObjectMeta { name: Some("b".to_owned()), uid: None, generation: Some(1), ..old.clone() };
    assert_eq!(
        messages(&validate_update(&new, &old, &kind)),
        [
            "metadata.generation: Invalid value: 1: must not be decremented",
            "metadata.name: Invalid value: \"b\": field is immutable",
            "metadata.uid: Invalid value: null: field is immutable",
        ]
    );
    old.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    let mut new = old.clone();
    new.finalizers = Some(vec!["a.b/c".to_owned()]);
    let wrong = messages(&validate_update(&new, &old, &kind));
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].ends_with("found new finalizers []string{\"a.b/c\"}"), "{wrong:?}");
}
