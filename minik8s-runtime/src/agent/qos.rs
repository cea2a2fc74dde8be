//! A pod's quality of service, and what follows from it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// How a pod stands when the node is short of something
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QosClass {
    /// Every container has limits, and requests just these.
    Guaranteed,
    /// Some container has a request or a limit.
    Burstable,
    /// None has.
    BestEffort,
}

impl QosClass {
    /// As the status shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The cgroup that pods of this class live under.
    pub(crate) fn cgroup(self) -> &'static str {
        match self {
            Self::Guaranteed => "/kubepods",
            Self::Burstable => "/kubepods/burstable",
            Self::BestEffort => "/kubepods/besteffort",
        }
    }
}

/// The pod's class.
pub(crate) fn class(spec: &PodSpec) -> QosClass {
    let mut any = false;
    let mut all = true;
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let empty = BTreeMap::new();
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|r| r.requests.as_ref()).unwrap_or(&empty);
        let limits = resources.and_then(|r| r.limits.as_ref()).unwrap_or(&empty);
        for name in ["cpu", "memory"] {
            let positive = |m: &BTreeMap<String, Quantity>| {
                m.get(name).and_then(|q| amount("cpu", q)).filter(|v| *v > 0)
            };
            let (request, limit) = (positive(requests), positive(limits));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (_, true) if any => QosClass::Guaranteed,
        (true, _) => QosClass::Burstable,
        _ => QosClass::BestEffort,
    }
}

/// The container's place in line for the OOM killer: the more memory it asked for, the later.
pub(crate) fn oom_score_adj(spec: &PodSpec, container: &Container, memory_capacity: u64) -> i32 {
    if spec.priority.is_some_and(|p| p >= 2_000_000_000) {
        return -997;
    }
    match class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let requested = request(container, "memory").unwrap_or(0);
            let capacity = i64::try_from(memory_capacity.max(1)).unwrap_or(i64::MAX);
            let share = i128::from(requested) * 1000 / i128::from(capacity);
            let score = 1000 - i32::try_from(share).unwrap_or(1000);
            score.clamp(3, 999)
        }
    }
}

/// How much that is: thousandths of CPUs, bytes, or units, rounded up; `None` if it is no quantity.
pub(crate) fn amount(name: &str, quantity: &Quantity) -> Option<i64> {
    let quantity = minik8s_api::Quantity::try_from(quantity).ok()?;
    Some(if name == "cpu" { quantity.milli_value() } else { quantity.value() })
}

/// What the container asks for (its limit if it says no more): thousandths of CPUs, bytes, or units.
pub(crate) fn request(container: &Container, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    let of = |m: &Option<BTreeMap<String, Quantity>>| m.as_ref()?.get(name).and_then(|q| amount(name, q));
    of(&resources.requests).or_else(|| of(&resources.limits))
}

/// What the container may use at most.
pub(crate) fn limit(container: &Container, name: &str) -> Option<i64> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get(name).and_then(|q| amount(name, q))
}

/// What the pod as a whole asks for: its containers and sidecars together, or the most that its init containers
/// need at once, whichever is more, and the overhead of the pod itself.
pub(crate) fn pod_request(spec: &PodSpec, name: &str) -> i64 {
    let of = |c: &Container| request(c, name).unwrap_or(0);
    let (mut sidecars, mut peak) = (0i64, 0i64);
    for init in spec.init_containers.iter().flatten() {
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.saturating_add(of(init));
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.saturating_add(of(init)));
        }
    }
    let running = spec.containers.iter().map(of).fold(sidecars, i64::saturating_add);
    let overhead =
        spec.overhead.as_ref().and_then(|o| o.get(name)).and_then(|q| amount(name, q)).unwrap_or(0);
    running.max(peak).saturating_add(overhead)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(resources: serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({"containers": [{"name": "a", "resources": resources}]})).unwrap()
    }

    #[test]
    fn classes() {
        assert_eq!(class(&spec(json!({}))), QosClass::BestEffort);
        assert_eq!(class(&spec(json!({"requests": {"cpu": "1"}}))), QosClass::Burstable);
        let guaranteed = spec(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}));
        assert_eq!(class(&guaranteed), QosClass::Guaranteed);
    }

    #[test]
    fn burstable_scores_follow_the_request() {
        let s = spec(json!({"requests": {"memory": "1Gi"}}));
        assert_eq!(oom_score_adj(&s, &s.containers[0], 4 << 30), 750);
        assert_eq!(oom_score_adj(&s, &s.containers[0], 1 << 30), 3);
    }

    #[test]
    fn init_containers_count_at_their_peak() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "2"}}}
            ],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}]
        }))
        .unwrap();
        assert_eq!(pod_request(&spec, "cpu"), 2100);
    }
}
