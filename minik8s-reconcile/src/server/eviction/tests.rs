use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Event};
use crate::controllers::disruption;
use crate::error::ApiError;
use crate::request::{Patch, WatchParams};
use crate::storage::memory::MemoryStorage;
use crate::{ApiServer, Manager};

async fn client() -> Client {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    server.client()
}

/// A pod that runs, and is ready or not.
async fn pod(client: &Client, name: &str, ready: &str) {
    let pods = client.namespaced::<Pod>("default");
    let pod = json!({
        "metadata": { "name": name, "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
    });
    pods.create(&serde_json::from_value(pod).expect("a pod")).await.expect("create");
    let status = json!({ "status": {
        "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }],
    } });
    pods.patch_status(name, Patch::merge(&status)).await.expect("status");
}

async fn budget(client: &Client, name: &str, allowed: i32) {
    let budgets = client.namespaced::<PodDisruptionBudget>("default");
    let budget = json!({
        "metadata": { "name": name },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    });
    budgets.create(&serde_json::from_value(budget).expect("a budget")).await.expect("create");
    let status = json!({ "status": {
        "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 2,
        "expectedPods": 3,
    } });
    budgets.patch_status(name, Patch::merge(&status)).await.expect("status");
}

async fn evict(client: &Client, name: &str, options: Value) -> Result<(), ApiError> {
    let body = json!({
        "apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": { "name": name }, "deleteOptions": options,
    });
    client.namespaced::<Pod>("default").create_subresource(name, "eviction", body.to_string().into()).await
}

async fn exists(client: &Client, name: &str) -> bool {
    client.namespaced::<Pod>("default").get_opt(name).await.expect("get").is_some()
}

#[tokio::test]
async fn a_budget_is_spent_and_then_refuses() {
    let client = client().await;
    for name in ["a", "b", "c"] {
        pod(&client, name, "True").await;
    }
    budget(&client, "web", 1).await;
    evict(&client, "a", json!({ "dryRun": ["All"] })).await.expect("allowed");
    assert!(exists(&client, "a").await, "a dry run evicts nobody");
    evict(&client, "a", json!({})).await.expect("allowed");
    assert!(!exists(&client, "a").await);
    let budgets = client.namespaced::<PodDisruptionBudget>("default");
    let status = budgets.get("web").await.expect("get").status.clone().expect("a status");
    assert_eq!(status.disruptions_allowed, Some(0));
    assert!(status.disrupted_pods.is_some_and(|d| d.contains_key("a")));
    assert_eq!(status.conditions.expect("conditions")[0].reason, "InsufficientPods");

    let error = evict(&client, "b", json!({})).await.expect_err("spent");
    assert_eq!((error.code(), error.reason(), error.retry_after_s()), (429, "TooManyRequests", None));
    assert_eq!(error.to_string(), "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = &error.to_status().details.expect("details").causes.expect("causes")[0];
    assert_eq!(cause.reason.as_deref(), Some("DisruptionBudget"));
    let words = "The disruption budget web needs 2 healthy pods and has 1 currently";
    assert_eq!(cause.message.as_deref(), Some(words));
    assert!(exists(&client, "b").await);

    // Its controller has not seen this change yet.
    let spec = json!({ "spec": { "minAvailable": 0 } });
    budgets.patch("web", Patch::merge(&spec)).await.expect("patch");
    let error = evict(&client, "b", json!({})).await.expect_err("not observed");
    assert_eq!((error.code(), error.retry_after_s()), (429, Some(10)));

    budget(&client, "second", 1).await;
    let error = evict(&client, "b", json!({})).await.expect_err("two budgets");
    assert_eq!(error.code(), 500);
    assert!(error.to_string().starts_with("This pod has more than one PodDisruptionBudget"), "{error}");
}

#[tokio::test]
async fn a_budget_is_reckoned_and_kept() {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let stop = CancellationToken::new();
    let manager = Manager::new(client.clone()).controller(disruption::controller(&server.registry()));
    let running = tokio::spawn(manager.run(stop.clone()));
    for name in ["a", "b"] {
        pod(&client, name, "True").await;
    }
    let budgets = client.namespaced::<PodDisruptionBudget>("default");
    let budget = json!({
        "metadata": { "name": "web" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    });
    budgets.create(&serde_json::from_value(budget).expect("a budget")).await.expect("create");
    let until = async |healthy: i32, allowed: i32| {
        let mut events = budgets.watch(&WatchParams::default()).await.expect("watch");
        let found = async {
            loop {
                if let Event::Applied(budget) = events.next().await.expect("no end").expect("no error")
                    && let Some(status) = &budget.status
                    && (status.current_healthy, status.disruptions_allowed) == (Some(healthy), Some(allowed))
                {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.expect("in time");
    };
    until(2, 1).await;
    evict(&client, "a", json!({})).await.expect("one may go");
    until(1, 0).await;
    assert_eq!(evict(&client, "b", json!({})).await.expect_err("the last one").code(), 429);
    pod(&client, "c", "True").await;
    until(2, 1).await;
    evict(&client, "b", json!({})).await.expect("one may go again");
    stop.cancel();
    running.await.expect("the manager ends");
}

#[tokio::test]
async fn pods_that_serve_nobody_go_for_free() {
    let client = client().await;
    budget(&client, "web", 0).await;
    let pods = client.namespaced::<Pod>("default");
    for (name, phase) in [("done", "Succeeded"), ("waiting", "Pending")] {
        pod(&client, name, "False").await;
        let status = json!({ "status": { "phase": phase } });
        pods.patch_status(name, Patch::merge(&status)).await.expect("status");
        evict(&client, name, json!({})).await.expect(phase);
        assert!(!exists(&client, name).await);
    }
    pod(&client, "ill", "False").await;
    assert_eq!(evict(&client, "ill", json!({})).await.expect_err("the budget is not met").code(), 429);
    let always = json!({ "spec": { "unhealthyPodEvictionPolicy": "AlwaysAllow" } });
    let budgets = client.namespaced::<PodDisruptionBudget>("default");
    budgets.patch("web", Patch::merge(&always)).await.expect("patch");
    let wrong = json!({ "preconditions": { "uid": "another" } });
    assert!(evict(&client, "ill", wrong).await.expect_err("another pod").is_conflict());
    evict(&client, "ill", json!({ "gracePeriodSeconds": 0 })).await.expect("always");
    assert!(!exists(&client, "ill").await);
    assert!(evict(&client, "none", json!({})).await.expect_err("no pod").is_not_found());
}
