//! Pod networks: addresses ([`ipam`]), network namespaces ([`netns`]), a bridge that joins the pods of one node
//! ([`bridge`]), the way to the pods of other nodes ([`overlay`]),
//! plugins
//! ([`cni`]), and who may speak to whom ([`policy`]).
//!
//! Everything here may be interrupted at any point and called again: what is half made is completed or removed.

pub mod bridge;
pub mod cni;
mod error;
pub mod ipam;
pub mod netns;
pub mod overlay;
pub mod policy;
mod rtnl;
mod subnet;

pub use bridge::BridgeNetwork;
pub use error::{Error, Result};
pub use subnet::Subnet;
