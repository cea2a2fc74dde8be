//! What the benchmarks share: a bare HTTP client, API servers to point it at, an etcd, percentiles, and processes' memory and
//! CPU time. README.md says how to run them.

pub mod etcd;
pub mod http_client;
pub mod numbers;
pub mod process;
pub mod report;
pub mod server;
pub mod target;
