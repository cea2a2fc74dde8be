use std::time::Duration;

use super::*;
use crate::key::Key;
use crate::queue::Backoff;
use crate::scheduler::SchedulingQueue;

const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(10) };

fn demand(name: &str, priority: i32) -> Arc<Demand> {
    Arc::new(Demand::of(Arc::new(labelled(name, json!({}), json!({ "priority": priority })))))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn popped(queue: &mut SchedulingQueue, now: u64) -> Vec<String> {
    std::iter::from_fn(|| queue.pop(seconds(now))).map(|d| d.key().name().to_owned()).collect()
}

#[test]
fn the_most_important_comes_first_and_of_equals_who_has_waited_longest() {
    let mut queue = SchedulingQueue::new(BACKOFF);
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
        queue.offer(demand(name, priority), false);
    }
    queue.offer(demand("a", 0), false);
    assert_eq!(popped(&mut queue, 0), ["b", "d", "a", "c"]);
    assert_eq!(queue.len(), 4, "they are handed out, not forgotten");
}

#[test]
fn a_parked_pod_comes_back_when_something_helps_and_its_back_off_is_over() {
    let mut queue = SchedulingQueue::new(BACKOFF);
    let key = Key::new("default", "a");
    queue.offer(demand("a", 0), false);
    assert_eq!(popped(&mut queue, 10), ["a"]);
    queue.park(&key, ["NodeResourcesFit"].into());
    assert_eq!(queue.counts(), [0, 0, 1]);
    queue.wake(seconds(20), |_, by| by == "TaintToleration");
    assert!(popped(&mut queue, 20).is_empty(), "that does not help");
    queue.wake(seconds(20), |_, by| by == "NodeResourcesFit");
    assert_eq!(popped(&mut queue, 20), ["a"]);
    queue.park(&key, ["NodeResourcesFit"].into());
    // It was tried at 20 for the second time: not again before 22.
    queue.wake(seconds(21), |_, _| true);
    assert!(popped(&mut queue, 21).is_empty());
    assert_eq!(queue.next_due(), Some(seconds(22)));
    assert_eq!(popped(&mut queue, 22), ["a"]);
    queue.park(&key, ["NodeResourcesFit"].into());
    assert!(popped(&mut queue, 321).is_empty());
    assert_eq!(popped(&mut queue, 322), ["a"], "nobody is forgotten");
}

#[test]
fn what_is_handed_out_is_not_handed_out_again_and_what_is_gone_never() {
    let mut queue = SchedulingQueue::new(BACKOFF);
    queue.offer(demand("a", 0), false);
    queue.offer(demand("b", 0), false);
    assert_eq!(queue.pop(seconds(0)).map(|d| d.key().name().to_owned()).as_deref(), Some("a"));
    // It changes meanwhile.
    queue.offer(demand("a", 3), true);
    assert_eq!(popped(&mut queue, 0), ["b"]);
    queue.again(&Key::new("default", "a"));
    assert_eq!(queue.next_due(), Some(seconds(1)));
    queue.remove(&Key::new("default", "a"));
    queue.remove(&Key::new("default", "b"));
    queue.park(&Key::new("default", "b"), Default::default());
    assert!(queue.is_empty() && queue.next_due().is_none());
}

#[test]
fn a_parked_pod_that_asks_for_something_else_is_ready() {
    let mut queue = SchedulingQueue::new(BACKOFF);
    queue.offer(demand("a", 0), false);
    popped(&mut queue, 0);
    queue.park(&Key::new("default", "a"), ["NodeAffinity"].into());
    queue.offer(demand("a", 0), false);
    assert!(popped(&mut queue, 1).is_empty(), "its status changed, which is no reason");
    queue.offer(demand("a", 0), true);
    assert_eq!(popped(&mut queue, 1), ["a"]);
}

proptest! {
    /// Whatever happens: every pod is in one place, none is lost, and none is handed out twice.
    #[test]
    fn nobody_is_lost(steps in prop::collection::vec((0_u8..7, 0_usize..5, 0_i32..3), 1..200)) {
        let mut queue = SchedulingQueue::new(BACKOFF);
        let (mut known, mut out) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        let mut now = 0;
        for (step, which, priority) in steps {
            let name = format!("p{which}");
            let key = Key::new("default", &name);
            match step {
                0 => { queue.offer(demand(&name, priority), false); known.insert(name); }
                1 => { queue.offer(demand(&name, priority), true); known.insert(name); }
                2 => { queue.remove(&key); known.remove(&name); out.remove(&name); }
                3 => if let Some(popped) = queue.pop(seconds(now)) {
                    let name = popped.key().name().to_owned();
                    prop_assert!(known.contains(&name) && out.insert(name));
                },
                4 => { queue.park(&key, ["NodePorts"].into()); out.remove(&name); }
                5 => { queue.again(&key); out.remove(&name); }
                _ => { now += 1; queue.wake(seconds(now), |_, _| which % 2 == 0); }
            }
            prop_assert_eq!(queue.len(), known.len());
            let [ready, later, parked] = queue.counts();
            prop_assert_eq!(ready + later + parked + out.len(), known.len());
        }
        // In the end all of them come.
        let rest = std::iter::from_fn(|| queue.pop(seconds(now + 1000))).count();
        prop_assert_eq!(rest + out.len(), known.len());
    }
}
