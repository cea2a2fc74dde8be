use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn pod(tolerations: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "default", "uid": "u" },
        "spec": { "nodeName": "n", "containers": [], "tolerations": tolerations },
        "status": { "phase": "Running" },
    }))
    .expect("a pod")
}

fn node(taints: Value) -> Node {
    serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": { "taints": taints } }))
        .expect("a node")
}

fn taint(key: &str, since: i64) -> Value {
    json!({ "key": key, "effect": "NoExecute", "timeAdded": at(since).to_string() })
}

fn toleration(key: &str, seconds: Option<i64>) -> Value {
    json!({ "key": key, "operator": "Exists", "tolerationSeconds": seconds })
}

#[test]
fn pods_stay_for_as_long_as_they_tolerate_all_taints() {
    let two = json!([taint("a", 100), taint("b", 110)]);
    for (tolerations, taints, now, expected) in [
        (json!([]), json!([]), 0, Stay::ForEver),
        (json!([]), json!([{ "key": "a", "effect": "NoSchedule" }]), 0, Stay::ForEver),
        (json!([]), two.clone(), 100, Stay::NoLonger("a".to_owned())),
        (json!([toleration("a", None)]), two.clone(), 110, Stay::NoLonger("b".to_owned())),
        (json!([toleration("a", None), toleration("b", None)]), two.clone(), 999, Stay::ForEver),
        (
            json!([toleration("a", Some(60)), toleration("b", Some(20))]),
            two.clone(),
            110,
            Stay::Until(at(130)),
        ),
        (json!([toleration("a", Some(60)), toleration("b", None)]), two.clone(), 110, Stay::Until(at(160))),
        (
            json!([toleration("a", Some(60)), toleration("b", None)]),
            two.clone(),
            160,
            Stay::NoLonger("a".to_owned()),
        ),
        (json!([toleration("a", Some(-1)), toleration("b", None)]), two, 100, Stay::NoLonger("a".to_owned())),
        // Since when is not known yet: no time has passed.
        (
            json!([toleration("a", Some(9))]),
            json!([{ "key": "a", "effect": "NoExecute" }]),
            50,
            Stay::Until(at(59)),
        ),
    ] {
        assert_eq!(
            stay(&pod(tolerations.clone()), &node(taints), at(now)),
            expected,
            "{tolerations} at {now}"
        );
    }
}

#[test]
fn a_pod_is_told_why_and_deleted_once() {
    let planner = TaintEviction { kind: Registry::builtin().of::<Pod>().expect("built in").clone() };
    let tainted = Some(Arc::new(node(json!([taint("a", 0)]))));
    let words = |pod: &Pod, node| {
        let plan = planner.plan(pod, node, at(5));
        plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(words(&pod(json!([])), &tainted), ["update status of pod p", "delete pod p"]);
    assert_eq!(words(&pod(json!([])), &None), [""; 0], "whose node is not known");
    let mut over = pod(json!([]));
    over.status.as_mut().expect("a status").phase = Some("Succeeded".to_owned());
    assert_eq!(words(&over, &tainted), [""; 0], "what has ended need not be ended");
    let mut going = pod(json!([]));
    going.metadata.deletion_timestamp = Some(Time(at(1)));
    assert_eq!(words(&going, &tainted), [""; 0]);
    let plan = planner.plan(&pod(json!([toleration("a", Some(8))])), &tainted, at(5));
    assert_eq!((plan.changes.len(), plan.requeue), (0, Some(std::time::Duration::from_secs(3))));
}
