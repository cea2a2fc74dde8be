use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Graph, PodEntry, Thing};

const NAMES: [&str; 3] = ["a", "b", "c"];
const THINGS: [Thing; 4] = [Thing::Account, Thing::Claim, Thing::ConfigMap, Thing::Secret];

#[derive(Clone, Debug)]
enum Step {
    Pod(usize, usize, Option<(usize, Vec<(usize, usize)>)>),
    Claim(usize, usize, Option<usize>),
    ForgetPods,
    ForgetClaims,
}

fn step() -> impl Strategy<Value = Step> {
    let refers = proptest::collection::vec((0..4_usize, 0..3_usize), 0..5);
    prop_oneof![
        8 => (0..2_usize, 0..3_usize, proptest::option::weighted(0.7, (0..2_usize, refers)))
            .prop_map(|(ns, name, pod)| Step::Pod(ns, name, pod)),
        4 => (0..2_usize, 0..3_usize, proptest::option::weighted(0.7, 0..2_usize))
            .prop_map(|(ns, name, volume)| Step::Claim(ns, name, volume)),
        1 => Just(Step::ForgetPods),
        1 => Just(Step::ForgetClaims),
    ]
}

proptest! {
    /// The graph answers as a look at all pods and claims would.
    #[test]
    fn answers_as_if_everything_was_looked_at(steps in proptest::collection::vec(step(), 0..40)) {
        let mut graph = Graph::default();
        let mut pods: BTreeMap<(usize, usize), PodEntry> = BTreeMap::new();
        let mut claims: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Pod(ns, name, pod) => {
                    let entry = pod.map(|(node, refers)| PodEntry {
                        node: NAMES[node].to_owned(),
                        refers_to: refers.iter().map(|&(t, n)| (THINGS[t], NAMES[n].to_owned())).collect(),
                    });
                    graph.set_pod(NAMES[ns], NAMES[name], entry.clone());
                    match entry {
                        Some(entry) => drop(pods.insert((ns, name), entry)),
                        None => drop(pods.remove(&(ns, name))),
                    }
                }
                Step::Claim(ns, name, volume) => {
                    graph.set_claim(NAMES[ns], NAMES[name], volume.map(|v| NAMES[v]));
                    match volume {
                        Some(volume) => drop(claims.insert((ns, name), volume)),
                        None => drop(claims.remove(&(ns, name))),
                    }
                }
                Step::ForgetPods => {
                    graph.clear_pods();
                    pods.clear();
                }
                Step::ForgetClaims => {
                    graph.clear_claims();
                    claims.clear();
                }
            }
            for node in NAMES {
                for (ns, in_) in NAMES.iter().enumerate().take(2) {
                    for (name, of) in NAMES.iter().enumerate() {
                        let runs = pods.get(&(ns, name)).is_some_and(|p| p.node == node);
                        prop_assert_eq!(graph.knows(in_, of), pods.contains_key(&(ns, name)));
                        prop_assert_eq!(graph.runs(node, in_, of), runs);
                        for thing in THINGS {
                            let key = (thing, (*of).to_owned());
                            let uses = pods.iter().any(|((place, _), p)| {
                                *place == ns && p.node == node && p.refers_to.contains(&key)
                            });
                            prop_assert_eq!(graph.uses(node, thing, in_, of), uses);
                        }
                    }
                }
                for (volume, of) in NAMES.iter().enumerate() {
                    let mounts = claims.iter().any(|((ns, claim), bound)| {
                        let key = (Thing::Claim, NAMES[*claim].to_owned());
                        *bound == volume && pods.iter().any(|((place, _), p)| {
                            place == ns && p.node == node && p.refers_to.contains(&key)
                        })
                    });
                    prop_assert_eq!(graph.mounts(node, of), mounts);
                }
            }
        }
        graph.clear_pods();
        graph.clear_claims();
        prop_assert_eq!(graph, Graph::default(), "nothing is left behind");
    }
}
