//! Taints by what is known of a node
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions>).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};

use super::outage::{Extent, Outage};
use super::{stamp, status_of};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they hold.
const BY_CONDITION: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const KEEPS_AWAY: &str = "NoSchedule";
const ENDS: &str = "NoExecute";

/// The taints that a node is to have.
pub(super) struct Wanted {
    pub(super) taints: Vec<Taint>,
    /// There will be another after that time, if nothing changes.
    pub(super) wait: Option<Duration>,
}

/// Whether the taint says that the node's pods are given up.
pub(super) fn gives_up(taint: &Taint) -> bool {
    taint.effect == ENDS && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

fn is_own(taint: &Taint) -> bool {
    let by_condition = || BY_CONDITION.iter().any(|(_, key)| taint.key == *key);
    let down = taint.key == NOT_READY || taint.key == UNREACHABLE;
    gives_up(taint) || taint.effect == KEEPS_AWAY && (down || taint.key == UNSCHEDULABLE || by_condition())
}

/// The taints of `node`, with those of others as they are.
pub(super) fn wanted(node: &Node, outage: Option<&Outage>, now: Timestamp) -> Wanted {
    let present = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let down = match status_of(node, "Ready") {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let mut own: Vec<(&str, &str)> = down.map(|key| (key, KEEPS_AWAY)).into_iter().collect();
    let holds = |condition: &str| status_of(node, condition) == Some("True");
    own.extend(BY_CONDITION.iter().filter(|(c, _)| holds(c)).map(|(_, key)| (*key, KEEPS_AWAY)));
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        own.push((UNSCHEDULABLE, KEEPS_AWAY));
    }
    let given_up = present.iter().find(|t| gives_up(t));
    let mut wait = None;
    // Where nothing ever ran there is nothing to end.
    if let (Some(key), Some(outage), Some(_)) = (down, outage, status_of(node, "Ready")) {
        match outage.extent {
            Extent::All => {}
            Extent::Most if given_up.is_none() => {}
            Extent::Some if given_up.is_none() && now < outage.not_before => {
                wait = outage.not_before.duration_since(now).try_into().ok();
            }
            Extent::Some | Extent::Most => own.push((key, ENDS)),
        }
    }
    let is_wanted = |t: &Taint| !is_own(t) || own.contains(&(t.key.as_str(), t.effect.as_str()));
    let mut taints: Vec<Taint> = present.iter().filter(|t| is_wanted(t)).cloned().collect();
    for (key, effect) in own {
        if taints.iter().any(|t| t.key == key && t.effect == effect) {
            continue;
        }
        // One that takes the place of another counts from when that one did.
        let since = given_up.and_then(|t| t.time_added.clone()).unwrap_or_else(|| stamp(now));
        taints.push(Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            value: None,
            time_added: (effect == ENDS).then_some(since),
        });
    }
    // Whoever ends pods after a time has to know since when.
    for taint in taints.iter_mut().filter(|t| t.effect == ENDS && t.time_added.is_none()) {
        taint.time_added = Some(stamp(now));
    }
    Wanted { taints, wait }
}
