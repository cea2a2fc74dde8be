//! `minik8s up`: a cluster of one machine in one process.

use crate::args::Up;
use crate::{daemon, node, server};

/// Runs until a signal.
pub async fn run(args: Up) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let running = server::start(&args.server, &shutdown).await?;
    let identity = node::Identity::find(args.name, args.address)?;
    let agent = node::serve(identity, &args.options, running.server.client(), shutdown.clone());
    daemon::ready();
    let result = agent.await;
    // Without its agent there is no point in going on.
    shutdown.cancel();
    running.join().await;
    result
}
