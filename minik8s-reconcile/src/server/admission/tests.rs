use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Namespace, PersistentVolumeClaim, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use minik8s_api::{Object, Resource};
use serde_json::{Value, json};

use super::{Admission, Notes, Request, Verb};
use crate::request::{DeleteParams, Operation, Payload, WriteParams};
use crate::storage::memory::MemoryStorage;
use crate::{ApiError, ApiServer};

fn read<K: Resource>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

async fn server() -> ApiServer {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    server
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut whole = json!({ "containers": [{ "name": "main", "image": "web:1" }] });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    read(json!({ "metadata": { "name": name }, "spec": whole }))
}

#[tokio::test]
async fn what_decides_is_in_force_when_it_is_acknowledged() {
    let server = server().await;
    let client = server.client();
    let pods = client.namespaced::<Pod>("default");
    for i in 0..5 {
        let range: LimitRange = read(json!({ "metadata": { "name": "limits" }, "spec": { "limits": [
            { "type": "Container", "max": { "cpu": format!("{}", i + 1) } }] } }));
        let ranges = client.namespaced::<LimitRange>("default");
        ranges.create(&range).await.expect("a range");
        let made = pods.create(&pod(&format!("p{i}"), json!({}))).await.expect("a pod");
        let value = made.to_value();
        let resources = &value["spec"]["containers"][0]["resources"];
        let expected = json!({ "cpu": format!("{}", i + 1) });
        assert_eq!((&resources["limits"], &resources["requests"]), (&expected, &expected));
        assert_eq!(value["status"]["qosClass"], "Burstable");
        ranges.delete("limits", &DeleteParams::default()).await.expect("gone");
    }
    let error =
        pods.create(&pod("named", json!({ "priorityClassName": "high" }))).await.expect_err("no class");
    assert_eq!(error.to_string(), "pods \"named\" is forbidden: no PriorityClass with name high was found");
    let high: PriorityClass =
        read(json!({ "metadata": { "name": "high" }, "value": 1000, "globalDefault": true }));
    client.all::<PriorityClass>().create(&high).await.expect("a class");
    let made = pods.create(&pod("usual", json!({}))).await.expect("a pod").to_value();
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["priorityClassName"]),
        (&json!(1000), &json!("high"))
    );
    let system = json!({ "priorityClassName": "system-node-critical" });
    let made = pods.create(&pod("critical", system)).await.expect("a pod").to_value();
    assert_eq!(made["spec"]["priority"], 2_000_001_000);
    let other: PriorityClass =
        read(json!({ "metadata": { "name": "other" }, "value": 1, "globalDefault": true }));
    let error = client.all::<PriorityClass>().create(&other).await.expect_err("a second default").to_string();
    assert!(error.ends_with("PriorityClass high is already marked as default. Only one default can exist"));
    let class: StorageClass = read(json!({ "metadata": { "name": "fast", "annotations": {
        "storageclass.kubernetes.io/is-default-class": "true" } }, "provisioner": "x" }));
    client.all::<StorageClass>().create(&class).await.expect("a class");
    let claim: PersistentVolumeClaim = read(json!({ "metadata": { "name": "c" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }));
    let made = client.namespaced::<PersistentVolumeClaim>("default").create(&claim).await.expect("a claim");
    assert_eq!(made.to_value()["spec"]["storageClassName"], "fast");
}

#[tokio::test]
async fn pod_security_is_enforced_warned_of_and_noted() {
    let server = server().await;
    let client = server.client();
    let labels = json!({ "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/audit": "restricted",
        "pod-security.kubernetes.io/audit-version": "v1.25" });
    let namespace: Namespace = read(json!({ "metadata": { "name": "safe", "labels": labels } }));
    client.all::<Namespace>().create(&namespace).await.expect("a namespace");
    let create = async |object: Box<dyn Object>, plural: (&str, &str)| {
        let kind = server.registry().by_path(plural.0, "v1", plural.1).expect("a kind").clone();
        let operation = Operation::Create(Payload::Typed(object), WriteParams::default());
        client.call(client.request(kind, Some("safe"), operation)).await
    };
    let host = pod("host", json!({ "hostNetwork": true }));
    let error = create(Box::new(host), ("", "pods")).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "pods \"host\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let annotations = &error.notes().expect("notes").annotations;
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let response = create(Box::new(pod("plain", json!({}))), ("", "pods")).await.expect("a pod");
    let warning = "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (";
    assert!(response.warnings[0].starts_with(warning), "{:?}", response.warnings);
    let noted = &response.annotations["pod-security.kubernetes.io/audit-violations"];
    assert!(noted.starts_with("would violate PodSecurity \"restricted:v1.25\": "), "{noted}");
    // What makes pods is warned of, and let through.
    let labels = json!({ "app": "web" });
    let deployment: k8s_openapi::api::apps::v1::Deployment =
        read(json!({ "metadata": { "name": "web" }, "spec": {
        "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels },
            "spec": { "hostPID": true, "containers": [{ "name": "main", "image": "web:1" }] } } } }));
    let response = create(Box::new(deployment), ("apps", "deployments")).await.expect("let through");
    assert!(response.warnings[0].contains("host namespaces (hostPID=true)"), "{:?}", response.warnings);
    let wrong: Namespace = read(json!({ "metadata": { "name": "odd",
        "labels": { "pod-security.kubernetes.io/enforce": "strict" } } }));
    let error = client.all::<Namespace>().create(&wrong).await.expect_err("no such level");
    assert_eq!(
        error.to_string(),
        "Namespace \"odd\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": \
         must be one of privileged, baseline, restricted"
    );
}

#[tokio::test]
async fn namespaces_of_every_cluster_stay() {
    let server = server().await;
    let namespaces = server.client().all::<Namespace>();
    for name in ["default", "kube-system", "kube-public"] {
        let error = namespaces.delete(name, &DeleteParams::default()).await.expect_err("it stays");
        let words = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert_eq!(error.to_string(), words);
    }
    let maps = server.client().namespaced::<ConfigMap>("nowhere");
    let map: ConfigMap = read(json!({ "metadata": { "name": "a" } }));
    assert_eq!(maps.create(&map).await.expect_err("nowhere").to_string(), "namespaces \"nowhere\" not found");
}

/// Marks what is made, and is against what is called `bad`.
struct Marks;

#[async_trait]
impl Admission for Marks {
    fn name(&self) -> &'static str {
        "Marks"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "ConfigMap")
    }

    async fn mutate(&self, request: &mut Request<'_>, notes: &mut Notes) -> Result<bool, ApiError> {
        if request.verb() != Verb::Create {
            return Ok(false);
        }
        notes.annotate("marks.example.dev/by", &*request.user().name.clone());
        let Some(object) = request.object_mut() else { return Ok(false) };
        let metadata = object.metadata_mut();
        metadata.labels.get_or_insert_default().insert("marked".to_owned(), "yes".to_owned());
        // Not its to say.
        metadata.uid = Some("made-up".to_owned());
        Ok(true)
    }

    async fn validate(&self, request: &Request<'_>, notes: &mut Notes) -> Result<(), ApiError> {
        assert_eq!(request.old().is_some(), request.verb() != Verb::Create);
        assert_eq!(request.object().is_some(), request.verb() != Verb::Delete);
        notes.warn(format!("{} {}", request.verb().as_str(), request.options()["kind"]));
        if request.name() == "bad" { Err(request.forbidden("it is bad")) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_plugin_changes_and_refuses() {
    let server = ApiServer::builder().admission(Marks).build(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let kind = server.registry().of::<ConfigMap>().expect("config maps").clone();
    let create = |name: &str| {
        let map: ConfigMap = read(json!({ "metadata": { "name": name } }));
        let operation = Operation::Create(Payload::Typed(Box::new(map)), WriteParams::default());
        client.call(client.request(kind.clone(), Some("default"), operation))
    };
    let response = create("good").await.expect("a map");
    assert_eq!(response.warnings, ["CREATE \"CreateOptions\""]);
    assert_eq!(response.annotations["marks.example.dev/by"], "system:apiserver");
    let maps = client.namespaced::<ConfigMap>("default");
    let made = maps.get("good").await.expect("a map");
    assert_eq!(made.metadata.labels.as_ref().expect("labels")["marked"], "yes");
    assert_ne!(made.metadata.uid.as_deref(), Some("made-up"));
    let error = create("bad").await.expect_err("refused");
    assert_eq!(error.to_string(), "configmaps \"bad\" is forbidden: it is bad");
    assert_eq!(error.notes().expect("notes").warnings, ["CREATE \"CreateOptions\""]);
    maps.delete("good", &DeleteParams::default()).await.expect("gone");
}
