use serde_json::{Value, json};

use super::*;

fn defaulted(spec: Value) -> Value {
    let mut object: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    pod(&mut object);
    let once = serde_json::to_value(&object).unwrap();
    pod(&mut object);
    assert_eq!(serde_json::to_value(&object).unwrap(), once, "a second time changes it");
    once["spec"].clone()
}

#[test]
fn the_smallest_pod() {
    let expected = json!({
        "containers": [{
            "name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }],
        "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
        "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
    });
    assert_eq!(defaulted(json!({"containers": [{"name": "c", "image": "nginx"}]})), expected);
}

#[test]
fn pull_policy_by_tag() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("reg.example:5000/a/nginx", "Always"),
        ("reg.example:5000/a/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
        ("nginx:latest@sha256:00", "IfNotPresent"),
    ] {
        let spec = defaulted(json!({"containers": [{"name": "c", "image": image}]}));
        assert_eq!(spec["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn containers_and_volumes() {
    let spec = defaulted(json!({
        "hostNetwork": true,
        "containers": [{
            "name": "c", "image": "i:1",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 0, "periodSeconds": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
        }],
        "volumes": [
            {"name": "a"},
            {"name": "b", "configMap": {"name": "m"}},
            {"name": "c", "hostPath": {"path": "/x"}},
            {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        ],
    }));
    let container = &spec["containers"][0];
    assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    let probe = json!({
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 3, "successThreshold": 1, "failureThreshold": 3,
    });
    assert_eq!(container["livenessProbe"], probe);
    assert_eq!(container["lifecycle"]["preStop"]["httpGet"]["path"], "/");
    assert_eq!(
        spec["volumes"],
        json!([
            {"name": "a", "emptyDir": {}},
            {"name": "b", "configMap": {"name": "m", "defaultMode": 420}},
            {"name": "c", "hostPath": {"path": "/x", "type": ""}},
            {"name": "d", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
            ]}},
        ])
    );
}

#[test]
fn quality_of_service() {
    let class = |containers: Value| {
        let spec: PodSpec = serde_json::from_value(json!({"containers": containers})).unwrap();
        qos_class(&spec)
    };
    let full =
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
    let only_limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(class(json!([{"name": "a", "resources": full}])), "Guaranteed");
    assert_eq!(class(json!([{"name": "a", "resources": only_limits}])), "Guaranteed");
    assert_eq!(class(json!([{"name": "a", "resources": full}, {"name": "b"}])), "Burstable");
    assert_eq!(class(json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}])), "Burstable");
    assert_eq!(class(json!([{"name": "a"}, {"name": "b", "resources": {}}])), "BestEffort");
    assert_eq!(class(json!([{"name": "a", "resources": {"requests": {"cpu": "0"}}}])), "BestEffort");
}

#[test]
fn a_new_pod() {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {},
        "spec": {"containers": [], "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }))
    .unwrap();
    prepare_for_create(&mut pod);
    let status = pod.status.unwrap();
    assert_eq!((status.phase.as_deref(), status.pod_ip), (Some("Pending"), None));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    let added = &spec.tolerations.unwrap()[1..];
    assert_eq!(added.len(), 1);
    assert_eq!(added[0].key.as_deref(), Some("node.kubernetes.io/unreachable"));
}
