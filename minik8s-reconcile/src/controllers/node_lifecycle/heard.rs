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
    /// The middle of a silence that was too long: whoever is well has been heard of since.
    fn middle(&self) -> Timestamp {
        let half = self.until.duration_since(self.since) / 2;
        self.since.saturating_add(half).unwrap_or(self.since)
    }

    /// After when others must have been heard of, for the silence to be this node's own.
    pub(super) fn doubt(&self, now: Timestamp) -> Option<Timestamp> {
        (now >= self.until).then(|| self.middle())
    }
}

/// What this process has heard of nodes. Whoever begins anew knows nothing, and gives everybody time.
pub(super) struct Heard {
    clock: Clock,
    grace: SignedDuration,
    start_grace: SignedDuration,
    nodes: Mutex<BTreeMap<String, Word>>,
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
        Self { clock, grace, start_grace, nodes: Mutex::default() }
    }

    /// Takes in what there is to see of a node now.
    pub(super) fn note(&self, node: &Node, lease: Option<&Lease>) -> Believed {
        let spec = lease.and_then(|l| l.spec.as_ref());
        let renewed = spec.and_then(|s| s.renew_time.as_ref()).map(|t| t.0);
        let posted = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let sign = (renewed, posted);
        let now = self.clock.now();
        let mut nodes = self.lock();
        let word = nodes.entry(name_of(node).to_owned()).or_insert(Word { sign, at: now, first: true });
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
        self.lock().get(name_of(node)).is_some_and(|word| word.at > time)
    }

    /// The node is gone; one of its name would be another.
    pub(super) fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Word>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
