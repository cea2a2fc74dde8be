//! What `minik8s server` takes from its clients, as its command line says.

use clap::Args;
use minik8s_reconcile::fairness::Fairness;
use minik8s_reconcile::http::{Frontend, Limits};
use nix::sys::resource::{Resource, getrlimit};

/// How much clients may take.
#[derive(Clone, Debug, Args)]
pub struct ClientLimits {
    /// The most requests that are answered at once; clients take turns, and one has at most a quarter.
    #[arg(long, default_value_t = 400, value_name = "COUNT", help_heading = "Limits")]
    pub max_requests_inflight: usize,
    /// The most connections; for one more, idle ones are closed [default: 16384, or what open files allow].
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub max_connections: Option<usize>,
    /// The most connections from one address.
    #[arg(long, default_value_t = 4096, value_name = "COUNT", help_heading = "Limits")]
    pub max_connections_per_address: usize,
    /// The most requests at once on one connection of HTTP/2.
    #[arg(long, default_value_t = 250, value_name = "COUNT", help_heading = "Limits")]
    pub http2_max_streams_per_connection: u32,
    /// The largest body of a request, in bytes.
    #[arg(long, default_value_t = 3 * 1024 * 1024, value_name = "BYTES", help_heading = "Limits")]
    pub max_request_bytes: usize,
}

impl ClientLimits {
    /// The frontend, within these limits.
    pub fn on(&self, frontend: Frontend) -> Frontend {
        let limits = Limits::default()
            .connections(self.max_connections.unwrap_or_else(connections))
            .connections_per_address(self.max_connections_per_address)
            .streams(self.http2_max_streams_per_connection)
            .body(self.max_request_bytes);
        frontend.with_limits(limits).with_fairness(Fairness::new(self.max_requests_inflight))
    }
}

/// As many connections as leave a quarter of the open files for all else.
fn connections() -> usize {
    const MOST: u64 = 16_384;
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from((files / 4 * 3).clamp(64, MOST)).expect("it is small")
}
