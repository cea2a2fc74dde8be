//! Amounts of resources.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use minik8s_api::Quantity;

/// Resources by name: CPU in thousandths, all else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// The amounts of a resource list. What is not a quantity counts as nothing; validation has refused it before.
    pub fn of_list(list: &BTreeMap<String, RawQuantity>) -> Self {
        let amount = |name: &str, quantity: &RawQuantity| {
            let quantity = Quantity::parse(&quantity.0).ok()?;
            Some(if name == "cpu" { quantity.milli_value() } else { quantity.value() })
        };
        Self(list.iter().filter_map(|(name, q)| Some((name.clone(), amount(name, q)?))).collect())
    }

    /// What a pod asks for: its containers together with its sidecars, or its largest init container on top of the
    /// sidecars before it, whichever is more; and the overhead
    /// (<https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>).
    pub fn of_pod(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let own = Self::of_container(container);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&own);
                peak.raise(&sidecars);
            } else {
                let mut with_sidecars = sidecars.clone();
                with_sidecars.add(&own);
                peak.raise(&with_sidecars);
            }
        }
        let mut total = sidecars;
        for container in &spec.containers {
            total.add(&Self::of_container(container));
        }
        total.raise(&peak);
        if let Some(requests) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            for (name, amount) in Self::of_list(requests).0 {
                total.0.insert(name, amount);
            }
        }
        if let Some(overhead) = &spec.overhead {
            total.add(&Self::of_list(overhead));
        }
        total
    }

    fn of_container(container: &Container) -> Self {
        container.resources.as_ref().and_then(|r| r.requests.as_ref()).map(Self::of_list).unwrap_or_default()
    }

    /// How much there is of `name`.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds `other` to these.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Raises each of these to `other`'s.
    fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}
