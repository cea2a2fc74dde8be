//! Which pod is next: a data structure, not a task.
//!
//! # Rules
//! - Of those that are ready, the one with the highest priority, and of equals the one that has waited longest.
//! - A pod that fits nowhere is parked with the names of the filters that had something against nodes. It is ready again
//!   when something changes that could help with one of them, and not before its back-off is over.
//! - A pod that is parked for [`FORGOTTEN`] is looked at again in any case.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::demand::Demand;
use super::pod_set::PodSet;
use crate::key::Key;
use crate::queue::{Backoff, Moment};

/// A parked pod is looked at again after that long, whatever happens.
pub const FORGOTTEN: Duration = Duration::from_secs(300);

/// Something that may help pods that fit nowhere.
#[derive(Clone, Debug)]
pub enum Change {
    /// A pod was given to a node, or one there is another one now.
    PodPlaced(Arc<Demand>),
    /// A pod takes nothing any more.
    PodGone(Arc<Demand>),
    /// A node came, or is another one in these respects.
    Node {
        /// It has more to give.
        room: bool,
        /// Its labels.
        labels: bool,
        /// Its taints, and whether it is cordoned.
        taints: bool,
    },
    /// A namespace has other labels.
    Namespace,
    /// Anything else.
    Other,
}

impl Change {
    /// Whether `pod`, which this is about, may be one of `set`. Labels of namespaces are not looked at.
    pub fn touches(&self, set: &PodSet, pod: &Demand) -> bool {
        set.may_contain(pod.key().namespace(), pod.labels())
    }
}

/// What is known of a pod without a node.
#[derive(Debug)]
struct Entry {
    demand: Arc<Demand>,
    attempts: u32,
    /// The order in which they came.
    turn: u64,
    tried: Moment,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Until(Moment),
    Parked(BTreeSet<&'static str>),
    /// It was handed out.
    Out,
}

/// Pods without a node. See the [module](self) for its rules.
#[derive(Debug)]
pub struct SchedulingQueue {
    backoff: Backoff,
    pods: BTreeMap<Key, Entry>,
    ready: BTreeSet<(Reverse<i32>, u64, Key)>,
    later: BTreeSet<(Moment, Key)>,
    turns: u64,
}

impl SchedulingQueue {
    /// A queue of none.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, pods: BTreeMap::new(), ready: BTreeSet::new(), later: BTreeSet::new(), turns: 0 }
    }

    /// How many pods there are, handed out or not.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// How many are ready, wait for their time, and are parked.
    pub fn counts(&self) -> [usize; 3] {
        let parked = self.pods.values().filter(|e| matches!(e.place, Place::Parked(_))).count();
        [self.ready.len(), self.later.len() - parked, parked]
    }

    /// The pod that is known under that key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Demand>> {
        self.pods.get(key).map(|entry| &entry.demand)
    }

    /// A pod needs a node. One that is known already keeps its turn, and is ready if `renewed`: what it asks for has
    /// changed.
    pub fn offer(&mut self, demand: Arc<Demand>, renewed: bool) {
        let key = demand.key().clone();
        let Some(known) = self.pods.get(&key) else {
            self.turns += 1;
            let (turn, tried) = (self.turns, Moment::ZERO);
            let entry = Entry { demand, attempts: 0, turn, tried, place: Place::Out };
            self.pods.insert(key.clone(), entry);
            return self.set(&key, Place::Ready);
        };
        let place = if renewed && known.place != Place::Out { Place::Ready } else { known.place.clone() };
        self.leave(&key);
        if let Some(entry) = self.pods.get_mut(&key) {
            entry.demand = demand;
        }
        self.set(&key, place);
    }

    /// A pod has a node, or is gone.
    pub fn remove(&mut self, key: &Key) {
        self.leave(key);
        self.pods.remove(key);
    }

    /// The next pod.
    pub fn pop(&mut self, now: Moment) -> Option<Arc<Demand>> {
        while let Some((due, key)) = self.later.first().filter(|(due, _)| *due <= now).cloned() {
            self.later.remove(&(due, key.clone()));
            self.set(&key, Place::Ready);
        }
        let (_, _, key) = self.ready.pop_first()?;
        let entry = self.pods.get_mut(&key)?;
        entry.place = Place::Out;
        entry.attempts += 1;
        entry.tried = now;
        Some(entry.demand.clone())
    }

    /// When there may be a pod, if there is none now and nothing else happens.
    pub fn next_due(&self) -> Option<Moment> {
        self.later.first().map(|(due, _)| *due)
    }

    /// A pod that was handed out fits nowhere, because of these filters.
    pub fn park(&mut self, key: &Key, because: BTreeSet<&'static str>) {
        if self.pods.get(key).is_some_and(|entry| entry.place == Place::Out) {
            self.set(key, Place::Parked(because));
        }
    }

    /// A pod that was handed out could not be bound: again after its back-off.
    pub fn again(&mut self, key: &Key) {
        if let Some(entry) = self.pods.get(key).filter(|entry| entry.place == Place::Out) {
            let due = entry.tried + self.backoff.delay(entry.attempts);
            self.set(key, Place::Until(due));
        }
    }

    /// Something has changed: pods that it could help are ready, or will be when their back-off is over. `helps` is
    /// asked whether it helps a pod with what a filter has against nodes.
    pub fn wake(&mut self, now: Moment, helps: impl Fn(&Demand, &'static str) -> bool) {
        let helped = self.pods.iter().filter(|(_, entry)| match &entry.place {
            Place::Parked(because) => {
                because.is_empty() || because.iter().any(|filter| helps(&entry.demand, filter))
            }
            _ => false,
        });
        let helped: Vec<Key> = helped.map(|(key, _)| key.clone()).collect();
        for key in helped {
            let Some(entry) = self.pods.get(&key) else { continue };
            let due = entry.tried + self.backoff.delay(entry.attempts);
            self.leave(&key);
            self.set(&key, if due <= now { Place::Ready } else { Place::Until(due) });
        }
    }

    fn set(&mut self, key: &Key, place: Place) {
        let Some(entry) = self.pods.get_mut(key) else { return };
        match place {
            Place::Ready => {
                self.ready.insert((Reverse(entry.demand.priority), entry.turn, key.clone()));
            }
            Place::Until(due) => {
                self.later.insert((due, key.clone()));
            }
            Place::Parked(_) => {
                self.later.insert((entry.tried + FORGOTTEN, key.clone()));
            }
            Place::Out => {}
        }
        entry.place = place;
    }

    /// Takes a pod out of wherever it waits.
    fn leave(&mut self, key: &Key) {
        let Some(entry) = self.pods.get(key) else { return };
        match &entry.place {
            Place::Ready => {
                self.ready.remove(&(Reverse(entry.demand.priority), entry.turn, key.clone()));
            }
            Place::Until(due) => {
                self.later.remove(&(*due, key.clone()));
            }
            Place::Parked(_) => {
                self.later.remove(&(entry.tried + FORGOTTEN, key.clone()));
            }
            Place::Out => {}
        }
    }
}
