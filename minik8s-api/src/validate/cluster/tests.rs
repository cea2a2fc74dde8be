use serde_json::{Value, json};

use crate::registry::Registry;

/// The complaints about an object, after defaulting.
fn wrong(kind: &str, object: Value) -> Vec<String> {
    let registry = Registry::builtin();
    let kind = registry.find(kind).unwrap();
    let mut object = kind.decode_value(&object).unwrap().object;
    kind.default(&mut *object);
    kind.validate(&*object).0.iter().map(ToString::to_string).collect()
}

/// The complaints about a change.
fn wrong_change(kind: &str, old: Value, new: Value) -> Vec<String> {
    let registry = Registry::builtin();
    let kind = registry.find(kind).unwrap();
    let [old, new] = [old, new].map(|o| kind.decode_value(&o).unwrap().object);
    kind.validate_update(&*new, &*old).0.iter().map(ToString::to_string).collect()
}

#[test]
fn autoscalers() {
    let target = json!({"kind": "Deployment", "name": "d"});
    let good = json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3}});
    assert_eq!(wrong("horizontalpodautoscalers.v2.autoscaling", good), Vec::<String>::new());
    let metrics = json!([
        {"type": "Resource"},
        {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "0"}}},
    ]);
    let bad =
        json!({"spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 1, "metrics": metrics}});
    assert_eq!(
        wrong("horizontalpodautoscalers.v2.autoscaling", bad),
        [
            "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`",
            "spec.metrics[0].resource: Required value: must populate information for the given metric source, \
             `resource`",
            "spec.metrics[1].pods.target.averageValue: Invalid value: \"0\": must be positive",
        ]
    );
}

#[test]
fn budgets_and_bindings() {
    let budget = json!({"spec": {"minAvailable": "x", "maxUnavailable": -1}});
    let found = wrong("pdb", budget);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].ends_with("minAvailable and maxUnavailable cannot be both set"));
    assert!(found[1].starts_with("spec.minAvailable: Invalid value: \"x\": a valid percent string"));

    let subjects = json!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]);
    let role = json!({"kind": "Role", "name": "r"});
    assert_eq!(
        wrong("clusterrolebindings", json!({"roleRef": role, "subjects": subjects})),
        [
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[1].namespace: Required value",
        ]
    );
    let other = json!({"kind": "Role", "name": "other"});
    let found = wrong_change("rolebindings", json!({"roleRef": role}), json!({"roleRef": other}));
    assert!(found[0].ends_with("cannot change roleRef"), "{found:?}");
}

#[test]
fn claims() {
    let spec =
        |size: &str| json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
    assert_eq!(wrong("pvc", json!({"spec": spec("1Gi")})), Vec::<String>::new());
    assert_eq!(
        wrong(
            "pvc",
            json!({"spec": {"accessModes": ["Sometimes"], "resources": {"requests": {"storage": "0"}}}})
        ),
        [
            "spec.accessModes: Unsupported value: \"Sometimes\": supported values: \"ReadOnlyMany\", \
             \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            "spec.resources.requests[storage]: Invalid value: \"0\": must be greater than zero",
        ]
    );
    let bound = |size: &str| json!({"spec": spec(size), "status": {"phase": "Bound"}});
    assert_eq!(wrong_change("pvc", bound("1Gi"), bound("2Gi")), Vec::<String>::new());
    let detail = "field can not be less than previous value";
    let smaller = [format!("spec.resources.requests.storage: Forbidden: {detail}")];
    assert_eq!(wrong_change("pvc", bound("2Gi"), bound("1Gi")), smaller);
    let found = wrong_change("pvc", json!({"spec": spec("1Gi")}), json!({"spec": spec("2Gi")}));
    assert!(found[0].starts_with("spec: Forbidden: spec is immutable after creation"), "{found:?}");
}

#[test]
fn custom_resources() {
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let spec = json!({
        "group": "example.dev", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [version],
    });
    let good = json!({"metadata": {"name": "things.example.dev"}, "spec": spec});
    assert_eq!(wrong("crd", good.clone()), Vec::<String>::new());
    let mut bad = good;
    bad["metadata"]["name"] = json!("things");
    bad["spec"]["scope"] = json!("World");
    bad["spec"]["versions"] = json!([{"name": "v1", "served": true, "storage": false}]);
    assert_eq!(
        wrong("crd", bad),
        [
            "metadata.name: Invalid value: \"things\": must be spec.names.plural+\".\"+spec.group",
            "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
        ]
    );
}
