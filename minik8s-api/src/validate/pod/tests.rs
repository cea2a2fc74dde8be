use serde_json::{Value, json};

use super::*;

/// The complaints about a pod of this spec, after defaulting.
fn wrong(spec: Value) -> Vec<String> {
    let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    crate::default::pod::pod(&mut pod);
    validate(&pod).0.iter().map(ToString::to_string).collect()
}

/// The complaints about a container with these fields, without the path of the container.
fn wrong_container(fields: Value) -> Vec<String> {
    let mut container = json!({"name": "c", "image": "i"});
    container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let volumes = json!([{"name": "v"}, {"name": "w"}]);
    let all = wrong(json!({"containers": [container], "volumes": volumes}));
    all.iter().map(|w| w.replace("spec.containers[0].", "")).collect()
}

const GOOD: &str = r#"{
    "containers": [{
        "name": "c", "image": "nginx:1.25", "command": ["sh"], "args": ["-c"], "workingDir": "/",
        "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080}],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a.b/c']"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
        ],
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "0.2", "memory": "1Gi", "a.b/gpu": "1"}},
        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
        "readinessProbe": {"exec": {"command": ["true"]}, "successThreshold": 2},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
        "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "x/y"}]
    }],
    "initContainers": [
        {"name": "i", "image": "i"},
        {"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}
    ],
    "volumes": [
        {"name": "a"}, {"name": "b", "hostPath": {"path": "/x", "type": "Directory"}},
        {"name": "d", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p/q", "mode": 256}]}},
        {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}
    ],
    "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}]}}
}"#;

#[test]
fn a_good_pod_is_good() {
    assert_eq!(wrong(serde_json::from_str(GOOD).unwrap()), Vec::<String>::new());
}

#[test]
fn names_and_images() {
    let pod = json!({
        "containers": [{"name": "a"}, {"name": "a", "image": " i"}, {"name": "", "image": "i"}],
        "initContainers": [{"name": "a", "image": "i", "readinessProbe": {"exec": {"command": ["x"]}}}],
    });
    assert_eq!(
        wrong(pod),
        [
            "spec.containers[0].image: Required value",
            "spec.containers[1].name: Duplicate value: \"a\"",
            "spec.containers[1].image: Invalid value: \" i\": must not have leading or trailing whitespace",
            "spec.containers[2].name: Required value",
            "spec.initContainers[0].name: Duplicate value: \"a\"",
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
             restartPolicy=Always",
        ]
    );
    assert_eq!(wrong(json!({"containers": []})), ["spec.containers: Required value"]);
}

#[test]
fn ports() {
    let ports = json!([
        {"name": "a", "containerPort": 80, "hostPort": 80}, {"name": "a", "containerPort": 0},
        {"containerPort": 70000, "protocol": "ICMP"}, {"containerPort": 1, "hostPort": 80},
    ]);
    assert_eq!(
        wrong_container(json!({"ports": ports})),
        [
            "ports[1].name: Duplicate value: \"a\"",
            "ports[1].containerPort: Required value",
            "ports[2].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[2].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "ports[3].hostPort: Duplicate value: \"TCP//80\"",
        ]
    );
    let pod = json!({"hostNetwork": true, "containers": [
        {"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 2}]},
    ]});
    assert_eq!(
        wrong(pod),
        [
            "spec.containers[0].ports[0].containerPort: Invalid value: 1: must match `hostPort` when `hostNetwork` is \
             true"
        ]
    );
}

#[test]
fn environment() {
    let env = json!([
        {"name": ""},
        {"name": "a=b"},
        {"name": "c", "valueFrom": {}},
        {"name": "d", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}},
        {"name": "e", "valueFrom": {"configMapKeyRef": {"name": "m", "key": ""}}},
    ]);
    let found = wrong_container(json!({"env": env, "envFrom": [{}]}));
    let starts = [
        "env[0].name: Required value",
        "env[1].name: Invalid value: \"a=b\": a valid environment variable name",
        "env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`",
        "env[3].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        "env[3].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\"",
        "env[4].valueFrom.configMapKeyRef.key: Required value",
        "envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn resources() {
    let resources = json!({
        "requests": {"cpu": "2", "memory": "x", "a.b/gpu": "1"},
        "limits": {"cpu": "1500m", "frobs": "1", "memory": "-1", "a.b/gpu": "1500m"},
    });
    assert_eq!(
        wrong_container(json!({"resources": resources})),
        [
            "resources.limits[a.b/gpu]: Invalid value: \"1500m\": must be an integer",
            "resources.limits[frobs]: Invalid value: \"frobs\": must be a standard resource for containers",
            "resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "resources.requests: Invalid value: \"1\": must be equal to a.b/gpu limit of 1500m",
            "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1500m",
            "resources.requests[frobs]: Invalid value: \"frobs\": must be a standard resource for containers",
            "resources.requests[memory]: Invalid value: \"x\": quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ]
    );
}

#[test]
fn mounts_and_volumes() {
    let mounts = json!([
        {"name": "v", "mountPath": "/a", "subPath": "/x"}, {"name": "w", "mountPath": "/a"},
        {"name": "nope", "mountPath": ""}, {"name": "v", "mountPath": "/b", "subPath": "a/../.."},
        {"name": "v", "mountPath": "/c", "mountPropagation": "Bidirectional"},
    ]);
    assert_eq!(
        wrong_container(json!({"volumeMounts": mounts})),
        [
            "volumeMounts[0].subPath: Invalid value: \"/x\": must be a relative path",
            "volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "volumeMounts[2].name: Not found: \"nope\"",
            "volumeMounts[2].mountPath: Required value",
            "volumeMounts[3].subPath: Invalid value: \"a/../..\": must not contain '..'",
            "volumeMounts[4].mountPropagation: Forbidden: Bidirectional mount propagation is available only to \
             privileged containers",
        ]
    );
    let volumes = json!([
        {"name": "A"}, {"name": "b", "hostPath": {"path": "/a/../b", "type": "Frob"}},
        {"name": "b", "emptyDir": {"sizeLimit": "-1"}, "secret": {}},
        {"name": "c", "configMap": {"name": "", "defaultMode": 512}},
    ]);
    let found = wrong(json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes}));
    let starts = [
        "spec.volumes[0].name: Invalid value: \"A\": a lowercase RFC 1123 label",
        "spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        "spec.volumes[1].hostPath.type: Unsupported value: \"Frob\": supported values: \"\", \"BlockDevice\"",
        "spec.volumes[2].secret: Forbidden: may not specify more than 1 volume type",
        "spec.volumes[2].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
        "spec.volumes[2].secret.secretName: Required value",
        "spec.volumes[2].name: Duplicate value: \"b\"",
        "spec.volumes[3].configMap.name: Required value",
        "spec.volumes[3].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal)",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn probes_and_hooks() {
    let fields = json!({
        "livenessProbe": {"exec": {"command": ["x"]}, "httpGet": {"port": 1}, "successThreshold": 2},
        "readinessProbe": {"periodSeconds": -1},
        "startupProbe": {"tcpSocket": {"port": "NO"}},
        "lifecycle": {"postStart": {"exec": {}}},
    });
    let found = wrong_container(fields);
    let starts = [
        "livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
        "livenessProbe.successThreshold: Invalid value: 2: must be 1",
        "readinessProbe: Required value: must specify a handler type",
        "readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        "startupProbe.tcpSocket.port: Invalid value: \"NO\": must contain only alpha-numeric characters",
        "startupProbe.tcpSocket.port: Invalid value: \"NO\": must contain at least one letter",
        "lifecycle.postStart.exec.command: Required value",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn policies_and_scheduling() {
    let pod = json!({
        "containers": [{"name": "c", "image": "i"}],
        "restartPolicy": "Sometimes", "dnsPolicy": "None", "terminationGracePeriodSeconds": -1,
        "activeDeadlineSeconds": 0, "hostname": "a.b", "hostPID": true, "shareProcessNamespace": true,
        "securityContext": {"runAsUser": -1},
        "tolerations": [{"value": "x"}, {"key": "k", "operator": "Exists", "tolerationSeconds": 1}],
        "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Maybe"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In"}]}]}}},
    });
    let found = wrong(pod);
    let starts = [
        "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        "spec.hostname: Invalid value: \"a.b\": a lowercase RFC 1123 label",
        "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID",
        "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty",
        "spec.tolerations[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
         matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
        "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Maybe\"",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn updates() {
    let pod = |change: fn(&mut PodSpec)| {
        let mut pod: Pod = serde_json::from_value(
            json!({"metadata": {}, "spec": serde_json::from_str::<Value>(GOOD).unwrap()}),
        )
        .unwrap();
        change(pod.spec.as_mut().unwrap());
        pod
    };
    let old = pod(|_| {});
    let wrong =
        |new: &Pod| -> Vec<String> { validate_update(new, &old).0.iter().map(ToString::to_string).collect() };
    let allowed = pod(|spec| {
        spec.containers[0].image = Some("nginx:2".to_owned());
        spec.init_containers.as_mut().unwrap()[1].image = Some("other".to_owned());
        spec.active_deadline_seconds = Some(5);
        let tolerations = spec.tolerations.as_mut().unwrap();
        tolerations[0].toleration_seconds = Some(3);
        tolerations.push(Default::default());
    });
    assert_eq!(wrong(&allowed), Vec::<String>::new());

    let moved = wrong(&pod(|spec| {
        spec.node_name = Some("n".to_owned());
        spec.containers[0].env = None;
    }));
    assert_eq!(moved.len(), 1);
    assert!(
        moved[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*]")
    );
    assert!(moved[0].ends_with("\nchanged: spec.containers, spec.nodeName"), "{moved:?}");

    let fewer = wrong(&pod(|spec| spec.init_containers = None));
    assert_eq!(fewer, ["spec.initContainers: Forbidden: pod updates may not add or remove containers"]);
    let intolerant = wrong(&pod(|spec| spec.tolerations = None));
    let detail = "existing toleration can not be modified except its tolerationSeconds";
    assert_eq!(intolerant, [format!("spec.tolerations: Forbidden: {detail}")]);
}
