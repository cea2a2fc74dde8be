use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::Resource;

fn patched<K: Resource>(original: Value, patch: Value) -> Result<Value, PatchError> {
    apply(&Kind::of::<K>().build(), &original, &patch)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect()
}

fn pod(containers: &[&str]) -> Value {
    let containers: Vec<_> = containers.iter().map(|n| json!({"name": n, "image": "old"})).collect();
    json!({"spec": {"containers": containers}})
}

#[test]
fn containers_merge_by_name() {
    // As sent by `kubectl set image`.
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "b", "image": "new"}],
    }}}});
    let template = pod(&["a", "b"]);
    let original = json!({"spec": {"template": template, "replicas": 2}});
    let result = patched::<Deployment>(original, patch).unwrap();
    let expected = json!([{"name": "a", "image": "old"}, {"name": "b", "image": "new"}]);
    assert_eq!(result["spec"]["template"]["spec"]["containers"], expected);
    assert_eq!(result["spec"]["replicas"], 2);
}

#[test]
fn new_elements_and_order() {
    let patch = json!({"spec": {"containers": [{"name": "x", "image": "i"}]}});
    let result = patched::<Pod>(pod(&["a", "b"]), patch).unwrap();
    assert_eq!(names(&result["spec"]["containers"]), ["a", "b", "x"]);

    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c"}],
    }});
    let result = patched::<Pod>(pod(&["a", "server", "z"]), patch).unwrap();
    assert_eq!(names(&result["spec"]["containers"]), ["server", "z", "c", "a"]);

    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}});
    let result = patched::<Pod>(pod(&["a", "b"]), patch).unwrap();
    assert_eq!(names(&result["spec"]["containers"]), ["b", "a"]);
}

#[test]
fn patch_directives() {
    let delete = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
    assert_eq!(names(&patched::<Pod>(pod(&["a", "b"]), delete).unwrap()["spec"]["containers"]), ["b"]);

    let replace = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "n"}]}});
    let result = patched::<Pod>(pod(&["a", "b"]), replace).unwrap();
    assert_eq!(result["spec"]["containers"], json!([{"name": "n"}]));

    let replace_map = json!({"spec": {"$patch": "replace", "nodeName": "n"}});
    assert_eq!(patched::<Pod>(pod(&["a"]), replace_map).unwrap(), json!({"spec": {"nodeName": "n"}}));

    let delete_map = json!({"metadata": {"labels": {"$patch": "delete"}}});
    let original = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(patched::<Pod>(original, delete_map).unwrap(), json!({"metadata": {"labels": {}}}));
}

#[test]
fn null_removes_and_directives_never_stay() {
    let original = json!({"spec": {"unschedulable": true}, "metadata": {"labels": {"a": "1", "b": "2"}}});
    let patch = json!({
        "spec": {"unschedulable": null, "other": {"gone": null, "here": 1}},
        "metadata": {"labels": {"a": null, "never": null}, "$deleteFromPrimitiveList/finalizers": ["x"]},
    });
    let expected = json!({"spec": {"other": {"here": 1}}, "metadata": {"labels": {"b": "2"}}});
    assert_eq!(patched::<Pod>(original, patch).unwrap(), expected);

    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "a"}],
        "containers": [{"name": "a", "env": null, "command": ["sh"]}, {"name": "b", "$patch": "delete"}],
    }});
    let expected = json!({"spec": {"containers": [{"name": "a", "command": ["sh"]}]}});
    assert_eq!(patched::<Pod>(json!({}), patch).unwrap(), expected);
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let original =
        json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "c", "args": ["1", "2"]}]}});
    let patch =
        json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "c", "args": ["3"]}]}});
    assert_eq!(patched::<Pod>(original, patch.clone()).unwrap(), patch);

    let original = json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}});
    let patch = json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}});
    assert_eq!(patched::<PodDisruptionBudget>(original, patch.clone()).unwrap(), patch);
}

#[test]
fn scalars_merge_as_a_set() {
    let original = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let patch = json!({"metadata": {
        "finalizers": ["d", "b"],
        "$deleteFromPrimitiveList/finalizers": ["c"],
        "$setElementOrder/finalizers": ["d", "b", "a"],
    }});
    let expected = json!({"metadata": {"finalizers": ["d", "b", "a"]}});
    assert_eq!(patched::<Pod>(original, patch).unwrap(), expected);
}

#[test]
fn retained_keys() {
    let original = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let result = patched::<Deployment>(original.clone(), patch).unwrap();
    assert_eq!(result["spec"]["strategy"], json!({"type": "Recreate"}));
    let bad = json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}});
    let error = patched::<Deployment>(original, bad).unwrap_err();
    assert_eq!(error, PatchError::Malformed("invalid patch format of retainKeys".to_owned()));
}

#[test]
fn complaints() {
    let error =
        patched::<Service>(json!({"spec": {"ports": []}}), json!({"spec": {"ports": [{"name": "x"}]}}));
    assert_eq!(
        error.unwrap_err().to_string(),
        "map: {\"name\":\"x\"} does not contain declared merge key: port"
    );
    let error = patched::<Pod>(json!({}), json!({"spec": {"$patch": "frob"}})).unwrap_err();
    assert_eq!(error.to_string(), "Unknown patch type: \"frob\" in map: {\"$patch\":\"frob\"}");
    let disordered = json!({"spec": {
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        "containers": [{"name": "a"}, {"name": "b"}],
    }});
    assert_eq!(patched::<Pod>(pod(&["a"]), disordered).unwrap_err().code(), 400);
    assert_eq!(patched::<Pod>(json!({}), json!([])).unwrap_err().code(), 400);

    let mut custom = Kind::of::<Pod>().build();
    custom.group = "example.dev".into();
    let error = apply(&custom, &json!({}), &json!({})).unwrap_err();
    assert_eq!(error.code(), 415);
}

proptest! {
    /// The result holds each name once, keeps what the patch does not mention and says what the patch says.
    #[test]
    fn merged_lists_are_sound(there in prop::collection::btree_set("[a-f]", 0..5),
                              changed in prop::collection::btree_set("[a-f]", 0..4)) {
        let there: Vec<_> = there.iter().map(String::as_str).collect();
        let change: Vec<_> = changed.iter().map(|n| json!({"name": n, "image": "new"})).collect();
        let result = patched::<Pod>(pod(&there), json!({"spec": {"containers": change}})).unwrap();
        let list = &result["spec"]["containers"];
        let mut got = names(list);
        got.sort_unstable();
        let mut expected: Vec<_> = there.iter().copied().chain(changed.iter().map(String::as_str)).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(got, expected);
        for e in list.as_array().unwrap() {
            let new = changed.contains(e["name"].as_str().unwrap());
            prop_assert_eq!(&e["image"], if new { "new" } else { "old" });
        }
        // A second time changes nothing.
        let again = patched::<Pod>(result.clone(), json!({"spec": {"containers": change}})).unwrap();
        prop_assert_eq!(again, result);
    }
}
