//! A Kubernetes API server, a client and a controller framework to embed.

pub mod client;
pub mod error;
pub mod request;
pub mod storage;
pub mod stored;

pub use client::{Api, Client};
pub use error::ApiError;
pub use request::{ApiRequest, ApiResponse};
pub use stored::Stored;
