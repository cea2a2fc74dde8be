//! The stock scheduler with a filter and a score of one's own: `cargo run --example scheduler`.
//!
//! Nodes say in a label at which hour their maintenance begins. Pods that say for how many hours they run do not go where it
//! would catch them, and go where they leave the least time unused.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_reconcile::client::{Client, Event};
use minik8s_reconcile::request::{Patch, WatchParams};
use minik8s_reconcile::scheduler::{
    Against, Change, Check, Demand, Filter, NodeInfo, Profile, Rate, SCHEDULER_NAME, Scheduler, Score,
    Snapshot,
};
use minik8s_reconcile::storage::memory::MemoryStorage;
use minik8s_reconcile::{ApiServer, Manager};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Hours that a pod runs, and hours until a node is taken down.
struct Maintenance;

fn hours(demand: &Demand) -> Option<i64> {
    demand.labels().get("example.com/hours")?.parse().ok()
}

fn left(node: &NodeInfo) -> Option<i64> {
    node.labels().get("example.com/maintenance-in")?.parse().ok()
}

impl Filter for Maintenance {
    fn name(&self) -> &'static str {
        "Maintenance"
    }

    fn check<'a>(&'a self, demand: &'a Demand, _: &'a Snapshot) -> Option<Check<'a>> {
        let hours = hours(demand)?;
        Some(Box::new(move |node| {
            let caught = left(node).is_some_and(|left| left < hours);
            let reason = "node(s) went down for maintenance too soon".into();
            // No pod that went would help.
            caught.then_some(Against { by: "Maintenance", reason, never: true })
        }))
    }

    fn helped_by(&self, _: &Demand, change: &Change) -> bool {
        matches!(change, Change::Node { labels: true, .. })
    }
}

impl Score for Maintenance {
    fn name(&self) -> &'static str {
        "Maintenance"
    }

    fn weight(&self) -> i64 {
        10
    }

    fn rate<'a>(&'a self, demand: &'a Demand, _: &'a Snapshot, _: &[usize]) -> Option<Rate<'a>> {
        let hours = hours(demand)?;
        Some(Box::new(move |node| left(node).map_or(0, |left| 100 - (left - hours).clamp(0, 100))))
    }
}

async fn node(client: &Client, name: &str, maintenance_in: &str) -> Result<(), Box<dyn std::error::Error>> {
    let labels = json!({ "example.com/maintenance-in": maintenance_in });
    let nodes = client.all::<Node>();
    nodes.create(&serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } }))?).await?;
    // What the node's agent and the control plane would say: it is ready, and has this to give.
    nodes.patch(name, Patch::merge(&json!({ "spec": { "taints": null } }))).await?;
    let room = json!({ "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "10" } } });
    nodes.patch_status(name, Patch::merge(&room)).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await?;
    let client = server.client();
    for (name, maintenance_in) in [("soon", "2"), ("later", "12"), ("never", "1000")] {
        node(&client, name, maintenance_in).await?;
    }
    let stop = CancellationToken::new();
    let profile = Profile::default().filter(Maintenance).score(Maintenance);
    let scheduler = Scheduler::empty().profile(SCHEDULER_NAME, profile);
    let running = tokio::spawn(Manager::new(client.clone()).scheduler(scheduler).run(stop.clone()));

    for (hours, expected) in [("1", "soon"), ("8", "later"), ("100", "never")] {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": format!("runs-{hours}"), "labels": { "example.com/hours": hours } },
            "spec": { "containers": [{ "name": "main", "image": "app:1" }] },
        }))?;
        let pods = client.namespaced::<Pod>("default");
        pods.create(&pod).await?;
        let mut events = pods.watch(&WatchParams::default()).await?;
        let there = loop {
            let Some(Event::Applied(pod)) = events.next().await.transpose()? else { continue };
            let pod: Arc<Pod> = pod;
            let name = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            if pod
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("example.com/hours"))
                .is_some_and(|h| h == hours)
                && let Some(name) = name
            {
                break name;
            }
        };
        println!("a pod of {hours} hours goes to the node {there}");
        assert_eq!(there, expected);
    }
    stop.cancel();
    running.await?;
    Ok(())
}
