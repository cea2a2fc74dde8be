use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use minik8s_api::{Registry, Resource};
use serde_json::{Value, json};

use super::{difference, exceeded, usage, used};
use crate::ApiServer;
use crate::request::DeleteParams;
use crate::server::admission::amounts::Amounts;
use crate::storage::memory::MemoryStorage;

fn read<K: Resource>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn quota(hard: Value) -> ResourceQuota {
    read(json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } }))
}

fn uses<K: Resource>(value: Value) -> Value {
    let registry = Registry::builtin();
    let object: K = read(value);
    serde_json::to_value(usage::of(registry.of::<K>().unwrap(), &object).to_list()).unwrap()
}

#[test]
fn everything_has_its_names() {
    let pod = json!({ "spec": { "containers": [
        { "name": "a", "resources": { "requests": { "cpu": "100m", "memory": "1Gi", "example.com/gpu": "1" },
                                      "limits": { "cpu": "1" } } },
        { "name": "b", "resources": { "requests": { "cpu": "200m" } } }] } });
    let expected = json!({ "count/pods": "1", "pods": "1", "cpu": "300m", "requests.cpu": "300m", "memory": "1Gi",
        "requests.memory": "1Gi", "requests.example.com/gpu": "1", "limits.cpu": "1" });
    assert_eq!(uses::<Pod>(pod), expected);
    let ended = json!({ "spec": { "containers": [] }, "status": { "phase": "Succeeded" } });
    assert_eq!(uses::<Pod>(ended), json!({ "count/pods": "1" }));
    let balanced = json!({ "spec": { "type": "LoadBalancer", "ports": [{ "port": 1 }, { "port": 2 }] } });
    let expected = json!({ "count/services": "1", "services": "1", "services.loadbalancers": "1",
        "services.nodeports": "2" });
    assert_eq!(uses::<Service>(balanced), expected);
    let claim =
        json!({ "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "5Gi" } } } });
    let expected = json!({ "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1",
        "requests.storage": "5Gi", "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "fast.storageclass.storage.k8s.io/requests.storage": "5Gi" });
    assert_eq!(uses::<PersistentVolumeClaim>(claim), expected);
    assert_eq!(uses::<ConfigMap>(json!({})), json!({ "count/configmaps": "1", "configmaps": "1" }));
}

#[test]
fn scopes_choose_pods() {
    let with = |spec: Value| -> Pod { read(json!({ "spec": spec })) };
    let plain = with(json!({ "containers": [] }));
    let ending = with(json!({ "containers": [], "activeDeadlineSeconds": 5 }));
    let asking =
        with(json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1" } } }] }));
    let high = with(json!({ "containers": [], "priorityClassName": "high" }));
    let elsewhere = with(json!({ "containers": [], "affinity": { "podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "x", "namespaces": ["y"] }] } } }));
    let all = [&plain, &ending, &asking, &high, &elsewhere];
    let scope = |name: &str| json!({ "scopes": [name] });
    let class = |operator: &str, values: Value| {
        json!({ "scopeSelector": { "matchExpressions": [
            { "scopeName": "PriorityClass", "operator": operator, "values": values }] } })
    };
    let cases = [
        (json!({}), [true; 5]),
        (scope("Terminating"), [false, true, false, false, false]),
        (scope("NotTerminating"), [true, false, true, true, true]),
        (scope("BestEffort"), [true, true, false, true, true]),
        (scope("NotBestEffort"), [false, false, true, false, false]),
        (scope("PriorityClass"), [false, false, false, true, false]),
        (scope("CrossNamespacePodAffinity"), [false, false, false, false, true]),
        (class("In", json!(["high", "low"])), [false, false, false, true, false]),
        (class("NotIn", json!(["high"])), [true, true, true, false, true]),
        (class("Exists", json!([])), [false, false, false, true, false]),
        (class("DoesNotExist", json!([])), [true, true, true, false, true]),
    ];
    for (spec, expected) in cases {
        let quota: ResourceQuota = read(json!({ "spec": spec }));
        assert_eq!(all.map(|pod| usage::is_in_scope(&quota, pod)), expected, "{spec}");
    }
    let scoped: ResourceQuota = read(json!({ "spec": scope("BestEffort") }));
    assert!(!usage::is_in_scope(&scoped, &ConfigMap::default()), "only pods are in scopes");
}

#[test]
fn what_is_too_much_is_said_in_kubernetes_words() {
    let quota = quota(json!({ "pods": "2", "requests.cpu": "1", "limits.cpu": "2" }));
    let list = |value: Value| Amounts::of(Some(&serde_json::from_value(value).unwrap()));
    let used = list(json!({ "pods": "2", "requests.cpu": "900m", "limits.cpu": "1" }));
    let asked = list(json!({ "pods": "1", "requests.cpu": "200m", "limits.cpu": "1" }));
    let words = "exceeded quota: q, requested: pods=1,requests.cpu=200m, used: pods=2,requests.cpu=900m, limited: \
                 pods=2,requests.cpu=1";
    assert_eq!(exceeded(&quota, &used, &asked).as_deref(), Some(words));
    assert_eq!(exceeded(&quota, &list(json!({})), &asked), None);
    let pod: Pod = read(json!({ "spec": { "containers": [{ "name": "b" }, { "name": "a" },
        { "name": "c", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } } }] } }));
    assert_eq!(
        usage::unsaid(&quota, &pod).unwrap(),
        "must specify limits.cpu for: a,b; requests.cpu for: a,b"
    );
}

#[test]
fn a_quota_that_does_not_speak_of_all_is_counted_anew() {
    let mut quota = quota(json!({ "pods": "2", "secrets": "1" }));
    assert!(used(&quota).is_none());
    quota.status = Some(read_status(json!({ "used": { "pods": "1", "other": "9" } })));
    assert!(used(&quota).is_none());
    quota.status = Some(read_status(json!({ "used": { "pods": "1", "secrets": "0", "other": "9" } })));
    assert_eq!(used(&quota).unwrap().0.len(), 2);
    let (one, none) =
        (usage::of(Registry::builtin().of::<Pod>().unwrap(), &Pod::default()), Amounts::default());
    assert_eq!(difference(&quota, &one, &none, true, false).get("pods").unwrap().value(), 1);
    assert_eq!(difference(&quota, &none, &one, false, true).get("pods").unwrap().value(), -1);
    assert_eq!(difference(&quota, &one, &one, true, true), none);
}

fn read_status(value: Value) -> k8s_openapi::api::core::v1::ResourceQuotaStatus {
    serde_json::from_value(value).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_once_never_exceed_a_quota() {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let quotas = client.namespaced::<ResourceQuota>("default");
    quotas.create(&quota(json!({ "configmaps": "10", "count/configmaps": "12" }))).await.expect("quota");
    let maps = client.namespaced::<ConfigMap>("default");
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let maps = maps.clone();
            tokio::spawn(async move {
                maps.create(&read::<ConfigMap>(json!({ "metadata": { "name": format!("c{i}") } }))).await
            })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(map) => made.push(map.metadata.name.clone().unwrap()),
            Err(error) => assert!(
                error.is_forbidden()
                    && error.to_string().contains("exceeded quota: q, requested: configmaps=1"),
                "{error}"
            ),
        }
    }
    assert_eq!(made.len(), 10);
    let count = async || {
        let quota = quotas.get("q").await.expect("the quota");
        quota.status.as_ref().unwrap().used.as_ref().unwrap()["configmaps"].0.clone()
    };
    assert_eq!(count().await, "10");
    // What is gone is free at once.
    maps.delete(&made[0], &DeleteParams::default()).await.expect("delete");
    assert_eq!(count().await, "9");
    maps.create(&read::<ConfigMap>(json!({ "metadata": { "name": "again" } }))).await.expect("there is room");
    assert_eq!(count().await, "10");
}
