use serde_json::{Value, json};

use super::*;
use crate::ApiServer;
use crate::storage::memory::MemoryStorage;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn pod(name: &str, node: &str, extra: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
        "status": { "phase": "Running" },
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    let pod = minik8s_api::patch::merge::apply(&pod, &extra);
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn node(name: &str, ready: &str, taint: &str) -> Arc<Node> {
    let node = json!({
        "metadata": { "name": name }, "spec": { "taints": [{ "key": taint, "effect": "NoExecute" }] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    });
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn swept(pods: &[Arc<Pod>], nodes: &[Arc<Node>], missing: &mut Missing, now: i64) -> Vec<(String, Why)> {
    let settings = Settings { terminated: 2, ..Settings::default() };
    let out = sweep(pods, nodes, missing, &settings, at(now));
    out.into_iter().map(|(pod, why)| (pod.metadata.name.clone().expect("a name"), why)).collect()
}

#[test]
fn pods_of_nodes_that_are_gone_go_after_a_while() {
    let pods = [pod("a", "n", json!({})), pod("b", "m", json!({})), pod("c", "", json!({}))];
    let (n, m) = (node("n", "True", "x"), node("m", "True", "x"));
    let mut missing = Missing::default();
    assert_eq!(swept(&pods, &[n.clone(), m.clone()], &mut missing, 0), []);
    assert_eq!(swept(&pods, std::slice::from_ref(&m), &mut missing, 10), []);
    assert_eq!(swept(&pods, std::slice::from_ref(&m), &mut missing, 49), []);
    assert_eq!(swept(&pods, std::slice::from_ref(&m), &mut missing, 50), [("a".to_owned(), Why::NodeGone)]);
    // It is back, and leaves again: the time begins anew.
    assert_eq!(swept(&pods, &[n, m.clone()], &mut missing, 51), []);
    assert_eq!(swept(&pods, std::slice::from_ref(&m), &mut missing, 52), []);
    assert_eq!(swept(&pods, &[m], &mut missing, 91), []);
}

#[test]
fn what_is_being_deleted_waits_only_for_nodes_that_can_end_it() {
    let going = json!({ "metadata": { "deletionTimestamp": "2030-01-01T00:00:00Z" } });
    let pods = [pod("never", "", going.clone()), pod("waits", "n", going), pod("runs", "n", json!({}))];
    let swept = |ready, taint| {
        let found = swept(&pods, &[node("n", ready, taint)], &mut Missing::default(), 0);
        found.into_iter().map(|(name, why)| format!("{name} {why:?}")).collect::<Vec<_>>()
    };
    assert_eq!(swept("Unknown", "node.kubernetes.io/unreachable"), ["never NeverRan"]);
    assert_eq!(swept("Unknown", OUT_OF_SERVICE), ["never NeverRan", "waits OutOfService"]);
    assert_eq!(swept("True", OUT_OF_SERVICE), ["never NeverRan"], "it is in service after all");
}

#[test]
fn of_pods_that_have_ended_the_oldest_go() {
    let over = |name: &str, second: i64| {
        let extra = json!({ "metadata": { "creationTimestamp": at(second).to_string() }, "status": { "phase": "Failed" } });
        pod(name, "n", extra)
    };
    let pods = [over("third", 30), over("first", 10), over("second", 20), pod("runs", "n", json!({}))];
    let found = swept(&pods, &[node("n", "True", "x")], &mut Missing::default(), 0);
    assert_eq!(found, [("first".to_owned(), Why::TooMany)]);
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_said_to_have_failed_and_removed() {
    let clock = Clock::tokio(at(1_000_000));
    let server = ApiServer::builder().clock(clock.clone()).build(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let pods = client.namespaced::<Pod>("default");
    client.all::<Node>().create(&node("stays", "True", "x")).await.expect("a node");
    for (name, node) in [("orphan", "gone"), ("kept", "stays")] {
        let mut pod = (*pod(name, node, json!({}))).clone();
        pod.metadata.finalizers = (name == "orphan").then(|| vec!["example.dev/look".to_owned()]);
        pods.create(&pod).await.expect("a pod");
    }
    let stop = CancellationToken::new();
    let caches = Caches::new(client.clone(), stop.clone());
    let running = tokio::spawn(run(client.clone(), &caches, clock, Settings::default(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(pods.get("orphan").await.expect("a pod").metadata.deletion_timestamp.is_none(), "not yet");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let orphan = pods.get("orphan").await.expect("its finalizer keeps it");
    let status = orphan.status.clone().expect("a status");
    let target =
        status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget").expect("a condition");
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(target.reason.as_deref(), Some("DeletionByPodGC"));
    assert!(orphan.metadata.deletion_timestamp.is_some());
    assert!(pods.get("kept").await.expect("a pod").metadata.deletion_timestamp.is_none());
    stop.cancel();
    running.await.expect("it ends");
}
