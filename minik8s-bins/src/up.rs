//! `minik8s up`: a cluster of one machine in one process.

use minik8s_reconcile::pki::NODES;
use minik8s_reconcile::request::User;

use crate::args::Up;
use crate::{daemon, identity, node, server};

/// Runs until a signal.
pub async fn run(args: Up) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let running = server::start(&args.server, &shutdown).await?;
    let node = node::Identity::find(args.name, args.address)?;
    let tls = identity::agent(&running.authority, &node.name, node.address, shutdown.clone())?;
    // The agent has a node's rights here, too.
    let user = User::authenticated(&identity::node_user(&node.name), vec![NODES.to_owned()]);
    let client = running.server.client().user(user);
    let agent = node::serve(node, &args.options, None, client, tls, shutdown.clone());
    daemon::ready();
    let result = agent.await;
    // Without its agent there is no point in going on.
    shutdown.cancel();
    running.join().await;
    result
}
