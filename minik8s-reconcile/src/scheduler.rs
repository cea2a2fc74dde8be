//! Gives pods to nodes.
//!
//! The decision is a pure function: [`Profile::decide`] takes a pod and a [`Snapshot`] of the nodes and what is on them.
//! Filters say which nodes will do, scores say which of them is best, and a pod that fits nowhere is told why for each
//! node, in Kubernetes' words (<https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/>). A pod that is
//! more important than others may have them go ([`preempt`]).
//!
//! The snapshot is kept up to date change by change, and what a node is by itself to pods of one shape is remembered until
//! the node changes: a decision costs as much with 100 000 pods in the cluster as with none.

mod bind;
mod demand;
mod filter;
mod node_affinity;
mod plugin;
mod pod_affinity;
mod pod_set;
mod preempt;
mod profile;
mod queue;
mod resources;
mod run;
mod score;
mod snapshot;
mod spread;
pub(crate) mod taint;

pub use demand::{Constraint, Demand, HostPort, Term};
pub use plugin::{Against, Check, Filter, Rate, Score};
pub use pod_affinity::InterPodAffinity;
pub use pod_set::{Labels, PodSet};
pub use preempt::{Budget, Preemption, Room, preempt};
pub use profile::{Decision, Profile, Refusal};
pub use queue::{Change, FORGOTTEN, SchedulingQueue};
pub use resources::Amounts;
pub use run::{SCHEDULER_NAME, Scheduler};
pub use score::Packing;
pub use snapshot::{Carriers, NodeInfo, Snapshot, Tally, Topology};
pub use spread::PodTopologySpread;

#[cfg(test)]
mod tests;
