//! Which of several nodes is best.

use k8s_openapi::api::core::v1::Pod;

use super::resources::Amounts;
use super::{NodeInfo, affinity, taint};

/// What a pod without requests is taken to use, so that such pods spread too: 0.1 CPU and 200 MB, as in Kubernetes.
const ASSUMED: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024)];
/// The most that one view can give.
const MAX: i64 = 100;

/// The higher the better: free resources (least allocated), a balance of them, few disliked taints, preferences.
pub(super) fn score(pod: &Pod, info: &NodeInfo) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let asks = Amounts::of_pod(pod);
    let pods = i64::try_from(info.pods).unwrap_or(i64::MAX);
    let used = ASSUMED.map(|(name, assumed)| {
        let total = info.allocatable.get(name);
        if total == 0 {
            return 0;
        }
        let asked = if asks.get(name) == 0 { assumed } else { asks.get(name) };
        // Pods on the node that ask for nothing weigh something too.
        let others = info.requested.get(name).max(pods.saturating_mul(assumed).min(total));
        (others.saturating_add(asked)).saturating_mul(MAX).saturating_div(total).min(MAX)
    });
    let least_allocated = MAX - used.iter().sum::<i64>() / 2;
    let balance = MAX - (used[0] - used[1]).abs();
    let taints = info.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let disliked = taint::disliked(taints, spec.tolerations.as_deref().unwrap_or_default());
    let disliked = i64::try_from(disliked).unwrap_or(i64::MAX).saturating_mul(MAX * 3);
    let preference = affinity::preference(spec, &info.node);
    (least_allocated + balance + preference.saturating_mul(2)).saturating_sub(disliked)
}
