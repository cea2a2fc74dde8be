//! The scheduler at work, on a server in this process.

use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Manager;
use crate::client::{Client, Event};
use crate::request::{DeleteParams, ListParams, Patch, WatchParams};
use crate::scheduler::{SCHEDULER_NAME, Scheduler};
use crate::server::ApiServer;
use crate::storage::memory::MemoryStorage;

async fn client() -> Client {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    server.client()
}

/// Runs a scheduler beside a test.
fn run(client: &Client, scheduler: Scheduler) -> tokio_util::sync::DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn(Manager::new(client.clone()).scheduler(scheduler).run(stop.clone()));
    stop.drop_guard()
}

/// Waits until a pod is as wanted.
async fn until(client: &Client, name: &str, seen: impl Fn(&Pod) -> bool) -> Arc<Pod> {
    let params = WatchParams { field_selector: format!("metadata.name={name}"), ..WatchParams::default() };
    let mut events = client.namespaced::<Pod>("default").watch(&params).await.expect("watch");
    let found = async {
        loop {
            match events.next().await.expect("no end").expect("no error") {
                Event::Applied(pod) if seen(&pod) => return pod,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("it happens in time")
}

async fn gone(client: &Client, name: &str) {
    let params = WatchParams { field_selector: format!("metadata.name={name}"), ..WatchParams::default() };
    let mut events = client.namespaced::<Pod>("default").watch(&params).await.expect("watch");
    let found = async {
        while client.namespaced::<Pod>("default").get_opt(name).await.expect("an answer").is_some() {
            events.next().await.expect("no end").expect("no error");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("it happens in time");
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn bound(pod: &Pod) -> bool {
    node_of(pod).is_some()
}

fn waits(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?.message.as_deref()
}

fn named(name: &str, spec: Value) -> Pod {
    let mut pod = labelled(name, json!({ "app": name }), spec);
    pod.metadata.uid = None;
    pod
}

fn cpu(name: &str, cpu: &str) -> Pod {
    named(
        name,
        json!({ "containers": [{ "name": "a", "image": "x", "resources": { "requests": { "cpu": cpu } } }] }),
    )
}

/// Creates a node that is ready: the taint that new ones get is taken away.
async fn create_node(client: &Client, node: &Node) {
    let nodes = client.all::<Node>();
    nodes.create(node).await.expect("a node");
    let ready = Patch::merge(&json!({ "spec": { "taints": null } }));
    nodes.patch(node.metadata.name.as_deref().expect("named"), ready).await.expect("patch");
    let status = Patch::merge(&json!({ "status": node.status }));
    nodes.patch_status(node.metadata.name.as_deref().expect("named"), status).await.expect("status");
}

#[tokio::test]
async fn a_pod_waits_until_something_helps_it() {
    let client = client().await;
    let pods = client.namespaced::<Pod>("default");
    let _running = run(&client, Scheduler::default());
    pods.create(&cpu("a", "1500m")).await.expect("create");
    let waiting = until(&client, "a", |pod| waits(pod).is_some()).await;
    assert_eq!(waits(&waiting), Some("no nodes available to schedule pods"));
    create_node(&client, &node("n1", json!({}))).await;
    until(&client, "a", bound).await;
    pods.create(&cpu("b", "1500m")).await.expect("create");
    let waiting = until(&client, "b", |pod| waits(pod).is_some()).await;
    assert_eq!(
        waits(&waiting),
        Some(
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
             victims found for incoming pod."
        )
    );
    let version = waiting.metadata.resource_version.clone();
    pods.delete("a", &DeleteParams::now()).await.expect("delete");
    let there = until(&client, "b", bound).await;
    assert_ne!(there.metadata.resource_version, version);
}

#[tokio::test]
async fn gates_hold_a_pod_back_and_other_schedulers_pods_are_theirs() {
    let client = client().await;
    let pods = client.namespaced::<Pod>("default");
    create_node(&client, &node("n1", json!({}))).await;
    let _running = run(&client, Scheduler::default());
    pods.create(&named("gated", json!({ "schedulingGates": [{ "name": "example.com/wait" }] })))
        .await
        .expect("create");
    pods.create(&named("other", json!({ "schedulerName": "mine" }))).await.expect("create");
    let gated = until(&client, "gated", |pod| waits(pod).is_some()).await;
    assert!(waits(&gated).is_some_and(|words| words.contains("scheduling gates")), "{gated:?}");
    pods.patch("gated", Patch::merge(&json!({ "spec": { "schedulingGates": null } }))).await.expect("patch");
    until(&client, "gated", bound).await;
    let other = pods.get("other").await.expect("it is there");
    assert!(!bound(&other));
    let _mine = run(&client, Scheduler::empty().profile("mine", Profile::default()));
    until(&client, "other", bound).await;
}

#[tokio::test]
async fn a_more_important_pod_has_others_go() {
    let client = client().await;
    let pods = client.namespaced::<Pod>("default");
    create_node(&client, &node("n1", json!({}))).await;
    let class = |name: &str, value: i32| {
        serde_json::from_value(json!({ "metadata": { "name": name }, "value": value })).expect("a class")
    };
    let classes = client.all::<k8s_openapi::api::scheduling::v1::PriorityClass>();
    classes.create(&class("high", 1000)).await.expect("a class");
    let _running = run(&client, Scheduler::default());
    for name in ["a", "b"] {
        let mut pod = cpu(name, "1");
        pod.spec.as_mut().expect("a spec").termination_grace_period_seconds = Some(0);
        pods.create(&pod).await.expect("create");
        until(&client, name, bound).await;
    }
    let mut high = cpu("high", "1");
    let spec = high.spec.as_mut().expect("a spec");
    spec.priority_class_name = Some("high".to_owned());
    spec.priority = Some(1000);
    pods.create(&high).await.expect("create");
    let there = until(&client, "high", bound).await;
    assert_eq!(node_of(&there), Some("n1"));
    let left = pods.list(&ListParams::default()).await.expect("a list").items.len();
    assert_eq!(left, 2, "one had to go, not both");
}

#[tokio::test]
async fn many_pods_are_spread_and_no_node_is_overcommitted() {
    let client = client().await;
    let pods = client.namespaced::<Pod>("default");
    for n in 0..5 {
        create_node(&client, &node(&format!("n{n}"), json!({}))).await;
    }
    for n in 0..60 {
        pods.create(&cpu(&format!("p{n:02}"), "200m")).await.expect("create");
    }
    let _running = run(&client, Scheduler::default());
    // Room for ten on each of five nodes.
    let mut events = pods.watch(&WatchParams::default()).await.expect("watch");
    let mut decided = std::collections::BTreeMap::new();
    let all = async {
        while decided.len() < 60 {
            if let Event::Applied(pod) = events.next().await.expect("no end").expect("no error") {
                let name = pod.metadata.name.clone().expect("named");
                if bound(&pod) || waits(&pod).is_some() {
                    decided.insert(name, node_of(&pod).map(str::to_owned));
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("all are decided about");
    let mut on: std::collections::BTreeMap<String, usize> = Default::default();
    for node in decided.values().flatten() {
        *on.entry(node.clone()).or_default() += 1;
    }
    assert_eq!(on.values().copied().collect::<Vec<_>>(), [10; 5], "{on:?}");
}

/// A program's own filter, in a profile of its own.
#[derive(Debug)]
struct OnlyEven;

impl crate::scheduler::Filter for OnlyEven {
    fn name(&self) -> &'static str {
        "OnlyEven"
    }

    fn check<'a>(&'a self, _: &'a Demand, _: &'a Snapshot) -> Option<crate::scheduler::Check<'a>> {
        Some(Box::new(|node| {
            let odd = !node.name().ends_with(['0', '2', '4', '6', '8']);
            let reason = "node(s) were odd".into();
            odd.then_some(crate::scheduler::Against { by: "OnlyEven", reason, never: true })
        }))
    }
}

#[tokio::test]
async fn a_filter_of_ones_own_is_asked_too() {
    let client = client().await;
    let pods = client.namespaced::<Pod>("default");
    create_node(&client, &node("n1", json!({}))).await;
    let profile = Profile::default().filter(OnlyEven);
    let _running = run(&client, Scheduler::empty().profile(SCHEDULER_NAME, profile));
    pods.create(&cpu("a", "1")).await.expect("create");
    let waiting = until(&client, "a", |pod| waits(pod).is_some()).await;
    assert!(waits(&waiting).is_some_and(|words| words.contains("1 node(s) were odd")), "{waiting:?}");
    create_node(&client, &node("n2", json!({}))).await;
    let there = until(&client, "a", bound).await;
    assert_eq!(node_of(&there), Some("n2"));
    pods.delete("a", &DeleteParams::now()).await.expect("delete");
    gone(&client, "a").await;
}
