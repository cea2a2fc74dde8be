//! Pods on a node: the seams to the operating system, a deterministic fake of them, and the containerd
//! implementation.

pub mod agent;
pub mod cgroup;
pub mod containerd;
pub mod fake;
pub mod runtime;
pub mod spec;
pub mod streaming;

pub use runtime::{ContainerRuntime, ImageStore, PodNetwork, RuntimeError};
