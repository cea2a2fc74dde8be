//! When nodes were last heard of.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;

use super::{Settings, condition, name_of};
use crate::clock::Clock;

/// What changes with every sign of life: when the Lease was renewed and when the agent last vouched for the status, by
/// the node's own clock. That they change counts, not what they say.
type Sign = (Option<Timestamp>, Option<Timestamp>);

/// How long a node is believed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Believed {
    /// When it was last heard of.
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

impl Believed {
    /// After when others must have been heard of, for the silence to be this node's own, and when it has lasted for long
    /// enough for them to have been, and for the node itself to have come back from what held all of them up.
    pub(super) fn doubt(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let half = self.until.duration_since(self.since) / 2;
        let later = self.until.saturating_add(half).unwrap_or(Timestamp::MAX);
        (now >= self.until).then(|| (self.since.saturating_add(half).unwrap_or(self.since), later))
    }
}

/// What this process has heard of nodes. Whoever begins anew knows nothing, and gives everybody time.
pub(super) struct Heard {
    clock: Clock,
    grace: SignedDuration,
    start_grace: SignedDuration,
    state: Mutex<State>,
}

struct State {
    nodes: BTreeMap<String, Word>,
    /// When this process last looked at any node.
    looked: Timestamp,
}

/// The last word of a node.
struct Word {
    sign: Sign,
    at: Timestamp,
    /// Nothing has been heard since this process began.
    first: bool,
}

impl Heard {
    pub(super) fn new(clock: Clock, settings: &Settings) -> Self {
        let signed = |d| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
        let (grace, start_grace) = (signed(settings.grace), signed(settings.start_grace));
        let state = Mutex::new(State { nodes: BTreeMap::new(), looked: clock.now() });
        Self { clock, grace, start_grace, state }
    }

    /// How often to look at a node at least: silence counts only while somebody listens.
    pub(super) fn period(&self) -> SignedDuration {
        self.grace / 4
    }

    /// Takes in what there is to see of a node now.
    pub(super) fn note(&self, node: &Node, lease: Option<&Lease>) -> Believed {
        let spec = lease.and_then(|l| l.spec.as_ref());
        let renewed = spec.and_then(|s| s.renew_time.as_ref()).map(|t| t.0);
        let posted = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let sign = (renewed, posted);
        let now = self.clock.now();
        let mut state = self.lock();
        state.look(now, self.period() * 2);
        let word = state.nodes.entry(name_of(node).to_owned()).or_insert(Word { sign, at: now, first: true });
        if word.sign != sign {
            *word = Word { sign, at: now, first: false };
        }
        let own = spec.and_then(|s| s.lease_duration_seconds).unwrap_or(0);
        let grace = self.grace.max(SignedDuration::from_secs(own.into()));
        let grace = if word.first { grace.max(self.start_grace) } else { grace };
        Believed { since: word.at, until: word.at.saturating_add(grace).unwrap_or(Timestamp::MAX) }
    }

    /// Whether the node has been heard of after `time`.
    pub(super) fn after(&self, time: Timestamp, node: &Node) -> bool {
        self.lock().nodes.get(name_of(node)).is_some_and(|word| word.at > time)
    }

    /// The node is gone; one of its name would be another.
    pub(super) fn forget(&self, node: &str) {
        self.lock().nodes.remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Looks at `now`. Time in which this process did not look, because it was held up, or that only the clock has jumped
    /// over, is time in which no node was silent.
    fn look(&mut self, now: Timestamp, held_up: SignedDuration) {
        let passed = now.duration_since(self.looked);
        self.looked = now;
        if passed >= held_up || passed.is_negative() {
            for word in self.nodes.values_mut() {
                word.at = word.at.saturating_add(passed).map_or(now, |at| at.min(now));
            }
        }
    }
}
