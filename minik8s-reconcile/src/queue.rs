//! The work queue: which key is to be worked on next. A data structure, not a task: no timers, no locks, no async.
//!
//! # Rules
//! - A key is in the queue once; the earliest time asked for wins, and the highest priority.
//! - A key that is being worked on is not handed out again; if it is added meanwhile it comes back when it is finished.
//! - A failed key comes back after a delay that doubles with each failure. Only a failure after a full delay counts:
//!   a key that is added again and again does not run up its delay by that.
//! - Keys of equal time and priority come in the order in which they became due, then in their own order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Which of several due keys comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Part of an initial list or a resync: whenever there is nothing else.
    Resync,
    /// Something changed.
    #[default]
    Change,
}

/// How long a failed key waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub base: Duration,
    /// At most.
    pub max: Duration,
}

impl Default for Backoff {
    /// From 5 ms to 5 minutes.
    fn default() -> Self {
        Self { base: Duration::from_millis(5), max: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// The delay after `failures` failures in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }
}

/// What came of working on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went well; again after that time, if any.
    Done(Option<Duration>),
    /// It did not; again after the key's backoff.
    Failed,
    /// It did not, and how long to wait is known: this does not count as a failure.
    RetryAfter(Duration),
    /// It was cut short: again at once.
    Cancelled,
}

/// A moment on the caller's clock: the time since an origin of its choice.
pub type Moment = Duration;

#[derive(Debug, Default)]
struct State {
    /// When it is due; `None` while it is only being worked on.
    due: Option<Moment>,
    priority: Priority,
    running: bool,
    failures: u32,
    /// After a failure: when its delay ends.
    retry_at: Option<Moment>,
    /// The present run began before the last failure's delay had ended.
    premature: bool,
}

/// A queue of keys. See the [module](self) for its rules.
///
/// ```
/// use std::time::Duration;
/// use minik8s_reconcile::queue::{Outcome, Priority, Queue};
///
/// let mut queue = Queue::new(Default::default());
/// queue.add("a", Duration::ZERO, Priority::Change);
/// queue.add("a", Duration::from_secs(9), Priority::Change); // already due earlier
/// assert_eq!(queue.pop(Duration::ZERO), Some("a"));
/// assert_eq!(queue.pop(Duration::ZERO), None); // it is being worked on
/// queue.finish(&"a", Outcome::Failed, Duration::ZERO);
/// assert_eq!(queue.next_due(), Some(Duration::from_millis(5)));
/// ```
#[derive(Debug)]
pub struct Queue<K> {
    keys: BTreeMap<K, State>,
    /// Keys that may be handed out, by time.
    waiting: BTreeSet<(Moment, K)>,
    /// Keys whose time has come, most urgent first.
    ready: BTreeSet<(std::cmp::Reverse<Priority>, Moment, K)>,
    backoff: Backoff,
}

impl<K: Ord + Clone> Queue<K> {
    /// An empty queue.
    pub fn new(backoff: Backoff) -> Self {
        Self { keys: BTreeMap::new(), waiting: BTreeSet::new(), ready: BTreeSet::new(), backoff }
    }

    /// Asks for `key` to be worked on at `when`, or earlier if it is asked for earlier.
    pub fn add(&mut self, key: K, when: Moment, priority: Priority) {
        let state = self.keys.entry(key.clone()).or_default();
        let known = state.due;
        let due = known.map_or(when, |d| d.min(when));
        let raised = if known.is_some() { state.priority.max(priority) } else { priority };
        if !state.running
            && let Some(known) = known
        {
            self.waiting.remove(&(known, key.clone()));
            self.ready.remove(&(std::cmp::Reverse(state.priority), known, key.clone()));
        }
        state.due = Some(due);
        state.priority = raised;
        if !state.running {
            self.waiting.insert((due, key));
        }
    }

    /// The most urgent key that is due at `now`; it counts as being worked on until [`Self::finish`].
    pub fn pop(&mut self, now: Moment) -> Option<K> {
        self.promote(now);
        let (_, _, key) = self.ready.pop_first()?;
        let state = self.keys.get_mut(&key).expect("a ready key is known");
        state.due = None;
        state.running = true;
        state.premature = state.retry_at.is_some_and(|at| now < at);
        state.priority = Priority::Resync;
        Some(key)
    }

    /// Says what came of a key that [`Self::pop`] gave out. Others are ignored.
    pub fn finish(&mut self, key: &K, outcome: Outcome, now: Moment) {
        let Some(state) = self.keys.get_mut(key).filter(|s| s.running) else { return };
        state.running = false;
        let again = match outcome {
            Outcome::Done(after) => {
                state.failures = 0;
                state.retry_at = None;
                after.map(|d| now.saturating_add(d))
            }
            Outcome::Failed => {
                if !state.premature {
                    state.failures = state.failures.saturating_add(1);
                }
                state.retry_at = Some(now.saturating_add(self.backoff.delay(state.failures)));
                state.retry_at
            }
            Outcome::RetryAfter(after) => Some(now.saturating_add(after)),
            Outcome::Cancelled => Some(now),
        };
        // What was asked for meanwhile stands, and does not wait for a failure's delay.
        let due = match (state.due, again) {
            (Some(asked), Some(again)) => Some(asked.min(again)),
            (asked, again) => asked.or(again),
        };
        match due {
            Some(due) => {
                state.due = Some(due);
                self.waiting.insert((due, key.clone()));
            }
            None => {
                self.keys.remove(key);
            }
        }
    }

    /// When the next key is due; `None` if none waits.
    pub fn next_due(&self) -> Option<Moment> {
        let ready = self.ready.iter().map(|(_, due, _)| *due).min();
        let waiting = self.waiting.first().map(|(due, _)| *due);
        ready.into_iter().chain(waiting).min()
    }

    /// How many failures in a row `key` has behind it.
    pub fn failures(&self, key: &K) -> u32 {
        self.keys.get(key).map_or(0, |s| s.failures)
    }

    /// Keys that wait or are due, not counting those being worked on.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys being worked on.
    pub fn running(&self) -> usize {
        self.keys.values().filter(|s| s.running).count()
    }

    fn promote(&mut self, now: Moment) {
        while self.waiting.first().is_some_and(|(due, _)| *due <= now) {
            let (due, key) = self.waiting.pop_first().expect("checked above");
            let priority = self.keys.get(&key).expect("a waiting key is known").priority;
            self.ready.insert((std::cmp::Reverse(priority), due, key));
        }
    }
}

#[cfg(test)]
mod tests;
