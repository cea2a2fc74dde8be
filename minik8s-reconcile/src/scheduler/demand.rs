//! What a pod asks of the node that it is given to, worked out once.

use std::sync::{Arc, LazyLock, OnceLock};

use k8s_openapi::api::core::v1::{
    Pod, PodAffinityTerm, PodSpec, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use serde_json::json;

use super::pod_set::{Labels, PodSet};
use super::resources::Amounts;
use crate::key::Key;

static NO_LABELS: Labels = Labels::new();
static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

/// A port of a node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The node's address; `0.0.0.0` for all of them.
    pub address: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether not both can be taken.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |address: &str| matches!(address, "0.0.0.0" | "::");
        self.protocol == other.protocol
            && self.port == other.port
            && (self.address == other.address || any(&self.address) || any(&other.address))
    }

    fn of_pod(spec: &PodSpec) -> Vec<Self> {
        let own_network = spec.host_network != Some(true);
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .flat_map(|c| c.ports.iter().flatten())
            .filter_map(|p| {
                let host = p.host_port.filter(|&port| port > 0);
                let address = p.host_ip.clone().filter(|a| !a.is_empty());
                Some(Self {
                    protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    address: address.unwrap_or_else(|| "0.0.0.0".to_owned()),
                    port: host.or((!own_network).then_some(p.container_port))?,
                })
            })
            .collect()
    }
}

/// Some pods, and what of a node says that it is near them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// The pods.
    pub set: PodSet,
    /// Nodes with the same value of this label are near one another.
    pub topology_key: String,
}

/// How evenly pods are to be spread
/// (<https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// Which pods, over what.
    pub term: Term,
    /// By how many a domain may have more than the one with the fewest.
    pub max_skew: i64,
    /// Domains that there are to be; with fewer, the fewest is none.
    pub min_domains: usize,
    /// Whether it must hold, rather than be preferred.
    pub required: bool,
    /// Whether the pod's own node affinity says which nodes count.
    pub honors_affinity: bool,
    /// Whether only nodes count whose taints the pod tolerates.
    pub honors_taints: bool,
}

/// A pod, and what it asks for.
#[derive(Debug)]
pub struct Demand {
    pod: Arc<Pod>,
    key: Key,
    /// The higher, the sooner; those with less may have to go.
    pub priority: i32,
    /// What it takes of a node's resources.
    pub requests: Amounts,
    /// CPU and memory, as scores count them.
    pub weighed: [i64; 2],
    /// Ports it takes of the node.
    pub host_ports: Vec<HostPort>,
    /// Pods it must be near to.
    pub affinity: Vec<Term>,
    /// Pods it must not be near to.
    pub anti_affinity: Vec<Term>,
    /// Pods it would rather be near to, or far from (less than 0).
    pub preferred: Vec<(i64, Term)>,
    /// How it is to be spread.
    pub spread: Vec<Constraint>,
    shape: OnceLock<Arc<str>>,
}

impl Demand {
    /// What `pod` asks for.
    pub fn of(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_ref().unwrap_or(&NO_SPEC);
        let labels = pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let term = |term: &PodAffinityTerm| Term {
            set: PodSet::of_term(term, namespace, labels),
            topology_key: term.topology_key.clone(),
        };
        let terms = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(term).collect();
        let weighted = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let weighted =
                |w: &WeightedPodAffinityTerm| (sign * i64::from(w.weight), term(&w.pod_affinity_term));
            terms.into_iter().flatten().map(weighted).collect::<Vec<_>>()
        };
        let constraint = |c: &TopologySpreadConstraint| Constraint {
            term: Term {
                set: PodSet::of_constraint(
                    c.label_selector.as_ref(),
                    c.match_label_keys.as_deref(),
                    namespace,
                    labels,
                ),
                topology_key: c.topology_key.clone(),
            },
            max_skew: c.max_skew.into(),
            min_domains: c.min_domains.and_then(|n| n.try_into().ok()).unwrap_or(1),
            required: c.when_unsatisfiable == "DoNotSchedule",
            honors_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        };
        let near = spec.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref());
        let far = spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
        let mut preferred =
            weighted(near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        preferred.extend(weighted(
            far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            -1,
        ));
        Self {
            key: Key::of(&*pod),
            priority: spec.priority.unwrap_or(0),
            requests: Amounts::of_pod(&pod),
            weighed: Amounts::weighed(&pod),
            host_ports: HostPort::of_pod(spec),
            affinity: terms(
                near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            anti_affinity: terms(
                far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred,
            spread: spec.topology_spread_constraints.iter().flatten().map(constraint).collect(),
            shape: OnceLock::new(),
            pod,
        }
    }

    /// The pod.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The pod's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The pod's specification; an empty one if it has none.
    pub fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    /// The pod's labels.
    pub fn labels(&self) -> &Labels {
        self.pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
    }

    /// Whether the pod is being deleted.
    pub fn is_leaving(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// The same for all pods that a node suits equally well by itself, whatever runs elsewhere.
    pub(super) fn shape(&self) -> &Arc<str> {
        self.shape.get_or_init(|| {
            let spec = self.spec();
            let images: Vec<_> = spec.containers.iter().map(|c| &c.image).collect();
            let ports: Vec<_> = self.host_ports.iter().map(|p| (&p.protocol, &p.address, p.port)).collect();
            let requests: Vec<_> = self.requests.iter().collect();
            let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
            json!([requests, self.weighed, ports, spec.node_selector, affinity, spec.tolerations, images])
                .to_string()
                .into()
        })
    }

    /// All pods that it has to do with, and by what they are near.
    pub(super) fn terms(&self) -> impl Iterator<Item = &Term> {
        let preferred = self.preferred.iter().map(|(_, term)| term);
        let spread = self.spread.iter().map(|constraint| &constraint.term);
        self.affinity.iter().chain(&self.anti_affinity).chain(preferred).chain(spread)
    }
}
