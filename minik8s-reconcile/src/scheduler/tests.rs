use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Amounts, Decision, NodeInfo, decide};

fn node(name: &str, extra: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "10" } },
    });
    json_patch_merge(&mut node, &extra);
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn json_patch_merge(into: &mut Value, from: &Value) {
    *into = minik8s_api::patch::merge::apply(into, from);
}

fn pod(spec: Value) -> Pod {
    let mut whole = json!({ "containers": [{ "name": "a", "image": "x" }] });
    json_patch_merge(&mut whole, &spec);
    serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": whole })).expect("a pod")
}

fn asking(cpu: &str, memory: &str) -> Pod {
    let requests = json!({ "cpu": cpu, "memory": memory });
    pod(json!({ "containers": [{ "name": "a", "image": "x", "resources": { "requests": requests } }] }))
}

fn infos(nodes: &[Arc<Node>]) -> Vec<NodeInfo> {
    nodes.iter().map(|n| NodeInfo::new(n.clone(), [])).collect()
}

fn chosen(pod: &Pod, nodes: &[NodeInfo]) -> String {
    match decide(pod, nodes, 0) {
        Decision::Node(name) => name,
        Decision::Unschedulable { message } => format!("! {message}"),
    }
}

#[test]
fn the_message_counts_reasons_as_kubernetes_does() {
    let tainted = json!({ "spec": { "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }] } });
    let nodes = infos(&[
        node("a", json!({})),
        node("b", tainted),
        node("c", json!({ "spec": { "unschedulable": true } })),
        node("d", json!({})),
    ]);
    let text = chosen(&asking("3", "8Gi"), &nodes);
    assert_eq!(
        text,
        "! 0/4 nodes are available: 1 node(s) had untolerated taint(s) {gpu: yes}, 1 node(s) were unschedulable, \
         2 Insufficient cpu, 2 Insufficient memory."
    );
    assert_eq!(chosen(&asking("1", "1Gi"), &[]), "! no nodes available to schedule pods");
}

#[test]
fn selectors_affinity_taints_and_ports_are_respected() {
    let ssd = json!({ "metadata": { "labels": { "disk": "ssd", "cores": "8" } } });
    let tainted = json!({ "spec": { "taints": [{ "key": "gpu", "effect": "NoExecute" }] } });
    let nodes = infos(&[node("a", json!({})), node("b", ssd), node("c", tainted)]);
    assert_eq!(chosen(&pod(json!({ "nodeSelector": { "disk": "ssd" } })), &nodes), "b");
    let required = |expression: Value| {
        pod(json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [expression] }],
        } } } }))
    };
    assert_eq!(chosen(&required(json!({ "key": "cores", "operator": "Gt", "values": ["4"] })), &nodes), "b");
    let none = chosen(&required(json!({ "key": "cores", "operator": "Lt", "values": ["4"] })), &nodes);
    assert!(none.contains("2 node(s) didn't match Pod's node affinity/selector"), "{none}");
    let tolerant = pod(json!({
        "tolerations": [{ "key": "gpu", "operator": "Exists" }],
        "nodeSelector": { "kubernetes.io/hostname": "c" },
    }));
    assert_eq!(chosen(&tolerant, &nodes), "c");
    let port = pod(json!({ "containers": [{
        "name": "a", "image": "x", "ports": [{ "containerPort": 80, "hostPort": 80 }],
    }] }));
    let taken = [NodeInfo::new(node("a", json!({})), [&port])];
    assert!(chosen(&port, &taken).contains("didn't have free ports"));
}

#[test]
fn equals_take_turns_and_the_emptier_node_wins() {
    let nodes = infos(&[node("a", json!({})), node("b", json!({}))]);
    let turns: Vec<_> = (0..4).map(|turn| decide(&pod(json!({})), &nodes, turn)).collect();
    assert_eq!(turns[0], turns[2]);
    assert_ne!(turns[0], turns[1]);
    let busy = asking("1500m", "1Gi");
    let nodes = [NodeInfo::new(node("a", json!({})), [&busy]), NodeInfo::new(node("b", json!({})), [])];
    assert_eq!(chosen(&asking("100m", "100Mi"), &nodes), "b");
}

#[test]
fn sidecars_count_with_the_containers_and_init_containers_do_not() {
    let resources = |cpu: &str| json!({ "requests": { "cpu": cpu } });
    let pod = pod(json!({
        "initContainers": [
            { "name": "s", "image": "x", "restartPolicy": "Always", "resources": resources("200m") },
            { "name": "i", "image": "x", "resources": resources("500m") },
        ],
        "containers": [{ "name": "a", "image": "x", "resources": resources("400m") }],
    }));
    assert_eq!(Amounts::of_pod(&pod).get("cpu"), 700, "the init container beside the sidecar is the peak");
}

proptest! {
    /// Whatever comes in whatever order: no node is ever given more than it has.
    #[test]
    fn nodes_are_never_overcommitted(asks in prop::collection::vec((1_i64..1500, 1_i64..3000), 1..60)) {
        let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({}))];
        let mut placed: Vec<Vec<Pod>> = vec![Vec::new(); nodes.len()];
        for (turn, (cpu, memory)) in (0_u64..).zip(asks) {
            let pod = asking(&format!("{cpu}m"), &format!("{memory}Mi"));
            let infos: Vec<_> = nodes.iter().zip(&placed).map(|(n, p)| NodeInfo::new(n.clone(), p.iter())).collect();
            let fits = infos.iter().any(|info| {
                cpu <= 2000 - info.requested.get("cpu")
                    && memory * 1024 * 1024 <= info.allocatable.get("memory") - info.requested.get("memory")
                    && info.pods < 10
            });
            match decide(&pod, &infos, turn) {
                Decision::Node(name) => {
                    prop_assert!(fits);
                    let index = nodes.iter().position(|n| n.metadata.name.as_deref() == Some(&name)).expect("a node");
                    placed[index].push(pod);
                }
                Decision::Unschedulable { message } => prop_assert!(!fits, "{}", message),
            }
        }
    }
}
