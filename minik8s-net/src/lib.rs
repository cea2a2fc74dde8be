//! Pod networks: addresses ([`ipam`]), network namespaces ([`netns`]), and a bridge that joins the pods of one node
//! ([`bridge`]).
//!
//! Everything here may be interrupted at any point and called again: what is half made is completed or removed.

pub mod bridge;
mod error;
pub mod ipam;
pub mod netns;
mod rtnl;
mod subnet;

pub use bridge::BridgeNetwork;
pub use error::{Error, Result};
pub use subnet::Subnet;
