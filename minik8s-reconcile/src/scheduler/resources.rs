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

    /// CPU and memory that scores take a pod to use: a container that asks for none of one counts as if it asked for 0.1
    /// CPU and 200 MB, so that such pods spread too, as in Kubernetes.
    pub fn weighed(pod: &Pod) -> [i64; 2] {
        const ASSUMED: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024)];
        let containers = pod.spec.iter().flat_map(|s| &s.containers);
        let silent: Vec<Self> = containers.map(Self::of_container).collect();
        let asked = Self::of_pod(pod);
        ASSUMED.map(|(name, assumed)| {
            let without = silent.iter().filter(|c| c.get(name) == 0).count();
            let without = i64::try_from(without).unwrap_or(i64::MAX);
            asked.get(name).saturating_add(assumed.saturating_mul(without))
        })
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
            match self.0.get_mut(name) {
                Some(sum) => *sum = sum.saturating_add(*amount),
                None => drop(self.0.insert(name.clone(), *amount)),
            }
        }
    }

    /// Takes `other`, which was added before, away again.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if let Some(sum) = self.0.get_mut(name) {
                *sum = sum.saturating_sub(*amount);
            }
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
