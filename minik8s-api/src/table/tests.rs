use serde_json::{Value, json};

use crate::registry::Registry;

const NOW: i64 = 1_000_000;

/// The line that `kubectl get -o wide` prints of the object, its age being ten minutes.
fn line(kind: &str, mut object: Value) -> String {
    let registry = Registry::builtin();
    let kind = registry.find(kind).unwrap();
    object["metadata"]["creationTimestamp"] = json!(at(600));
    let decoded = kind.decode_value(&object).unwrap();
    let row = kind.row(&*decoded.object, jiff::Timestamp::from_second(NOW).unwrap());
    assert_eq!(row.len(), kind.columns.len());
    let cells: Vec<_> = row.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
    cells.join(" | ")
}

fn at(seconds_ago: i64) -> String {
    jiff::Timestamp::from_second(NOW - seconds_ago).unwrap().to_string()
}

/// Ready, status and restarts of a pod with one container `c`.
fn pod(spec: Value, status: Value) -> String {
    let mut object =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}, "status": status});
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let line = line("pods", object);
    line.split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" | ")
}

fn container(ready: bool, restarts: i32, state: Value) -> Value {
    json!({"name": "c", "image": "", "imageID": "", "ready": ready, "restartCount": restarts, "state": state})
}

#[test]
fn pods() {
    let running = container(true, 0, json!({"running": {}}));
    assert_eq!(pod(json!({}), json!({"phase": "Pending"})), "0/1 | Pending | 0");
    assert_eq!(
        pod(json!({}), json!({"phase": "Running", "containerStatuses": [running]})),
        "1/1 | Running | 0"
    );
    let mut crashing = container(false, 3, json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    crashing["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": at(300)}});
    let status = json!({"phase": "Running", "containerStatuses": [crashing]});
    assert_eq!(pod(json!({}), status), "0/1 | CrashLoopBackOff | 3 (5m ago)");
    for (end, word) in [
        (json!({"exitCode": 0, "reason": "Completed"}), "Completed"),
        (json!({"exitCode": 137, "reason": "OOMKilled"}), "OOMKilled"),
        (json!({"exitCode": 2}), "ExitCode:2"),
        (json!({"exitCode": 137, "signal": 9}), "Signal:9"),
    ] {
        let status = json!({"phase": "Failed", "containerStatuses": [container(false, 0, json!({"terminated": end}))]});
        assert_eq!(pod(json!({}), status), format!("0/1 | {word} | 0"));
    }
    assert_eq!(pod(json!({}), json!({"phase": "Failed", "reason": "Evicted"})), "0/1 | Evicted | 0");
    let gated = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]);
    assert_eq!(pod(json!({}), json!({"phase": "Pending", "conditions": gated})), "0/1 | SchedulingGated | 0");
}

#[test]
fn pods_with_init_containers() {
    let spec = json!({"initContainers": [{"name": "a"}, {"name": "s", "restartPolicy": "Always"}]});
    let init = |name: &str, started: bool, restarts: i32, state: Value| {
        let mut status = container(started, restarts, state);
        status["name"] = json!(name);
        status["started"] = json!(started);
        status
    };
    let done = init("a", false, 0, json!({"terminated": {"exitCode": 0}}));
    let status = |inits: Value| json!({"phase": "Pending", "initContainerStatuses": inits});
    let waiting = init("a", false, 0, json!({"waiting": {"reason": "PodInitializing"}}));
    assert_eq!(pod(spec.clone(), status(json!([waiting]))), "0/2 | Init:0/2 | 0");
    let failed = init("a", false, 4, json!({"terminated": {"exitCode": 1, "reason": "Error"}}));
    assert_eq!(pod(spec.clone(), status(json!([failed]))), "0/2 | Init:Error | 4");
    let second = init("s", false, 0, json!({"running": {}}));
    assert_eq!(pod(spec.clone(), status(json!([done, second]))), "0/2 | Init:1/2 | 0");
    let mut all = status(json!([done, init("s", true, 2, json!({"running": {}}))]));
    all["containerStatuses"] = json!([container(true, 1, json!({"running": {}}))]);
    all["phase"] = json!("Running");
    assert_eq!(pod(spec, all), "2/2 | Running | 3");
}

#[test]
fn pods_that_go() {
    let object = json!({
        "metadata": {"name": "p", "deletionTimestamp": at(1)},
        "spec": {"containers": [{"name": "c"}], "nodeName": "n1", "readinessGates": [{"conditionType": "g"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "g", "status": "True"}]},
    });
    assert_eq!(line("pods", object), "p | 0/1 | Terminating | 0 | 10m | 10.0.0.1 | n1 | <none> | 1/1");
}

#[test]
fn nodes() {
    let object = json!({
        "metadata": {"name": "n", "labels": {
            "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "",
        }},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
        },
    });
    let expected = "n | Ready,SchedulingDisabled | control-plane,worker | 10m |  | 10.0.0.2 | <none> | <unknown> | \
                    <unknown> | <unknown>";
    assert_eq!(line("nodes", object), expected);
}

#[test]
fn services() {
    let of = |spec: Value| line("svc", json!({"metadata": {"name": "s"}, "spec": spec}));
    let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]);
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": ports, "selector": {"a": "b"}});
    assert_eq!(of(spec), "s | NodePort | 10.96.0.1 | <none> | 80/TCP,53:30053/UDP | 10m | a=b");
    let spec = json!({"type": "ExternalName", "externalName": "x.example"});
    assert_eq!(of(spec), "s | ExternalName | <none> | x.example | <none> | 10m | <none>");
    let spec = json!({"type": "LoadBalancer", "clusterIP": "None"});
    assert_eq!(of(spec), "s | LoadBalancer | None | <pending> | <none> | 10m | <none>");
}

#[test]
fn workloads() {
    let template =
        json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"k": "v"}}, "template": template});
    let of = |kind: &str, status: Value| {
        line(kind, json!({"metadata": {"name": "w"}, "spec": spec, "status": status}))
    };
    let status = json!({"readyReplicas": 1, "updatedReplicas": 2});
    assert_eq!(of("deploy", status), "w | 1/3 | 2 | 0 | 10m | a,b | x,y | k=v");
    let status = json!({"replicas": 2, "readyReplicas": 1});
    assert_eq!(of("rs", status.clone()), "w | 3 | 2 | 1 | 10m | a,b | x,y | k=v");
    assert_eq!(of("sts", status), "w | 1/3 | 10m | a,b | x,y");
    let status = json!({"active": 1, "startTime": at(90)});
    assert_eq!(of("job", status), "w | Running | 0/1 | 90s | 10m | a,b | x,y | k=v");
}

#[test]
fn events() {
    let object = json!({
        "metadata": {"name": "e"}, "type": "Warning", "reason": "BackOff", "message": " again \n", "count": 7,
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": at(500), "lastTimestamp": at(20),
    });
    let expected =
        "20s | Warning | BackOff | pod/p | spec.containers{c} | kubelet, n | again | 8m20s | 7 | e";
    assert_eq!(line("events", object), expected);
    let object =
        json!({"metadata": {"name": "e"}, "eventTime": at(5), "regarding": {"kind": "Node", "name": "n"}});
    assert_eq!(line("events.events.k8s.io", object), "5s |  |  | node/n |  |  |  | 5s | 1 | e");
}

#[test]
fn the_rest() {
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "binaryData": {"b": "eA=="}});
    assert_eq!(line("cm", map), "m | 2 | 10m");
    let secret = json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "eA=="}});
    assert_eq!(line("secrets", secret), "s | Opaque | 1 | 10m");
    let role = json!({"metadata": {"name": "r"}});
    assert_eq!(line("clusterroles", role), "r | 1970-01-12T13:36:40Z");
    let endpoints = json!({"metadata": {"name": "e"}, "subsets": [
        {"addresses": [{"ip": "1.1.1.1"}, {"ip": "::1"}], "ports": [{"port": 80}, {"port": 81}]},
    ]});
    assert_eq!(line("ep", endpoints), "e | 1.1.1.1:80,[::1]:80,1.1.1.1:81 + 1 more... | 10m");
    let autoscaler = json!({
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
        ]},
        "status": {"desiredReplicas": 1, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10}}},
        ]},
    });
    let expected = "h | Deployment/d | cpu: 10%/50%, <unknown>/3 | <unset> | 5 | 0 | 10m";
    assert_eq!(line("horizontalpodautoscalers.v2.autoscaling", autoscaler), expected);
    let claim = json!({
        "metadata": {"name": "c"},
        "spec": {"volumeName": "v", "volumeMode": "Filesystem", "storageClassName": "fast"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
    });
    assert_eq!(line("pvc", claim), "c | Bound | v | 1Gi | RWO | fast | <unset> | 10m | Filesystem");
    let binding = json!({
        "metadata": {"name": "b"}, "roleRef": {"apiGroup": "", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "a", "namespace": "n"}],
    });
    assert_eq!(line("rolebindings", binding), "b | Role/r | 10m | u |  | n/a");
}
