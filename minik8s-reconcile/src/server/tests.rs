use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ApiServer;
use crate::client::{Client, Event};
use crate::request::{DeleteParams, ListParams, Patch, PatchFormat, WatchParams};
use crate::scheduler::Scheduler;
use crate::storage::memory::MemoryStorage;
use crate::{Manager, controllers};

async fn server() -> ApiServer {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    server
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
    }))
    .expect("a pod")
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "a": "1" } }))
        .expect("a config map")
}

/// Runs the built-in controllers beside a test.
fn controllers(client: &Client) -> tokio_util::sync::DropGuard {
    let stop = CancellationToken::new();
    let manager = Manager::new(client.clone())
        .scheduler(Scheduler::default())
        .controller(controllers::namespace::controller())
        .task(|client, _, stop| controllers::garbage_collector::run(client, stop));
    tokio::spawn(manager.run(stop.clone()));
    stop.drop_guard()
}

/// Waits until the watch shows something.
async fn until<K: minik8s_api::Resource>(client: &Client, seen: impl Fn(&Event<K>) -> bool) {
    let mut events = client.all::<K>().watch(&WatchParams::default()).await.expect("watch");
    let found = async { while !seen(&events.next().await.expect("no end").expect("no error")) {} };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("it happens in time");
}

#[tokio::test]
async fn an_object_lives_and_dies() {
    let client = server().await.client();
    let maps = client.namespaced::<ConfigMap>("default");
    let made = maps.create(&config_map("a")).await.expect("create");
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let error = maps.create(&config_map("a")).await.expect_err("taken");
    assert!(error.is_already_exists(), "{error}");
    assert_eq!(error.to_string(), "configmaps \"a\" already exists");

    let mut changed = (*made).clone();
    changed.data.get_or_insert_default().insert("b".into(), "2".into());
    let updated = maps.update(&changed).await.expect("update");
    assert_ne!(updated.metadata.resource_version, made.metadata.resource_version);
    assert!(maps.update(&changed).await.expect_err("stale").is_conflict());
    let again = maps.update(&updated).await.expect("nothing to do");
    assert_eq!(again.metadata.resource_version, updated.metadata.resource_version, "a no-op writes nothing");

    maps.delete("a", &DeleteParams::default()).await.expect("delete");
    assert!(maps.get("a").await.expect_err("gone").is_not_found());
}

#[tokio::test]
async fn patches() {
    let client = server().await.client();
    let pods = client.namespaced::<Pod>("default");
    pods.create(&pod("a")).await.expect("create");
    let merged = pods.patch("a", Patch::merge(&json!({ "metadata": { "labels": { "x": "y" } } }))).await;
    let labels = merged.expect("merge").metadata.labels.clone().expect("labels");
    assert_eq!((labels["x"].as_str(), labels["app"].as_str()), ("y", "a"));
    let image = json!({ "spec": { "containers": [{ "name": "main", "image": "other:1" }] } });
    let patch = Patch { format: PatchFormat::StrategicMerge, body: image.to_string().into(), force: false };
    let patched = pods.patch("a", patch).await.expect("strategic merge");
    assert_eq!(patched.spec.as_ref().expect("spec").containers[0].image.as_deref(), Some("other:1"));
    let ops = json!([{ "op": "test", "path": "/metadata/labels/x", "value": "z" }]);
    let patch = Patch { format: PatchFormat::Json, body: ops.to_string().into(), force: false };
    assert_eq!(pods.patch("a", patch).await.expect_err("the test fails").code(), 422);
    let status = json!({ "status": { "phase": "Running" }, "spec": { "nodeName": "n9" } });
    let patched = pods.patch_status("a", Patch::merge(&status)).await.expect("status");
    assert_eq!(patched.status.as_ref().expect("status").phase.as_deref(), Some("Running"));
    assert_eq!(
        patched.spec.as_ref().expect("spec").node_name,
        None,
        "the status subresource changes no spec"
    );
}

#[tokio::test]
async fn bad_input_is_named() {
    let client = server().await.client();
    let pods = client.namespaced::<Pod>("default");
    let mut bad = pod("Bad_Name");
    bad.spec.as_mut().expect("spec").containers[0].image = None;
    let error = pods.create(&bad).await.expect_err("invalid");
    assert_eq!((error.code(), error.reason()), (422, "Invalid"));
    let causes = error.to_status().details.and_then(|d| d.causes).expect("causes");
    let fields: Vec<_> = causes.iter().filter_map(|c| c.field.as_deref()).collect();
    assert_eq!(fields, ["metadata.name", "spec.containers[0].image"], "{error}");
    let nowhere = client.namespaced::<Pod>("nowhere").create(&pod("a")).await.expect_err("another namespace");
    assert_eq!(nowhere.code(), 400, "{nowhere}");
    let error =
        client.namespaced::<ConfigMap>("nowhere").create(&config_map("a")).await.expect_err("no such");
    assert_eq!(error.to_string(), "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn lists_page_through_one_revision() {
    let client = server().await.client();
    let maps = client.namespaced::<ConfigMap>("default");
    for index in 0..10 {
        maps.create(&config_map(&format!("m{index}"))).await.expect("create");
    }
    let mut params = ListParams { limit: 4, ..ListParams::default() };
    let mut names = Vec::new();
    for number in 0.. {
        let page = maps.list(&params).await.expect("list");
        names.extend(page.items.iter().filter_map(|m| m.metadata.name.clone()));
        // Writes between the pages do not show.
        maps.delete(&format!("m{}", 9 - number), &DeleteParams::default()).await.expect("delete");
        maps.create(&config_map(&format!("m{number}x"))).await.expect("create");
        if page.continue_.is_empty() {
            break;
        }
        params.continue_ = page.continue_;
    }
    assert_eq!(names, (0..10).map(|i| format!("m{i}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watch_sees_what_its_selector_lets_through() {
    let client = server().await.client();
    let pods = client.namespaced::<Pod>("default");
    let params = WatchParams { label_selector: "app=a".into(), ..WatchParams::default() };
    let mut events = pods.watch(&params).await.expect("watch");
    pods.create(&pod("b")).await.expect("create");
    pods.create(&pod("a")).await.expect("create");
    pods.patch("a", Patch::merge(&json!({ "metadata": { "labels": { "app": "c" } } }))).await.expect("patch");
    let next = events.next().await.expect("an event").expect("no error");
    assert!(matches!(next, Event::Applied(p) if p.metadata.name.as_deref() == Some("a")));
    let next = events.next().await.expect("an event").expect("no error");
    assert!(matches!(next, Event::Deleted(_)), "it ceased to match: {next:?}");
}

#[tokio::test]
async fn pods_are_scheduled_when_there_is_room() {
    let client = server().await.client();
    let _controllers = controllers(&client);
    let pods = client.namespaced::<Pod>("default");
    pods.create(&pod("a")).await.expect("create");
    let unschedulable = |event: &Event<Pod>| {
        let Event::Applied(pod) = event else { return false };
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|c| c.reason.as_deref() == Some("Unschedulable"))
    };
    until(&client, unschedulable).await;
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "n1" },
        "status": { "allocatable": { "cpu": "1", "memory": "1Gi", "pods": "10" } },
    }))
    .expect("a node");
    client.all::<Node>().create(&node).await.expect("node");
    // New nodes are tainted until they are ready.
    let ready = Patch::merge(&json!({ "spec": { "taints": null } }));
    client.all::<Node>().patch("n1", ready).await.expect("patch");
    until::<Pod>(&client, |e| {
        matches!(e, Event::Applied(p) if p.spec.as_ref().is_some_and(|s| s.node_name.as_deref() == Some("n1")))
    })
    .await;
}

#[tokio::test]
async fn a_namespace_takes_its_contents_with_it() {
    let client = server().await.client();
    let _controllers = controllers(&client);
    let namespaces = client.all::<Namespace>();
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("a".into());
    namespaces.create(&namespace).await.expect("create");
    client.namespaced::<ConfigMap>("a").create(&config_map("m")).await.expect("create");
    namespaces.delete("a", &DeleteParams::default()).await.expect("delete");
    let error =
        client.namespaced::<ConfigMap>("a").create(&config_map("late")).await.expect_err("terminating");
    assert!(error.is_not_found() || error.code() == 403, "{error}");
    if namespaces.get_opt("a").await.expect("get").is_some() {
        until::<Namespace>(
            &client,
            |e| matches!(e, Event::Deleted(n) if n.metadata.name.as_deref() == Some("a")),
        )
        .await;
    }
    let left = client.all::<ConfigMap>().list(&ListParams::default()).await.expect("list");
    assert!(left.items.is_empty(), "{:?}", left.items);
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    let client = server().await.client();
    let _controllers = controllers(&client);
    let maps = client.namespaced::<ConfigMap>("default");
    let owner = maps.create(&config_map("owner")).await.expect("create");
    let mut child = config_map("child");
    child.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
        }))
        .expect("a reference"),
    ]);
    maps.create(&child).await.expect("create");
    let mut events = maps.watch(&WatchParams::default()).await.expect("watch");
    maps.delete("owner", &DeleteParams::default()).await.expect("delete");
    let gone = async {
        loop {
            match events.next().await.expect("no end").expect("no error") {
                Event::Deleted(m) if m.metadata.name.as_deref() == Some("child") => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("collected");
}
