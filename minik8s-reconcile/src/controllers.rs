//! The built-in controllers. Each is a value to give to a [`crate::Manager`].

#[cfg(feature = "tls")]
pub mod bootstrap_tokens;
#[cfg(feature = "tls")]
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod custom_resources;
pub mod disruption;
pub mod events;
pub mod garbage_collector;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_garbage_collector;
pub mod resource_quota;
pub mod root_ca;
pub mod service_accounts;
pub mod taint_eviction;
