//! A Kubernetes API server, a client and a controller framework to embed.

pub mod cache;
pub mod client;
pub mod clock;
pub mod controller;
pub mod controllers;
pub mod cx;
pub mod error;
#[cfg(feature = "http")]
pub mod http;
pub mod key;
pub mod manager;
pub mod planner;
pub mod queue;
pub mod reconciler;
pub mod recorder;
#[cfg(feature = "remote")]
mod remote;
pub mod request;
pub mod rng;
pub mod scheduler;
pub mod server;
pub mod storage;
pub mod stored;

pub use client::{Api, Client};
pub use controller::Controller;
pub use cx::Cx;
pub use error::ApiError;
pub use key::Key;
pub use manager::Manager;
pub use reconciler::{Action, Reconciler, reconcile_fn};
pub use request::{ApiRequest, ApiResponse};
pub use server::ApiServer;
pub use stored::Stored;
