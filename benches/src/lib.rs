//! What the benchmarks share: a bare HTTP client, percentiles, and a process's memory and CPU time.
//!
//! - `cargo bench -p minik8s-benches --bench api`: an API server alone, over HTTP with durable writes. With
//!   `API_URL=http://HOST:PORT` it measures that server instead (any Kubernetes API server will do).
//! - `cargo bench -p minik8s-benches --bench pods`: pods on a node, beside what containerd needs for the same
//!   containers. Needs root and a cluster: `cargo xtask cluster-up --release`.

pub mod http_client;
pub mod numbers;
pub mod process;
