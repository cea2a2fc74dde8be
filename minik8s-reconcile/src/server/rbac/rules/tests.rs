use k8s_openapi::api::rbac::v1::PolicyRule;
use proptest::prelude::*;

use super::{allows, describe, missing};
use crate::server::authorizer::Action;

fn words(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> = text.split_whitespace().map(|w| w.trim_matches('"').to_owned()).collect();
    (!words.is_empty()).then_some(words)
}

fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule {
        verbs: words(verbs).unwrap_or_default(),
        api_groups: words(groups),
        resources: words(resources),
        resource_names: words(names),
        non_resource_urls: None,
    }
}

fn urls(verbs: &str, urls: &str) -> PolicyRule {
    PolicyRule { non_resource_urls: words(urls), ..rule(verbs, "", "", "") }
}

fn resource<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Action<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Action::Resource {
        verb,
        group,
        version: "v1",
        resource,
        subresource,
        namespace: "",
        name,
        field_selector: "",
    }
}

#[test]
fn what_a_rule_allows() {
    let core = "\"\"";
    let table = [
        (rule("get", core, "pods", ""), resource("get", "", "pods", "a"), true),
        (rule("get", core, "pods", ""), resource("list", "", "pods", ""), false),
        (rule("get", core, "pods", ""), resource("get", "apps", "pods", "a"), false),
        (rule("get", core, "pods", ""), resource("get", "", "pods/log", "a"), false),
        (rule("get", core, "pods/log", ""), resource("get", "", "pods/log", "a"), true),
        (rule("get", core, "pods/log", ""), resource("get", "", "pods", "a"), false),
        (rule("*", "*", "*", ""), resource("escalate", "x.io", "things/scale", "a"), true),
        (rule("update", "*", "*/scale", ""), resource("update", "apps", "deployments/scale", "a"), true),
        (rule("update", "*", "*/scale", ""), resource("update", "apps", "deployments", "a"), false),
        (rule("update", "*", "*/scale", ""), resource("update", "apps", "deployments/status", "a"), false),
        (rule("get", core, "secrets", "a b"), resource("get", "", "secrets", "b"), true),
        (rule("get", core, "secrets", "a b"), resource("get", "", "secrets", "c"), false),
        (rule("list", core, "secrets", "a b"), resource("list", "", "secrets", ""), false),
        (rule("get", "", "pods", ""), resource("get", "", "pods", "a"), false),
        (urls("get", "/healthz"), Action::NonResource { verb: "get", path: "/healthz" }, true),
        (urls("get", "/healthz"), Action::NonResource { verb: "get", path: "/healthz/ping" }, false),
        (urls("get", "/healthz/*"), Action::NonResource { verb: "get", path: "/healthz/ping" }, true),
        (urls("get", "/healthz/*"), Action::NonResource { verb: "get", path: "/healthz" }, false),
        (urls("*", "*"), Action::NonResource { verb: "post", path: "/any" }, true),
        (urls("get", "*"), resource("get", "", "pods", "a"), false),
        (rule("*", "*", "*", ""), Action::NonResource { verb: "get", path: "/any" }, false),
    ];
    for (rule, action, expected) in table {
        assert_eq!(allows(&rule, &action), expected, "{} and {action:?}", describe(&rule));
    }
}

#[test]
fn what_is_missing_is_named_shortly() {
    let held = [rule("get list", "\"\"", "pods */status", ""), rule("get", "\"\"", "secrets", "a")];
    let wanted = [
        rule("get list watch delete", "\"\"", "pods", ""),
        rule("get", "\"\"", "pods/status", ""),
        rule("get", "\"\"", "secrets", "a"),
    ];
    let missing_: Vec<String> = missing(&held, &wanted).iter().map(describe).collect();
    assert_eq!(missing_, [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#]);
    assert_eq!(missing(&held, &[rule("get", "\"\"", "secrets", "")]).len(), 1, "a name is not all names");
    assert!(missing(&[rule("*", "*", "*", "")], &wanted).is_empty());
    assert_eq!(missing(&[rule("*", "*", "*", "")], &[urls("get", "/a")]).len(), 1);
    assert!(missing(&[urls("get", "/a*")], &[urls("get", "/a/b")]).is_empty());
}

fn some_rule() -> impl Strategy<Value = PolicyRule> {
    let of = |words: &'static [&'static str]| proptest::sample::subsequence(words, 1..=words.len().min(2));
    let own = |words: Vec<&str>| -> Vec<String> { words.into_iter().map(ToOwned::to_owned).collect() };
    let names = proptest::sample::subsequence(&["a", "b"][..], 0..=2);
    let verbs = of(&["get", "list", "*"]);
    let groups = of(&["", "apps", "*"]);
    let resources = of(&["pods", "pods/log", "*/log", "nodes", "*"]);
    (verbs, groups, resources, names).prop_map(move |(verbs, groups, resources, names)| PolicyRule {
        verbs: own(verbs),
        api_groups: Some(own(groups)),
        resources: Some(own(resources)),
        resource_names: Some(own(names)),
        non_resource_urls: None,
    })
}

proptest! {
    /// Whoever holds rules that cover others may do whatever those allow.
    #[test]
    fn covered_rules_allow_nothing_more(
        held in proptest::collection::vec(some_rule(), 0..4),
        wanted in proptest::collection::vec(some_rule(), 0..3),
    ) {
        if missing(&held, &wanted).is_empty() {
            for verb in ["get", "list", "other"] {
                for group in ["", "apps", "other"] {
                    for what in ["pods", "pods/log", "nodes", "nodes/log", "other"] {
                        for name in ["", "a", "b", "c"] {
                            let action = resource(verb, group, what, name);
                            let by = |rules: &[PolicyRule]| rules.iter().any(|rule| allows(rule, &action));
                            prop_assert!(by(&held) || !by(&wanted), "{action:?}");
                        }
                    }
                }
            }
        }
    }

    /// With what is missing on top of what is held, nothing is missing.
    #[test]
    fn what_is_missing_completes(
        held in proptest::collection::vec(some_rule(), 0..4),
        wanted in proptest::collection::vec(some_rule(), 0..3),
    ) {
        let mut all = held.clone();
        all.extend(missing(&held, &wanted));
        prop_assert!(missing(&all, &wanted).is_empty());
    }
}
