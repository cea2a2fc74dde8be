//! How many nodes are down together, which decides whether their pods are given up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::heard::Believed;
use super::{Settings, name_of, status_of};
use crate::clock::Clock;

/// Nodes with this label are not counted.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// How long to wait to see whether others have fallen silent too.
const DOUBT: SignedDuration = SignedDuration::from_millis(500);

/// How far an outage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Some nodes are down, as nodes are now and then.
    Some,
    /// Most of the zone's nodes are down.
    Most,
    /// No node of the cluster is at work.
    All,
}

/// How things stand around a node that is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    pub(super) extent: Extent,
    /// Before this, no node is given up.
    pub(super) not_before: Timestamp,
}

/// Sees outages come and go.
pub(super) struct Outages {
    clock: Clock,
    start_grace: SignedDuration,
    interval: SignedDuration,
    unhealthy_percent: usize,
    last: Mutex<Last>,
}

struct Last {
    /// Whether all nodes were down when this was last looked at.
    all: bool,
    /// Until when nodes get the time to come back, after this began or the last of all nodes was down.
    quiet_until: Timestamp,
}

impl Outages {
    pub(super) fn new(clock: Clock, settings: &Settings) -> Self {
        let signed = |d| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
        let start_grace = signed(settings.start_grace);
        let quiet_until = clock.now().saturating_add(start_grace).unwrap_or(Timestamp::MAX);
        Self {
            clock,
            start_grace,
            interval: signed(settings.eviction_interval),
            unhealthy_percent: settings.unhealthy_percent,
            last: Mutex::new(Last { all: false, quiet_until }),
        }
    }

    /// How things stand around `node`, which is down, among all nodes; `heard` says whether a node has been heard of after
    /// some time.
    pub(super) fn around(
        &self,
        node: &Node,
        believed: Believed,
        nodes: &[Arc<Node>],
        heard: impl Fn(Timestamp, &Node) -> bool,
    ) -> Outage {
        let now = self.clock.now();
        let later = |time: Timestamp, by| time.saturating_add(by).unwrap_or(Timestamp::MAX);
        let extent = |up: &dyn Fn(&Node) -> bool| extent(node, nodes, self.unhealthy_percent, up);
        let found = extent(&is_up);
        let all = found == Extent::All;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut last.all, all) != all {
            if all {
                tracing::warn!("no node is at work: until one is, no pod is given up");
            } else {
                last.quiet_until = later(now, self.start_grace);
            }
        }
        let mut not_before = last.quiet_until;
        if let Some(at) = last_given_up(node, nodes) {
            not_before = not_before.max(later(at, self.interval));
        }
        // Nodes that fall silent together are not found out together.
        if let Some((since, settled)) = believed.doubt(now) {
            not_before = not_before.max(settled);
            if found == Extent::Some && extent(&|n| is_up(n) && heard(since, n)) != found {
                not_before = not_before.max(later(now, DOUBT));
            }
        }
        Outage { extent: found, not_before }
    }
}

fn is_up(node: &Node) -> bool {
    status_of(node, "Ready") == Some("True")
}

fn zone(node: &Node) -> (&str, &str) {
    let label = |key| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map_or("", String::as_str);
    (label(REGION), label(ZONE))
}

fn extent(
    node: &Node,
    nodes: &[Arc<Node>],
    unhealthy_percent: usize,
    is_up: &dyn Fn(&Node) -> bool,
) -> Extent {
    let mut zones: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for other in nodes {
        if other.metadata.labels.as_ref().is_some_and(|l| l.contains_key(EXCLUDED)) {
            continue;
        }
        let (up, down) = zones.entry(zone(other)).or_default();
        *(if is_up(other) { up } else { down }) += 1;
    }
    if zones.values().all(|(up, _)| *up == 0) {
        return Extent::All;
    }
    match zones.get(&zone(node)) {
        // A whole zone can be down while others see the control plane: that is the zone's own affair.
        Some((0, _)) | None => Extent::Some,
        Some((up, down)) if *down > 2 && down * 100 >= unhealthy_percent * (up + down) => Extent::Most,
        Some(_) => Extent::Some,
    }
}

/// When the last other node of the zone was given up that is still down.
fn last_given_up(node: &Node, nodes: &[Arc<Node>]) -> Option<Timestamp> {
    let others = nodes.iter().filter(|n| name_of(n) != name_of(node) && zone(n) == zone(node));
    let taints = others.flat_map(|n| n.spec.iter().flat_map(|s| s.taints.iter().flatten()));
    taints.filter(|t| super::taints::gives_up(t)).filter_map(|t| Some(t.time_added.as_ref()?.0)).max()
}
