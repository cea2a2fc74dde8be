//! Amounts of resources, exactly as they are written.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use minik8s_api::Quantity;

/// Quantities as objects have them.
pub(in crate::server) type RawAmounts = BTreeMap<String, ApiQuantity>;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts(pub(crate) BTreeMap<String, Quantity>);

impl Amounts {
    /// Those of a resource list. What is no quantity counts as nothing; validation has refused it before.
    pub(crate) fn of(list: Option<&RawAmounts>) -> Self {
        let amount = |q: &ApiQuantity| Quantity::parse(&q.0).ok();
        Self(list.into_iter().flatten().filter_map(|(name, q)| Some((name.clone(), amount(q)?))).collect())
    }

    pub(crate) fn to_list(&self) -> RawAmounts {
        self.0.iter().map(|(name, amount)| (name.clone(), (*amount).into())).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            self.add_one(name, *amount);
        }
    }

    pub(crate) fn add_one(&mut self, name: &str, amount: Quantity) {
        match self.0.get_mut(name) {
            Some(sum) => *sum += amount,
            None => drop(self.0.insert(name.to_owned(), amount)),
        }
    }

    /// Raises each of these to `other`'s.
    fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_insert(*amount);
            if *known < *amount {
                *known = *amount;
            }
        }
    }

    /// What a pod asks for.
    pub(crate) fn requests(spec: &PodSpec) -> Self {
        let own = |c: &Container| Self::of(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
        let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
        Self::of_pod(spec, own, whole)
    }

    /// What a pod is limited to. A container without a limit of its own adds nothing.
    pub(crate) fn limits(spec: &PodSpec) -> Self {
        let own = |c: &Container| Self::of(c.resources.as_ref().and_then(|r| r.limits.as_ref()));
        let whole = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
        Self::of_pod(spec, own, whole)
    }

    /// The containers together with the sidecars, or the largest init container on top of the sidecars before it; then
    /// what the pod says as a whole, and the overhead.
    fn of_pod(spec: &PodSpec, own: impl Fn(&Container) -> Self, whole: Option<&RawAmounts>) -> Self {
        let (mut sidecars, mut peak) = (Self::default(), Self::default());
        for container in spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&own(container));
                peak.raise(&sidecars);
            } else {
                let mut together = sidecars.clone();
                together.add(&own(container));
                peak.raise(&together);
            }
        }
        let mut total = sidecars;
        spec.containers.iter().for_each(|c| total.add(&own(c)));
        total.raise(&peak);
        total.0.extend(Self::of(whole).0);
        for (name, amount) in Self::of(spec.overhead.as_ref()).0 {
            // Overhead on top of no limit is no limit.
            if let Some(sum) = total.0.get_mut(&name) {
                *sum += amount;
            }
        }
        total
    }
}
