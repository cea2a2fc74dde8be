use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use minik8s_api::Kind;
use std::sync::Arc;

use super::{Decision, FOREGROUND, Graph, Node, ORPHAN};

fn object(
    kind: &Arc<Kind>,
    name: &str,
    owners: &[(&str, bool)],
    finalizers: &[&str],
    deleting: bool,
) -> Node {
    let owner = |(name, blocks): &(&str, bool)| OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: (*name).into(),
        uid: format!("uid-{name}"),
        block_owner_deletion: Some(*blocks),
        controller: None,
    };
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        uid: Some(format!("uid-{name}")),
        owner_references: Some(owners.iter().map(owner).collect()),
        finalizers: Some(finalizers.iter().map(ToString::to_string).collect()),
        deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
        ..ObjectMeta::default()
    };
    Node::new(kind.clone(), metadata, 1)
}

fn decide(nodes: Vec<Node>, name: &str) -> String {
    let mut graph = Graph::default();
    nodes.into_iter().for_each(|n| graph.apply(n));
    match graph.decide(&format!("uid-{name}")) {
        Decision::Nothing => "nothing".into(),
        Decision::Delete { blocked: true, .. } => "delete, awaited".into(),
        Decision::Delete { owners, .. } => format!("delete, {} owners gone", owners.len()),
        Decision::DropOwners { owners, .. } => format!("drop {} owners", owners.len()),
        Decision::Orphan { dependents, .. } => format!("let {} go", dependents.len()),
        Decision::Release { .. } => "release".into(),
    }
}

#[test]
fn what_is_done_about_an_object() {
    let kind = Arc::new(Kind::of::<ConfigMap>().build());
    let plain = |name: &str| object(&kind, name, &[], &[], false);
    let owned = |name: &str, owners: &[(&str, bool)]| object(&kind, name, owners, &[], false);
    let ending = |name: &str, finalizer: &str| object(&kind, name, &[], &[finalizer], true);

    assert_eq!(decide(vec![plain("a")], "a"), "nothing");
    assert_eq!(decide(vec![plain("a"), owned("b", &[("a", true)])], "b"), "nothing");
    assert_eq!(decide(vec![owned("b", &[("a", true)])], "b"), "delete, 1 owners gone");
    assert_eq!(decide(vec![plain("a"), owned("b", &[("a", true), ("x", true)])], "b"), "drop 1 owners");
    let foreground = || vec![ending("a", FOREGROUND), owned("b", &[("a", true)])];
    assert_eq!(decide(foreground(), "a"), "nothing", "it waits for b");
    assert_eq!(decide(foreground(), "b"), "delete, awaited");
    assert_eq!(decide(vec![ending("a", FOREGROUND), owned("b", &[("a", false)])], "a"), "release");
    assert_eq!(decide(vec![ending("a", ORPHAN), owned("b", &[("a", true)])], "a"), "let 1 go");
    assert_eq!(decide(vec![ending("a", FOREGROUND)], "a"), "release");
}

#[test]
fn those_concerned_are_looked_at_again() {
    let kind = Arc::new(Kind::of::<ConfigMap>().build());
    let mut graph = Graph::default();
    graph.apply(object(&kind, "a", &[], &[], false));
    graph.apply(object(&kind, "b", &[("a", true)], &[], false));
    graph.take_dirty();
    graph.remove(&"uid-a".to_owned());
    assert!(graph.take_dirty().contains("uid-b"), "its owner went");
    graph.remove(&"uid-b".to_owned());
    assert!(graph.take_dirty().contains("uid-a"), "it might have waited for b");
}
