//! Pods come and go, and nodes too: the scheduler, and the controllers that watch over nodes.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use minik8s_reconcile::controllers;
use minik8s_reconcile::request::DeleteParams;
use minik8s_reconcile::scheduler::Scheduler;
use minik8s_reconcile::sim::{Simulation, World, properties};
use serde_json::json;

use super::check;

fn pod(name: &str) -> Pod {
    let requests = json!({ "cpu": "3", "memory": "1Gi" });
    let containers = json!([{ "name": "a", "image": "x", "resources": { "requests": requests } }]);
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "containers": containers } }))
        .expect("a pod")
}

/// Users make pods, more than there is room for, and delete some.
async fn workload(world: World) {
    let pods = world.client().namespaced::<Pod>("default");
    for n in 0..10 {
        tokio::time::sleep(Duration::from_millis(world.rng().below(10_000))).await;
        pods.create(&pod(&format!("p{n}"))).await.expect("names are new");
        if n % 3 == 2 {
            let gone = format!("p{}", world.rng().below(n));
            // It may be gone already.
            let _ = pods.delete(&gone, &DeleteParams::default()).await;
        }
    }
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|s| s.node_name.is_some())
}

#[test]
fn pods_find_nodes() {
    let simulation = Simulation::new("pods_find_nodes")
        .nodes(3)
        .program("scheduler", |process| process.manager().scheduler(Scheduler::default()).run(process.stop))
        .program("controllers", |process| {
            let registry = process.client.registry();
            let settings = controllers::node_lifecycle::Settings::default();
            let clock = process.clock.clone();
            let lifecycle = controllers::node_lifecycle::controller(&registry, clock, settings);
            let manager = process
                .manager()
                .controller(lifecycle)
                .controller(controllers::node_lifecycle::readiness(&registry))
                .controller(controllers::taint_eviction::controller(&registry))
                .controller(controllers::disruption::controller(&registry));
            manager.run(process.stop)
        })
        .workload(workload)
        .always("pods are bound once", || properties::pods_are_bound_once)
        .always("no node is overcommitted", || properties::no_node_is_overcommitted)
        .always("nothing goes before its finalizers", || properties::nothing_goes_before_its_finalizers)
        .finally("no pod waits while there is room", |state| {
            let pods = state.all::<Pod>();
            let waiting = pods.iter().filter(|pod| !is_bound(pod)).count();
            let at_work = pods.iter().filter(|pod| is_bound(pod) && !is_over(pod)).count();
            // Two fit on each node.
            if waiting == 0 || at_work == 6 {
                Ok(())
            } else {
                Err(format!("{waiting} wait, {at_work} are at work"))
            }
        });
    check(&simulation, 12);
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}
