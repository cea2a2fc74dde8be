use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::level::{LABELS, Policies};
use super::{matters, violations};

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

/// A pod that the strictest level allows, with `change` merged in.
fn hardened(change: Value) -> Pod {
    let good = json!({ "spec": {
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{ "name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
        } }],
    } });
    pod(minik8s_api::patch::merge::apply(&good, &change))
}

fn policies(level: &str, version: &str) -> Policies {
    let labels = [(LABELS[0].to_owned(), level.to_owned()), (LABELS[1].to_owned(), version.to_owned())];
    let (policies, errors) = Policies::of(Some(&labels.into()));
    assert!(errors.is_empty(), "{errors}");
    policies
}

fn said(level: &str, version: &str, pod: &Pod) -> String {
    let policy = policies(level, version).enforce;
    violations(policy, &pod.metadata, pod.spec.as_ref().unwrap()).unwrap_or_default()
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let plain = pod(json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } }));
    assert_eq!(said("privileged", "latest", &plain), "");
    assert_eq!(said("baseline", "latest", &plain), "");
    assert_eq!(
        said("restricted", "latest", &plain),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(said("restricted", "latest", &hardened(json!({}))), "");
}

#[test]
fn each_control_has_its_words() {
    let container =
        |security: Value| json!({ "spec": { "containers": [{ "name": "a", "securityContext": security }] } });
    let own =
        |security: Value| json!({ "spec": { "securityContext": security, "containers": [{ "name": "a" }] } });
    let volume = |volume: Value| json!({ "spec": { "containers": [{ "name": "a" }], "volumes": [volume] } });
    let cases = [
        (
            json!({ "spec": { "hostNetwork": true, "hostPID": true, "containers": [] } }),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (volume(json!({ "name": "v", "hostPath": { "path": "/" } })), "hostPath volumes (volume \"v\")"),
        (
            json!({ "spec": { "containers": [{ "name": "a", "ports": [
            { "containerPort": 1, "hostPort": 80 }, { "containerPort": 2, "hostPort": 443 }] }] } }),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            container(json!({ "privileged": true })),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            container(json!({ "capabilities": { "add": ["NET_RAW", "CHOWN"] } })),
            "non-default capabilities (container \"a\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
        ),
        (
            container(json!({ "procMount": "Unmasked" })),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            own(json!({ "seLinuxOptions": { "type": "spc_t", "user": "u", "role": "r" } })),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role \
          may not be set)",
        ),
        (
            own(json!({ "seccompProfile": { "type": "Unconfined" } })),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            own(json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "1" },
                                 { "name": "net.ipv4.tcp_syncookies", "value": "1" }] })),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            own(json!({ "windowsOptions": { "hostProcess": true } })),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            container(json!({ "appArmorProfile": { "type": "Unconfined" } })),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({ "metadata": { "annotations": { "container.apparmor.security.beta.kubernetes.io/a": "unconfined" } },
                 "spec": { "containers": [{ "name": "a" }] } }),
            "forbidden AppArmor profile (container.apparmor.security.beta.kubernetes.io/a=\"unconfined\")",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "a",
            "livenessProbe": { "httpGet": { "port": 80, "host": "evil.example" } } }] } }),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"evil.example\")",
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(said("baseline", "latest", &pod(value)), expected);
    }
    let cases = [
        (
            json!({ "spec": { "securityContext": { "runAsNonRoot": false } } }),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            json!({ "spec": { "securityContext": { "runAsUser": 0 } } }),
            "runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            json!({ "spec": { "volumes": [{ "name": "v", "nfs": { "server": "s", "path": "/" } }] } }),
            "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")",
        ),
        (json!({ "spec": { "volumes": [{ "name": "v", "secret": { "secretName": "s" } }] } }), ""),
        (
            json!({ "spec": { "securityContext": { "seccompProfile": null } } }),
            "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
          \"Localhost\")",
        ),
        (
            json!({ "spec": { "ephemeralContainers": [{ "name": "debug" }] } }),
            "allowPrivilegeEscalation != false (container \"debug\" must set \
          securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"debug\" must set \
          securityContext.capabilities.drop=[\"ALL\"])",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(said("restricted", "latest", &hardened(change)), expected);
    }
}

#[test]
fn versions_know_what_was_known_then() {
    let sysctl = pod(json!({ "spec": { "containers": [], "securityContext": {
        "sysctls": [{ "name": "net.ipv4.tcp_keepalive_time", "value": "1" }] } } }));
    assert_eq!(said("baseline", "v1.28", &sysctl), "forbidden sysctls (net.ipv4.tcp_keepalive_time)");
    assert_eq!(said("baseline", "v1.29", &sysctl), "");
    let root = hardened(json!({ "spec": { "securityContext": { "runAsUser": 0 } } }));
    assert_eq!(said("restricted", "v1.22", &root), "");
    assert_ne!(said("restricted", "v1.23", &root), "");
    let keeps = hardened(json!({ "spec": { "containers": [{ "name": "a",
        "securityContext": { "allowPrivilegeEscalation": false } }] } }));
    assert_eq!(said("restricted", "v1.21", &keeps), "");
    let windows = pod(json!({ "spec": { "os": { "name": "windows" },
        "securityContext": { "runAsNonRoot": true }, "containers": [{ "name": "a" }] } }));
    assert_eq!(said("restricted", "v1.25", &windows), "");
    assert_ne!(said("restricted", "v1.24", &windows), "");
}

#[test]
fn labels_that_are_wrong_enforce_the_strictest() {
    let labels = |pairs: &[(&str, &str)]| {
        let labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (policies, errors) = Policies::of(Some(&labels));
        (policies.enforce.to_string(), policies.warn.to_string(), errors.0.len())
    };
    let is = |enforce: &str, warn: &str, errors: usize| (enforce.to_owned(), warn.to_owned(), errors);
    assert_eq!(labels(&[]), is("privileged:latest", "privileged:latest", 0));
    assert_eq!(labels(&[(LABELS[0], "strict")]), is("restricted:latest", "privileged:latest", 1));
    assert_eq!(labels(&[(LABELS[4], "strict")]), is("privileged:latest", "privileged:latest", 1));
    assert_eq!(
        labels(&[(LABELS[0], "baseline"), (LABELS[1], "v1.25"), (LABELS[4], "restricted")]),
        is("baseline:v1.25", "restricted:latest", 0)
    );
    for version in ["1.25", "v1.x", "v1.025", "v2.0", ""] {
        assert_eq!(labels(&[(LABELS[1], version)]).2, 1, "{version}");
    }
}

#[test]
fn a_change_of_an_image_matters_not() {
    let old = pod(json!({ "spec": { "containers": [{ "name": "a", "image": "x:1" }] } }));
    let image = pod(json!({ "spec": { "containers": [{ "name": "a", "image": "x:2" }] } }));
    assert!(!matters(&old, &image));
    let debug = pod(json!({ "spec": { "containers": [{ "name": "a", "image": "x:1" }],
        "ephemeralContainers": [{ "name": "debug" }] } }));
    assert!(matters(&old, &debug));
    let profile = pod(json!({ "metadata": { "annotations": {
        "container.apparmor.security.beta.kubernetes.io/a": "unconfined" } },
        "spec": { "containers": [{ "name": "a", "image": "x:1" }] } }));
    assert!(matters(&old, &profile));
}
