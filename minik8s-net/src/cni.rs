//! The Container Network Interface (<https://www.cni.dev/docs/spec/>), from both sides: [`plugin`] puts a container on the
//! node's bridge for any runtime that calls plugins, [`chain`] calls plugins, and [`ChainNetwork`] is a node's network made by
//! them.

pub mod chain;
mod config;
mod error;
mod network;
pub mod plugin;
#[cfg(test)]
mod tests;

pub use config::{Call, Command};
pub use error::{CniError, code};
pub use network::{ChainConfig, ChainNetwork, Pod};

/// The versions of the interface that are spoken, oldest first.
pub const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];
