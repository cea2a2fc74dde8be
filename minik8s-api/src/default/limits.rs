//! Limit ranges.

use k8s_openapi::api::core::v1::LimitRange;

/// Fills in a LimitRange: of containers, the default limit is the maximum; the default request is the default limit or,
/// without one, the minimum.
pub fn limit_range(range: &mut LimitRange) {
    for item in range.spec.iter_mut().flat_map(|s| &mut s.limits).filter(|i| i.type_ == "Container") {
        let mut limits = item.default.take().unwrap_or_default();
        let mut requests = item.default_request.take().unwrap_or_default();
        for (name, most) in item.max.iter().flatten() {
            limits.entry(name.clone()).or_insert_with(|| most.clone());
        }
        for (name, amount) in limits.iter().chain(item.min.iter().flatten()) {
            requests.entry(name.clone()).or_insert_with(|| amount.clone());
        }
        item.default = Some(limits).filter(|l| !l.is_empty());
        item.default_request = Some(requests).filter(|r| !r.is_empty());
    }
}
