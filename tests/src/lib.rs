//! End-to-end tests of minik8s on real nodes: what is tested here is what a user gets, from the manifest down to
//! the processes, through the programs that are shipped.
//!
//! A test binary is a [`Suite`]: it brings one [`Cluster`] up, runs its cases on it, several at once, each as a
//! [`Scene`] with a Kubernetes namespace of its own, looks whether the node is as it was before, and takes the cluster
//! down again. `cargo xtask test e2e` runs all of them; it needs root. For one case:
//!
//! ```text
//! cargo test --package minik8s-tests --test pods -- limits
//! ```
//!
//! `--list` names the cases, `--keep` leaves the cluster up for a look around, and `--cluster NAME` uses one that is
//! up already (`cargo xtask cluster-up --no-demo --name NAME`), which is the quick way while writing a case.

pub mod clients;
mod cluster;
mod container;
mod etcd;
mod node_state;
mod program;
mod scene;
mod suite;

pub use cluster::{Cluster, build, program};
pub use container::{Container, condition, container, exit_code, is_ready, restarts, waiting_reason};
pub use etcd::Etcd;
pub use node_state::NodeState;
pub use program::{Program, Ran};
pub use scene::{PATIENCE, Scene};
pub use suite::Suite;
