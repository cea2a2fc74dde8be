use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{Backoff, Moment, Outcome, Priority, Queue};

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(10), max: Duration::from_millis(1000) };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The rules of the queue, as a list that is searched from end to end.
#[derive(Default)]
struct Model {
    keys: BTreeMap<u8, Entry>,
}

#[derive(Clone, Default)]
struct Entry {
    due: Option<Moment>,
    priority: Priority,
    running: bool,
    failures: u32,
    retry_at: Option<Moment>,
    premature: bool,
}

impl Model {
    fn add(&mut self, key: u8, when: Moment, priority: Priority) {
        let entry = self.keys.entry(key).or_default();
        entry.priority = if entry.due.is_some() { entry.priority.max(priority) } else { priority };
        entry.due = Some(entry.due.map_or(when, |d| d.min(when)));
    }

    /// Any of the keys that may come next.
    fn may_pop(&self, now: Moment) -> Vec<u8> {
        let due = |e: &&Entry| !e.running && e.due.is_some_and(|d| d <= now);
        let best = self.keys.values().filter(due).map(|e| (std::cmp::Reverse(e.priority), e.due)).min();
        let is_best = |e: &Entry| Some((std::cmp::Reverse(e.priority), e.due)) == best;
        self.keys.iter().filter(|(_, e)| due(e) && is_best(e)).map(|(k, _)| *k).collect()
    }

    fn pop(&mut self, key: u8, now: Moment) {
        let entry = self.keys.get_mut(&key).expect("known");
        entry.due = None;
        entry.priority = Priority::Resync;
        entry.running = true;
        entry.premature = entry.retry_at.is_some_and(|at| now < at);
    }

    fn finish(&mut self, key: u8, outcome: Outcome, now: Moment) {
        let Some(entry) = self.keys.get_mut(&key).filter(|e| e.running) else { return };
        entry.running = false;
        let again = match outcome {
            Outcome::Done(after) => {
                entry.failures = 0;
                entry.retry_at = None;
                after.map(|d| now + d)
            }
            Outcome::Failed => {
                entry.failures += u32::from(!entry.premature);
                let mut delay = BACKOFF.base;
                for _ in 1..entry.failures {
                    delay = (delay * 2).min(BACKOFF.max);
                }
                entry.retry_at = Some(now + delay);
                entry.retry_at
            }
            Outcome::RetryAfter(after) => Some(now + after),
            Outcome::Cancelled => Some(now),
        };
        entry.due = entry.due.into_iter().chain(again).min();
        if entry.due.is_none() {
            self.keys.remove(&key);
        }
    }

    fn next_due(&self) -> Option<Moment> {
        self.keys.values().filter(|e| !e.running).filter_map(|e| e.due).min()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(u8, u64, Priority),
    Pop,
    Finish(prop::sample::Index, Outcome),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let priority = prop_oneof![Just(Priority::Resync), Just(Priority::Change)];
    let outcome = prop_oneof![
        Just(Outcome::Done(None)),
        (0..50_u64).prop_map(|d| Outcome::Done(Some(ms(d)))),
        Just(Outcome::Failed),
        (0..50_u64).prop_map(|d| Outcome::RetryAfter(ms(d))),
        Just(Outcome::Cancelled),
    ];
    let op = prop_oneof![
        (0..6_u8, 0..60_u64, priority).prop_map(|(k, d, p)| Op::Add(k, d, p)),
        Just(Op::Pop),
        (any::<prop::sample::Index>(), outcome).prop_map(|(i, o)| Op::Finish(i, o)),
        (0..40_u64).prop_map(Op::Pass),
    ];
    prop::collection::vec(op, 0..200)
}

proptest! {
    #[test]
    fn the_queue_does_what_its_rules_say(ops in ops()) {
        let mut queue = Queue::new(BACKOFF);
        let mut model = Model::default();
        let mut now = Duration::ZERO;
        let mut running: Vec<u8> = Vec::new();
        for op in ops {
            match op {
                Op::Add(key, delay, priority) => {
                    queue.add(key, now + ms(delay), priority);
                    model.add(key, now + ms(delay), priority);
                }
                Op::Pop => match queue.pop(now) {
                    Some(key) => {
                        prop_assert!(model.may_pop(now).contains(&key), "{key} was not next");
                        prop_assert!(!running.contains(&key), "{key} is being worked on already");
                        model.pop(key, now);
                        running.push(key);
                    }
                    None => prop_assert!(model.may_pop(now).is_empty(), "a due key was not handed out"),
                },
                Op::Finish(index, outcome) => {
                    if !running.is_empty() {
                        let key = running.swap_remove(index.index(running.len()));
                        queue.finish(&key, outcome, now);
                        model.finish(key, outcome, now);
                    }
                }
                Op::Pass(time) => now += ms(time),
            }
            prop_assert_eq!(queue.next_due(), model.next_due());
            prop_assert_eq!(queue.running(), running.len());
            for key in 0..6 {
                prop_assert_eq!(queue.failures(&key), model.keys.get(&key).map_or(0, |e| e.failures));
            }
        }
    }
}

#[test]
fn a_noisy_key_does_not_run_up_its_backoff() {
    let mut queue = Queue::new(BACKOFF);
    for turn in 0..20 {
        queue.add("a", ms(turn), Priority::Change);
        assert_eq!(queue.pop(ms(turn)), Some("a"));
        queue.finish(&"a", Outcome::Failed, ms(turn));
    }
    assert!(queue.failures(&"a") <= 3, "{}", queue.failures(&"a"));
}

#[test]
fn changes_come_before_the_initial_list() {
    let mut queue = Queue::new(BACKOFF);
    for key in 0..1000 {
        queue.add(key, ms(0), Priority::Resync);
    }
    queue.add(999, ms(1), Priority::Change);
    assert_eq!(queue.pop(ms(1)), Some(999));
}
