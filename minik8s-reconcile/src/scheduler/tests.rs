//! What is documented of Kubernetes' scheduler, each by its page, and models.

mod model;
mod preemption;
mod queue;
mod running;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Amounts, Decision, Demand, Profile, Snapshot};

fn node(name: &str, extra: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "10" } },
    });
    merge(&mut node, &extra);
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn merge(into: &mut Value, from: &Value) {
    *into = minik8s_api::patch::merge::apply(into, from);
}

fn pod(spec: Value) -> Pod {
    labelled("p", json!({}), spec)
}

/// A pod of that name with labels and what `spec` says of it.
fn labelled(name: &str, labels: Value, spec: Value) -> Pod {
    let mut whole = json!({ "containers": [{ "name": "a", "image": "x" }] });
    merge(&mut whole, &spec);
    let meta = json!({ "name": name, "namespace": "default", "uid": name, "labels": labels });
    serde_json::from_value(json!({ "metadata": meta, "spec": whole })).expect("a pod")
}

fn asking(cpu: &str, memory: &str) -> Pod {
    let requests = json!({ "cpu": cpu, "memory": memory });
    pod(json!({ "containers": [{ "name": "a", "image": "x", "resources": { "requests": requests } }] }))
}

/// Nodes and the pods on them.
struct World {
    cluster: Snapshot,
    profile: Profile,
    placed: usize,
}

impl World {
    fn new(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let mut cluster = Snapshot::default();
        nodes.into_iter().for_each(|node| cluster.set_node(node));
        Self { cluster, profile: Profile::default(), placed: 0 }
    }

    /// `count` pods like `pod` are on `node` too.
    fn with(mut self, node: &str, count: usize, pod: &Pod) -> Self {
        for _ in 0..count {
            self.placed += 1;
            let mut pod = pod.clone();
            pod.metadata.name = Some(format!("placed-{}", self.placed));
            self.cluster.put(&Arc::new(Demand::of(Arc::new(pod))), node);
        }
        self
    }

    fn decide(&mut self, pod: &Pod, turn: u64) -> Decision {
        self.profile.decide(&Demand::of(Arc::new(pod.clone())), &mut self.cluster, turn)
    }

    /// The node's name, or why there is none.
    fn chosen(&mut self, pod: &Pod) -> String {
        match self.decide(pod, 0) {
            Decision::Node(name) => name,
            Decision::Nowhere(refusal) => format!("! {refusal}"),
        }
    }

    /// The nodes that will do.
    fn feasible(&mut self, pod: &Pod) -> Vec<String> {
        let demand = Demand::of(Arc::new(pod.clone()));
        self.cluster.prepare(&demand);
        let nodes = self.cluster.nodes();
        let nodes = nodes.filter(|n| self.profile.against(&demand, &self.cluster, n.index()).is_empty());
        nodes.map(|n| n.name().to_owned()).collect()
    }
}

#[test]
fn the_message_counts_reasons_as_kubernetes_does() {
    let tainted = json!({ "spec": { "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }] } });
    let mut world = World::new([
        node("a", json!({})),
        node("b", tainted),
        node("c", json!({ "spec": { "unschedulable": true } })),
        node("d", json!({})),
    ]);
    let text = world.chosen(&asking("3", "8Gi"));
    assert_eq!(
        text,
        "! 0/4 nodes are available: 1 node(s) had untolerated taint(s) {gpu: yes}, 1 node(s) were unschedulable, \
         2 Insufficient cpu, 2 Insufficient memory."
    );
    assert_eq!(World::new([]).chosen(&asking("1", "1Gi")), "! no nodes available to schedule pods");
}

#[test]
fn selectors_affinity_taints_and_ports_are_respected() {
    let ssd = json!({ "metadata": { "labels": { "disk": "ssd", "cores": "8" } } });
    let tainted = json!({ "spec": { "taints": [{ "key": "gpu", "effect": "NoExecute" }] } });
    let mut world = World::new([node("a", json!({})), node("b", ssd), node("c", tainted)]);
    assert_eq!(world.chosen(&pod(json!({ "nodeSelector": { "disk": "ssd" } }))), "b");
    let required = |expression: Value| {
        pod(json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [expression] }],
        } } } }))
    };
    assert_eq!(world.chosen(&required(json!({ "key": "cores", "operator": "Gt", "values": ["4"] }))), "b");
    let none = world.chosen(&required(json!({ "key": "cores", "operator": "Lt", "values": ["4"] })));
    assert!(none.contains("2 node(s) didn't match Pod's node affinity/selector"), "{none}");
    let tolerant = pod(json!({
        "tolerations": [{ "key": "gpu", "operator": "Exists" }],
        "nodeSelector": { "kubernetes.io/hostname": "c" },
    }));
    assert_eq!(world.chosen(&tolerant), "c");
    let port = pod(json!({ "containers": [{
        "name": "a", "image": "x", "ports": [{ "containerPort": 80, "hostPort": 80 }],
    }] }));
    let mut taken = World::new([node("a", json!({}))]).with("a", 1, &port);
    assert!(taken.chosen(&port).contains("didn't have free ports"));
}

#[test]
fn equals_take_turns_and_the_emptier_node_wins() {
    let mut world = World::new([node("a", json!({})), node("b", json!({}))]);
    let turns: Vec<_> = (0..4).map(|turn| world.decide(&pod(json!({})), turn)).collect();
    assert_eq!(turns[0], turns[2]);
    assert_ne!(turns[0], turns[1]);
    let busy = asking("1500m", "1Gi");
    let mut world = World::new([node("a", json!({})), node("b", json!({}))]).with("a", 1, &busy);
    assert_eq!(world.chosen(&asking("100m", "100Mi")), "b");
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

/// The pod that is asked about, spread by zone.
fn spread(labels: Value, max_skew: i64, extra: Value) -> Pod {
    let mut constraint = json!({
        "maxSkew": max_skew, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "foo": "bar" } },
    });
    merge(&mut constraint, &extra);
    labelled("mypod", labels, json!({ "topologySpreadConstraints": [constraint] }))
}

fn zoned(name: &str, zone: &str) -> Arc<Node> {
    node(name, json!({ "metadata": { "labels": { "zone": zone, "node": name } } }))
}

/// <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/#example-one-topologyspreadconstraint>
/// and the examples after it.
#[test]
fn the_documented_examples_of_topology_spread() {
    let foo = labelled("x", json!({ "foo": "bar" }), json!({}));
    let nodes = || {
        [zoned("node1", "zoneA"), zoned("node2", "zoneA"), zoned("node3", "zoneB"), zoned("node4", "zoneB")]
    };
    let three = || World::new(nodes()).with("node1", 1, &foo).with("node2", 1, &foo).with("node3", 1, &foo);
    let mine = json!({ "foo": "bar" });
    assert_eq!(three().feasible(&spread(mine.clone(), 1, json!({}))), ["node3", "node4"]);
    assert_eq!(three().feasible(&spread(mine.clone(), 2, json!({}))).len(), 4, "a skew of 2 is allowed");
    // Two constraints: the zone leaves node3 and node4, the node only node4.
    let both = |first: &str, second: &str| {
        let of = |key: &str, when: &str| {
            json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when,
                    "labelSelector": { "matchLabels": { "foo": "bar" } } })
        };
        let constraints = [of("zone", first), of("node", second)];
        labelled("mypod", mine.clone(), json!({ "topologySpreadConstraints": constraints }))
    };
    assert_eq!(three().feasible(&both("DoNotSchedule", "DoNotSchedule")), ["node4"]);
    // Conflicting ones: the zone wants zoneB, the node node2.
    let nodes = || [zoned("node1", "zoneA"), zoned("node2", "zoneA"), zoned("node3", "zoneB")];
    let mut conflict =
        World::new(nodes()).with("node1", 2, &foo).with("node2", 1, &foo).with("node3", 2, &foo);
    assert_eq!(
        conflict.chosen(&both("DoNotSchedule", "DoNotSchedule")),
        "! 0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints."
    );
    assert_eq!(conflict.chosen(&both("DoNotSchedule", "ScheduleAnyway")), "node3");
    assert_eq!(conflict.chosen(&both("ScheduleAnyway", "DoNotSchedule")), "node2");
}

/// <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/#example-topologyspreadconstraints-with-nodeaffinity>
/// and what the page says of its fields.
#[test]
fn which_nodes_count_for_the_spread_is_said_by_policies() {
    let foo = labelled("x", json!({ "foo": "bar" }), json!({}));
    let mine = json!({ "foo": "bar" });
    let nodes = [zoned("a1", "zoneA"), zoned("b1", "zoneB"), zoned("c1", "zoneC"), node("none", json!({}))];
    let mut world = World::new(nodes).with("a1", 1, &foo).with("b1", 1, &foo);
    let not_c = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "zone", "operator": "NotIn", "values": ["zoneC"] }] }],
    } } });
    let with = |mut pod: Pod, affinity: &Value| {
        pod.spec.as_mut().expect("a spec").affinity =
            serde_json::from_value(affinity.clone()).expect("affinity");
        pod
    };
    assert_eq!(
        world.feasible(&with(spread(mine.clone(), 1, json!({})), &not_c)),
        ["a1", "b1"],
        "zoneC is left out"
    );
    let ignore = spread(mine.clone(), 1, json!({ "nodeAffinityPolicy": "Ignore" }));
    assert!(world.feasible(&with(ignore, &not_c)).is_empty(), "zoneC has none, and is not allowed");
    assert_eq!(
        world.feasible(&spread(mine.clone(), 1, json!({}))),
        ["c1"],
        "a node without the label will not do"
    );
    let many = spread(mine.clone(), 1, json!({ "minDomains": 4 }));
    assert_eq!(world.feasible(&many), ["c1"], "with too few domains the fewest counts as none");
    let taint = json!({ "metadata": { "labels": { "zone": "zoneC" } },
                        "spec": { "taints": [{ "key": "x", "effect": "NoSchedule" }] } });
    world.cluster.set_node(node("c1", taint));
    assert!(world.feasible(&spread(mine.clone(), 1, json!({}))).is_empty(), "a tainted node counts");
    let honor = spread(mine, 1, json!({ "nodeTaintsPolicy": "Honor" }));
    assert_eq!(world.feasible(&honor), ["a1", "b1"], "unless taints are honoured");
}

fn near(kind: &str, term: Value) -> Value {
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } })
}

/// <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#an-example-of-a-pod-that-uses-pod-affinity>
/// and the practical examples after it.
#[test]
fn the_documented_examples_of_pod_affinity() {
    let app =
        |name: &str| json!({ "labelSelector": { "matchLabels": { "app": name } }, "topologyKey": "zone" });
    let apart =
        |name: &str, labels: Value, term: Value| labelled(name, labels, near("podAntiAffinity", term));
    let together = |name: &str, labels: Value, term: Value| labelled(name, labels, near("podAffinity", term));
    let nodes = || [zoned("a", "zoneA"), zoned("b", "zoneB"), zoned("c", "zoneC")];
    // Caches keep away from one another, web servers go where a cache is.
    let cache = apart("cache", json!({ "app": "store" }), app("store"));
    let web = together("web", json!({ "app": "web-store" }), app("store"));
    let mut world = World::new(nodes()).with("b", 1, &cache);
    assert_eq!(world.feasible(&cache), ["a", "c"]);
    assert_eq!(world.feasible(&web), ["b"]);
    // Who is there may forbid others to come, who have nothing to say themselves.
    let plain = labelled("plain", json!({ "app": "store" }), json!({}));
    assert_eq!(world.feasible(&plain), ["a", "c"]);
    assert!(
        world
            .chosen(&together("other", json!({}), app("nobody")))
            .contains("3 node(s) didn't match pod affinity rules")
    );
    // The first of a group that wants to be together may go anywhere, and the second goes where the first is.
    let group = together("group", json!({ "app": "group" }), app("group"));
    assert_eq!(world.feasible(&group).len(), 3);
    let mut world = world.with("c", 1, &group);
    assert_eq!(world.feasible(&group), ["c"]);
    // Preferences: rather near, rather far.
    let prefer = |kind: &str| {
        let weighted = json!([{ "weight": 100, "podAffinityTerm": app("store") }]);
        labelled(
            "p",
            json!({}),
            json!({ "affinity": { kind: { "preferredDuringSchedulingIgnoredDuringExecution": weighted } } }),
        )
    };
    assert_eq!(world.chosen(&prefer("podAffinity")), "b");
    assert_ne!(world.chosen(&prefer("podAntiAffinity")), "b");
}

/// <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#namespace-selector> and `matchLabelKeys`.
#[test]
fn terms_reach_as_far_as_their_namespaces_and_labels() {
    let mut other = labelled("x", json!({ "app": "db", "version": "1" }), json!({}));
    other.metadata.namespace = Some("team".to_owned());
    let mut world = World::new([zoned("a", "zoneA"), zoned("b", "zoneB")]).with("a", 1, &other);
    let term = |extra: Value| {
        let mut term = json!({ "labelSelector": { "matchLabels": { "app": "db" } }, "topologyKey": "zone" });
        merge(&mut term, &extra);
        labelled("p", json!({ "version": "1" }), near("podAffinity", term))
    };
    assert!(world.feasible(&term(json!({}))).is_empty(), "its own namespace only");
    assert_eq!(world.feasible(&term(json!({ "namespaces": ["team"] }))), ["a"]);
    assert_eq!(world.feasible(&term(json!({ "namespaceSelector": {} }))), ["a"]);
    let labelled = term(json!({ "namespaceSelector": { "matchLabels": { "team": "yes" } } }));
    assert!(world.feasible(&labelled).is_empty());
    world.cluster.set_namespace("team", Some(&[("team".to_owned(), "yes".to_owned())].into()));
    assert_eq!(world.feasible(&labelled), ["a"]);
    assert_eq!(
        world.feasible(&term(json!({ "namespaces": ["team"], "matchLabelKeys": ["version"] }))),
        ["a"]
    );
    assert!(
        world.feasible(&term(json!({ "namespaces": ["team"], "mismatchLabelKeys": ["version"] }))).is_empty()
    );
}

proptest! {
    /// Whatever comes in whatever order: no node is ever given more than it has.
    #[test]
    fn nodes_are_never_overcommitted(asks in prop::collection::vec((1_i64..1500, 1_i64..3000), 1..60)) {
        let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({}))];
        let mut world = World::new(nodes);
        for (turn, (cpu, memory)) in (0_u64..).zip(asks) {
            let pod = asking(&format!("{cpu}m"), &format!("{memory}Mi"));
            let fits = world.cluster.nodes().any(|info| {
                cpu <= 2000 - info.requested.get("cpu")
                    && memory * 1024 * 1024 <= info.allocatable.get("memory") - info.requested.get("memory")
                    && info.pods.len() < 10
            });
            match world.decide(&pod, turn) {
                Decision::Node(name) => {
                    prop_assert!(fits);
                    world = world.with(&name, 1, &pod);
                }
                Decision::Nowhere(refusal) => prop_assert!(!fits, "{}", refusal),
            }
        }
    }
}
