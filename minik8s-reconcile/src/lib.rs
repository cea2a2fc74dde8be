//! A Kubernetes API server, a client and a controller framework to embed.

pub mod client;
pub mod clock;
pub mod error;
#[cfg(feature = "http")]
pub mod http;
pub mod request;
pub mod rng;
pub mod server;
pub mod storage;
pub mod stored;

pub use client::{Api, Client};
pub use error::ApiError;
pub use request::{ApiRequest, ApiResponse};
pub use server::ApiServer;
pub use stored::Stored;
