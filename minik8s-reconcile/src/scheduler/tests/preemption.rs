//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>

use super::*;
use minik8s_api::Selector;

use crate::scheduler::{Budget, Preemption, Room, preempt};

fn important(name: &str, priority: i32, cpu: &str) -> Pod {
    let requests = json!({ "cpu": cpu });
    let spec = json!({
        "priority": priority,
        "containers": [{ "name": "a", "image": "x", "resources": { "requests": requests } }],
    });
    labelled(name, json!({ "app": name }), spec)
}

impl World {
    fn and(mut self, node: &str, pod: &Pod) -> Self {
        self.cluster.put(&Arc::new(Demand::of(Arc::new(pod.clone()))), node);
        self
    }

    fn room(&mut self, pod: &Pod, budgets: &[Budget]) -> Room {
        let demand = Demand::of(Arc::new(pod.clone()));
        match self.profile.decide(&demand, &mut self.cluster, 0) {
            Decision::Node(node) => panic!("{node} has room"),
            Decision::Nowhere(refusal) => {
                preempt(&self.profile, &demand, &mut self.cluster, &refusal, budgets)
            }
        }
    }

    /// The node, and who has to go from there.
    fn victims(&mut self, pod: &Pod, budgets: &[Budget]) -> (String, Vec<String>) {
        match self.room(pod, budgets) {
            Room::After(Preemption { node, victims }) => {
                (node, victims.iter().map(|v| v.key().name().to_owned()).collect())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn two() -> World {
    World::new([node("a", json!({})), node("b", json!({}))])
}

#[test]
fn the_least_important_go_and_no_more_than_necessary() {
    let mut world = two()
        .and("a", &important("low", 1, "1"))
        .and("a", &important("mid", 5, "1"))
        .and("b", &important("high", 9, "1500m"));
    assert_eq!(world.victims(&important("new", 10, "1"), &[]), ("a".to_owned(), vec!["low".to_owned()]));
    // Nothing is changed by looking.
    assert_eq!(world.cluster.pods().len(), 3);
    assert_eq!(world.cluster.find("a").expect("a node").requested.get("cpu"), 2000);
    let Room::None(words) = world.room(&important("new", 1, "1"), &[]) else { panic!("equals are safe") };
    assert_eq!(words, "0/2 nodes are available: 2 No preemption victims found for incoming pod.");
    let never = important("new", 10, "3");
    let Room::None(words) = world.room(&never, &[]) else { panic!("no node is that large") };
    assert_eq!(words, "0/2 nodes are available: 2 Preemption is not helpful for scheduling.");
}

#[test]
fn budgets_are_respected_if_possible_and_broken_if_not() {
    let app = |name: &str| Selector::parse(&format!("app={name}")).expect("a selector");
    let budget =
        |name: &str, allowed| Budget { namespace: "default".to_owned(), selector: app(name), allowed };
    let mut world = two().and("a", &important("x", 1, "2")).and("b", &important("y", 2, "2"));
    let new = important("new", 10, "1");
    assert_eq!(world.victims(&new, &[]).0, "a");
    assert_eq!(world.victims(&new, &[budget("x", 1)]).0, "a");
    assert_eq!(world.victims(&new, &[budget("x", 0)]).0, "b");
    assert_eq!(world.victims(&new, &[budget("x", 0), budget("y", 0)]).0, "a", "it is best effort");
}

#[test]
fn who_never_preempts_waits() {
    let mut world = two().and("a", &important("x", 1, "2")).and("b", &important("y", 2, "2"));
    let mut new = important("new", 10, "1");
    new.spec.as_mut().expect("a spec").preemption_policy = Some("Never".to_owned());
    let Room::None(words) = world.room(&new, &[]) else { panic!("it is not to") };
    assert_eq!(words, "not eligible due to preemptionPolicy=Never.");
}

#[test]
fn room_that_is_being_made_is_not_given_to_the_less_important() {
    let mut world = two().and("a", &important("x", 1, "2")).and("b", &important("y", 2, "2"));
    let new = Arc::new(Demand::of(Arc::new(important("new", 10, "2"))));
    world.cluster.nominate(&new, Some("a"));
    world.cluster.remove(&crate::key::Key::new("default", "x"));
    assert!(world.chosen(&important("late", 9, "1")).contains("2 Insufficient cpu"));
    assert_eq!(world.chosen(&important("later", 11, "1")), "a", "the more important may take it");
    assert_eq!(world.chosen(&important("new", 10, "2")), "a");
}

#[test]
fn while_victims_leave_nobody_else_has_to_go() {
    let mut leaving = important("x", 1, "2");
    leaving.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    let mut world = two().and("a", &leaving).and("b", &important("y", 2, "2"));
    let new = important("new", 10, "2");
    world.cluster.nominate(&Arc::new(Demand::of(Arc::new(new.clone()))), Some("a"));
    assert!(matches!(world.room(&new, &[]), Room::Coming));
}

/// Anti-affinity towards pods of lower priority is a reason, too.
#[test]
fn those_that_one_must_not_be_near_go() {
    let term = json!({ "labelSelector": { "matchLabels": { "app": "x" } }, "topologyKey": "kubernetes.io/hostname" });
    let mut world = World::new([node("a", json!({}))])
        .and("a", &important("x", 1, "1"))
        .and("a", &important("y", 1, "1"));
    let mut new = labelled("new", json!({}), near("podAntiAffinity", term));
    new.spec.as_mut().expect("a spec").priority = Some(10);
    assert_eq!(world.victims(&new, &[]), ("a".to_owned(), vec!["x".to_owned()]));
}
