//! Defaulting: what the API fills in where an object does not say, and what it sets on new objects.

pub mod autoscaling;
pub mod batch;
pub mod cluster;
pub mod limits;
pub mod network;
pub mod pod;
pub mod service;
pub mod small;
pub mod storage;
mod volume;
pub mod workload;

/// Fills in a field that was left out. An empty text counts as left out, as it does for Kubernetes.
fn set(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}
