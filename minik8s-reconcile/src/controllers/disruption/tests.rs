use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use minik8s_api::Registry;
use serde_json::{Value, json};

use super::{Change, DELETION_TIMEOUT, Disruption, Planner, World};

fn pod(name: &str, ready: &str) -> Arc<Pod> {
    let pod = json!({
        "metadata": { "name": name, "namespace": "default" },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    });
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    let metadata = json!({ "name": "web", "namespace": "default", "generation": 3 });
    let budget = json!({ "metadata": metadata, "spec": spec, "status": status });
    serde_json::from_value(budget).expect("a budget")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn planner() -> Disruption {
    let kind = Registry::builtin().of::<PodDisruptionBudget>().expect("built in").clone();
    Disruption { kind }
}

/// The status that the plan writes, if any.
fn planned(budget: &PodDisruptionBudget, world: &World, now: Timestamp) -> Option<PodDisruptionBudgetStatus> {
    let mut plan = planner().plan(budget, world, now);
    match plan.changes.pop()? {
        Change::UpdateStatus(object, _) => {
            let written = object.downcast::<PodDisruptionBudget>().expect("a budget");
            let again = planner().plan(&written, world, now);
            assert!(again.changes.is_empty(), "what has been written is not written again");
            written.status
        }
        other => panic!("{other}"),
    }
}

/// (expected, desired, healthy, allowed)
fn numbers(spec: Value, world: &World) -> (i32, i32, i32, i32) {
    let status = planned(&budget(spec, json!({})), world, at(0)).expect("a status");
    assert_eq!(status.observed_generation, Some(3));
    let of = |n: Option<i32>| n.expect("a number");
    (
        of(status.expected_pods),
        of(status.desired_healthy),
        of(status.current_healthy),
        of(status.disruptions_allowed),
    )
}

fn world(ready: usize, unready: usize, scale: i32) -> World {
    let pods = (0..ready).map(|i| pod(&format!("r{i}"), "True"));
    let ill = (0..unready).map(|i| pod(&format!("u{i}"), "False"));
    World { pods: pods.chain(ill).collect(), scale, ..World::default() }
}

#[test]
fn budgets_in_numbers_and_parts() {
    let world = world(4, 1, 5);
    assert_eq!(numbers(json!({ "minAvailable": 3 }), &world), (5, 3, 4, 1));
    assert_eq!(numbers(json!({ "minAvailable": 9 }), &world), (5, 9, 4, 0));
    assert_eq!(numbers(json!({ "minAvailable": "50%" }), &world), (5, 3, 4, 1), "parts are rounded up");
    assert_eq!(numbers(json!({ "maxUnavailable": 2 }), &world), (5, 3, 4, 1));
    assert_eq!(numbers(json!({ "maxUnavailable": "30%" }), &world), (5, 3, 4, 1));
    assert_eq!(numbers(json!({ "maxUnavailable": 9 }), &world), (5, 0, 4, 4));
    let none = World::default();
    assert_eq!(numbers(json!({ "minAvailable": 0 }), &none), (0, 0, 0, 0));
}

#[test]
fn without_the_facts_nobody_may_go() {
    let unknown = World { unknown: Some("r0".to_owned()), ..world(2, 0, 0) };
    let spec = json!({ "maxUnavailable": 1 });
    let old = json!({ "disruptionsAllowed": 2, "expectedPods": 4 });
    let status = planned(&budget(spec, old), &unknown, at(0)).expect("a status");
    assert_eq!((status.disruptions_allowed, status.expected_pods), (Some(0), Some(4)));
    assert_eq!(status.conditions.expect("conditions")[0].reason, "SyncFailed");
    let spec = json!({ "minAvailable": 1 });
    let status = planned(&budget(spec, json!({})), &unknown, at(0)).expect("a status");
    assert_eq!(status.disruptions_allowed, Some(1), "a plain number needs no controller");
}

#[test]
fn the_evicted_do_not_count_for_a_while() {
    let evicted =
        json!({ "disruptedPods": { "r0": "1970-01-01T00:01:40Z", "gone": "1970-01-01T00:01:40Z" } });
    let budget = budget(json!({ "minAvailable": 1 }), evicted);
    let world = world(3, 0, 3);
    let plan = planner().plan(&budget, &world, at(110));
    assert_eq!(plan.requeue, Some(DELETION_TIMEOUT - std::time::Duration::from_secs(10)));
    let status = planned(&budget, &world, at(110)).expect("a status");
    assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(2), Some(1)));
    let disrupted = status.disrupted_pods.expect("one is left");
    assert_eq!(disrupted.keys().collect::<Vec<_>>(), ["r0"]);
    let later = planned(&budget, &world, at(100 + 120)).expect("a status");
    assert_eq!((later.current_healthy, later.disrupted_pods), (Some(3), None));
}

#[test]
fn a_condition_keeps_its_time_until_it_turns() {
    let spec = json!({ "minAvailable": 1 });
    let first = planned(&budget(spec.clone(), json!({})), &world(2, 0, 2), at(10)).expect("a status");
    let carried = serde_json::to_value(&first).expect("JSON");
    let second = planned(&budget(spec.clone(), carried.clone()), &world(3, 0, 3), at(20)).expect("a status");
    assert_eq!(second.conditions.expect("one")[0].last_transition_time.0, at(10));
    let third = planned(&budget(spec, carried), &world(1, 0, 1), at(30)).expect("a status");
    let condition = &third.conditions.expect("one")[0];
    assert_eq!((condition.status.as_str(), condition.last_transition_time.0), ("False", at(30)));
}
