//! A Kubernetes API server, a client and a controller framework, to embed.
//!
//! Start a server in this process, over a storage in memory or in a file:
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use minik8s_reconcile::ApiServer;
//! use minik8s_reconcile::storage::memory::MemoryStorage;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), minik8s_reconcile::ApiError> {
//! let server = ApiServer::new(MemoryStorage::new());
//! server.bootstrap().await?;
//! let configs = server.client().namespaced::<ConfigMap>("default");
//!
//! let mut config = ConfigMap::default();
//! config.metadata.name = Some("hello".to_owned());
//! let made = configs.create(&config).await?;
//! assert!(made.metadata.uid.is_some());
//! assert!(configs.create(&config).await.is_err_and(|e| e.is_already_exists()));
//! # Ok(())
//! # }
//! ```
//!
//! - [`ApiServer`] is Kubernetes' API: CRUD, patches, watches, over any [`storage::Storage`].
//! - [`Client`] talks to a server, wherever it is.
//! - [`Manager`] runs [`Controller`]s: [`Reconciler`]s with shared [`cache`]s and a work [`queue`].
//! - [`controllers`] and [`scheduler`] are those that every cluster has.
#![cfg_attr(
    feature = "http",
    doc = "- [`http`] puts a server on the network; `kube::Client` takes an [`http::Frontend`] as it is."
)]
//!
//! # Features
//! `embedded` (default): the durable storage. `http` (default): the HTTP face. `tls`: certificates for it. `remote`: a [`Client`] of another
//! process, on `kube-client`. `conformance`: the suite that storages are tested with. `sim`: the simulator, for tests. The framework alone needs none.

pub mod cache;
pub mod client;
pub mod clock;
pub mod controller;
pub mod controllers;
pub mod cx;
pub mod error;
pub mod fairness;
#[cfg(feature = "http")]
pub mod http;
mod json_text;
pub mod key;
pub mod kinds;
pub mod lease;
pub mod manager;
#[cfg(feature = "tls")]
pub mod pki;
mod placement;
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
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod storage;
pub mod stored;

pub use client::{Api, Client};
pub use controller::Controller;
pub use cx::Cx;
pub use error::ApiError;
pub use key::Key;
pub use kinds::Kinds;
pub use manager::Manager;
pub use reconciler::{Action, Reconciler, reconcile_fn};
#[cfg(feature = "remote")]
pub use remote::Connection;
pub use request::{ApiRequest, ApiResponse};
pub use server::ApiServer;
pub use stored::Stored;
