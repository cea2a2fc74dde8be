//! A sidecar service mesh on minik8s.
//!
//! This crate will hold the mesh's control plane (identities, routes, policies), the injection of sidecars and the
//! proxy that runs in them: mutual TLS, load balancing, retries, traffic splitting and telemetry.
