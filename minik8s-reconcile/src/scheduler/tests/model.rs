//! The scheduler beside a naive one, which looks at everything anew each time, on random clusters.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodAffinityTerm;
use minik8s_api::Selector;

use super::*;
use crate::rng::Rng;

/// A cluster, told plainly.
#[derive(Default)]
struct Plain {
    nodes: BTreeMap<String, Arc<Node>>,
    pods: BTreeMap<String, (Pod, String)>,
}

fn labels<T: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>>(
    object: &T,
) -> BTreeMap<String, String> {
    object.metadata().labels.clone().unwrap_or_default()
}

/// Whether `term` of `of` means `pod`.
fn means(term: &PodAffinityTerm, of: &Pod, pod: &Pod) -> bool {
    let selector = term.label_selector.as_ref().map(|s| Selector::from_label_selector(s).expect("valid"));
    let own = term.namespaces.is_none() && of.metadata.namespace == pod.metadata.namespace;
    let named =
        term.namespaces.as_ref().is_some_and(|n| n.contains(pod.metadata.namespace.as_ref().expect("one")));
    (own || named) && selector.is_some_and(|s| s.matches(&labels(pod)))
}

fn affinity(pod: &Pod) -> (Vec<PodAffinityTerm>, Vec<PodAffinityTerm>) {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.clone()).unwrap_or_default();
    let near = affinity.pod_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    let far = affinity.pod_anti_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    (near.unwrap_or_default(), far.unwrap_or_default())
}

impl Plain {
    fn value(&self, node: &str, key: &str) -> Option<String> {
        labels(&**self.nodes.get(node)?).get(key).cloned()
    }

    /// Whether one of the pods that `who` takes is where `node` is, by `key`.
    fn near(&self, node: &str, key: &str, who: impl Fn(&Pod) -> bool) -> bool {
        let here = self.value(node, key);
        here.is_some() && self.pods.values().any(|(pod, there)| who(pod) && self.value(there, key) == here)
    }

    /// Whether the node will do.
    fn accepts(&self, name: &str, pod: &Pod) -> bool {
        let node = &self.nodes[name];
        let spec = pod.spec.as_ref().expect("a spec");
        let tolerated = |key: &str| spec.tolerations.iter().flatten().any(|t| t.key.as_deref() == Some(key));
        let taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        let cordoned = node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true));
        let here: Vec<&Pod> =
            self.pods.values().filter(|(_, there)| there == name).map(|(pod, _)| pod).collect();
        let sum =
            |of: &str| here.iter().copied().chain([pod]).map(|p| Amounts::of_pod(p).get(of)).sum::<i64>();
        let given =
            Amounts::of_list(node.status.as_ref().and_then(|s| s.allocatable.as_ref()).expect("some"));
        let ports = |pod: &Pod| -> Vec<i32> {
            let containers = pod.spec.iter().flat_map(|s| &s.containers);
            containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| p.host_port).collect()
        };
        let (together, apart) = affinity(pod);
        let all = |other: &Pod| together.iter().all(|term| means(term, pod, other));
        let nobody =
            !self.nodes.keys().any(|n| together.iter().any(|term| self.near(n, &term.topology_key, all)));
        let first = nobody && all(pod);
        !cordoned
            && taints.iter().all(|t| tolerated(&t.key))
            && spec.node_selector.iter().flatten().all(|(k, v)| self.value(name, k).as_ref() == Some(v))
            && !here.iter().any(|other| ports(other).iter().any(|p| ports(pod).contains(p)))
            && ["cpu", "memory"]
                .iter()
                .all(|of| Amounts::of_pod(pod).get(of) == 0 || sum(of) <= given.get(of))
            && (here.len() as i64) < given.get("pods")
            && together.iter().all(|term| {
                self.value(name, &term.topology_key).is_some()
                    && (first || self.near(name, &term.topology_key, all))
            })
            && !apart.iter().any(|term| self.near(name, &term.topology_key, |other| means(term, pod, other)))
            && !self.pods.values().any(|(other, there)| {
                affinity(other).1.iter().any(|term| {
                    let there = self.value(there, &term.topology_key);
                    means(term, other, pod)
                        && there.is_some()
                        && there == self.value(name, &term.topology_key)
                })
            })
            && self.spreads(name, pod)
    }

    fn spreads(&self, name: &str, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref().expect("a spec");
        let constraints: Vec<_> = spec.topology_spread_constraints.iter().flatten().collect();
        let constraints: Vec<_> =
            constraints.into_iter().filter(|c| c.when_unsatisfiable == "DoNotSchedule").collect();
        let keys: Vec<&str> = constraints.iter().map(|c| c.topology_key.as_str()).collect();
        constraints.iter().all(|constraint| {
            let key = &constraint.topology_key;
            let selector = Selector::from_label_selector(constraint.label_selector.as_ref().expect("one"));
            let selector = selector.expect("valid");
            let selected = |other: &Pod| {
                other.metadata.namespace == pod.metadata.namespace && selector.matches(&labels(other))
            };
            let mut counts: BTreeMap<String, i64> = BTreeMap::new();
            for node in self.nodes.keys() {
                let fits =
                    spec.node_selector.iter().flatten().all(|(k, v)| self.value(node, k).as_ref() == Some(v));
                if fits && keys.iter().all(|key| self.value(node, key).is_some()) {
                    let here =
                        self.pods.values().filter(|(other, there)| there == node && selected(other)).count();
                    *counts.entry(self.value(node, key).expect("seen")).or_default() += here as i64;
                }
            }
            let fewest = counts.values().copied().min().unwrap_or(0);
            self.value(name, key).is_some_and(|here| {
                let there = counts.get(&here).copied().unwrap_or(0);
                there + i64::from(selected(pod)) - fewest <= i64::from(constraint.max_skew)
            })
        })
    }
}

fn pick<'a, T>(rng: &Rng, of: &'a [T]) -> &'a T {
    &of[rng.below(of.len() as u64) as usize]
}

fn some_node(rng: &Rng, name: &str) -> Arc<Node> {
    let mut labels = json!({ "kubernetes.io/hostname": name });
    if rng.below(4) > 0 {
        labels["zone"] = json!(pick(rng, &["a", "b", "c"]));
    }
    if rng.below(3) == 0 {
        labels["disk"] = json!("ssd");
    }
    let taints =
        if rng.below(5) == 0 { json!([{ "key": "gpu", "effect": "NoSchedule" }]) } else { json!([]) };
    let cpu = 1 + rng.below(4);
    let size = 500_000_000 * rng.below(3);
    let images = if size > 0 { json!([{ "names": ["x"], "sizeBytes": size }]) } else { json!([]) };
    node(
        name,
        json!({
            "metadata": { "labels": labels },
            "spec": { "taints": taints, "unschedulable": rng.below(10) == 0 },
            "status": {
                "allocatable": { "cpu": cpu.to_string(), "memory": "4Gi", "pods": "5" },
                "images": images,
            },
        }),
    )
}

fn some_pod(rng: &Rng, name: &str) -> Pod {
    let mut container = json!({ "name": "a", "image": "x", "resources": { "requests": {
        "cpu": format!("{}m", 100 * rng.below(12)), "memory": format!("{}Mi", 256 * rng.below(6)),
    } } });
    if rng.below(6) == 0 {
        container["ports"] = json!([{ "containerPort": 80, "hostPort": 80 + rng.below(2) }]);
    }
    let mut spec = json!({ "containers": [container] });
    if rng.below(5) == 0 {
        spec["nodeSelector"] = json!({ "disk": "ssd" });
    }
    if rng.below(4) == 0 {
        spec["tolerations"] = json!([{ "key": "gpu", "operator": "Exists" }]);
    }
    let term = |rng: &Rng| {
        let mut term = json!({
            "labelSelector": { "matchLabels": { "app": pick(rng, &["x", "y"]) } },
            "topologyKey": pick(rng, &["zone", "kubernetes.io/hostname"]),
        });
        if rng.below(4) == 0 {
            term["namespaces"] = json!(["other"]);
        }
        json!([term])
    };
    if rng.below(4) == 0 {
        spec["affinity"] =
            json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term(rng) } });
    }
    if rng.below(4) == 0 {
        let far =
            json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term(rng) } });
        merge(&mut spec, &json!({ "affinity": far }));
    }
    if rng.below(3) == 0 {
        let mut constraints = Vec::new();
        for key in ["zone", "kubernetes.io/hostname"] {
            if rng.below(3) > 0 {
                constraints.push(json!({
                    "maxSkew": 1 + rng.below(2), "topologyKey": key,
                    "whenUnsatisfiable": pick(rng, &["DoNotSchedule", "ScheduleAnyway"]),
                    "labelSelector": { "matchLabels": { "app": pick(rng, &["x", "y"]) } },
                }));
            }
        }
        spec["topologySpreadConstraints"] = json!(constraints);
    }
    let mut pod = labelled(name, json!({ "app": pick(rng, &["x", "y", "z"]) }), spec);
    pod.metadata.namespace = Some((*pick(rng, &["default", "default", "other"])).to_owned());
    pod
}

/// A cluster that changes, and after each change a pod that both are asked about.
fn case(seed: u64) {
    let rng = Rng::from_seed(seed);
    let (mut plain, mut world) = (Plain::default(), World::new([]));
    for step in 0..20 {
        let name = format!("n{}", rng.below(5));
        match rng.below(8) {
            0..=2 => {
                let node = some_node(&rng, &name);
                world.cluster.set_node(node.clone());
                plain.nodes.insert(name, node);
            }
            3 if rng.below(3) == 0 => {
                world.cluster.remove_node(&name);
                plain.nodes.remove(&name);
            }
            4 => {
                let keys: Vec<String> = plain.pods.keys().cloned().collect();
                if !keys.is_empty() {
                    let (pod, _) = plain.pods.remove(pick(&rng, &keys)).expect("it is there");
                    world.cluster.remove(&crate::key::Key::of(&pod));
                }
            }
            // Some are where the scheduler would not have put them: others may have.
            5 if plain.nodes.contains_key(&name) => {
                let pod = some_pod(&rng, &format!("q{step}"));
                world.cluster.put(&Arc::new(Demand::of(Arc::new(pod.clone()))), &name);
                plain.pods.insert(format!("q{step}"), (pod, name));
            }
            _ => {}
        }
        let pod = some_pod(&rng, &format!("p{step}"));
        let expected: BTreeSet<String> =
            plain.nodes.keys().filter(|name| plain.accepts(name, &pod)).cloned().collect();
        let demand = Arc::new(Demand::of(Arc::new(pod.clone())));
        let decision = world.profile.decide(&demand, &mut world.cluster, rng.below(5));
        let found: BTreeSet<String> = world.feasible(&pod).into_iter().collect();
        assert_eq!(found, expected, "seed {seed}, step {step}: {pod:?}");
        match decision {
            Decision::Nowhere(_) => assert!(expected.is_empty(), "seed {seed}, step {step}"),
            Decision::Node(node) => {
                assert!(expected.contains(&node), "seed {seed}, step {step}: {node}");
                let best = ranked(&plain, &demand);
                assert!(best.contains(&node), "seed {seed}, step {step}: {node} is not among {best:?}");
                world.cluster.put(&demand, &node);
                plain.pods.insert(format!("p{step}"), (pod, node));
            }
        }
    }
}

/// The best nodes, worked out on a snapshot that is made anew: with nothing remembered, and counted once.
fn ranked(plain: &Plain, demand: &Arc<Demand>) -> BTreeSet<String> {
    let mut world = World::new(plain.nodes.values().cloned());
    for (pod, node) in plain.pods.values() {
        world.cluster.put(&Arc::new(Demand::of(Arc::new(pod.clone()))), node);
    }
    let chosen = |turn| match world.profile.decide(demand, &mut world.cluster, turn) {
        Decision::Node(node) => Some(node),
        Decision::Nowhere(_) => None,
    };
    // With up to five nodes, 60 turns come to each of those that are equally good.
    (0..60).filter_map(chosen).collect()
}

/// `SCHEDULER_CASES` says how many clusters; each asks about 20 pods.
#[test]
fn it_agrees_with_a_naive_one() {
    let cases = std::env::var("SCHEDULER_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    (0..cases).for_each(case);
}
