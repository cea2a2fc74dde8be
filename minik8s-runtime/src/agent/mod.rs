//! The node agent: runs the pods that are bound to its node.
//!
//! [`Agent`] watches the pods of one node and gives each one a worker: a task around a state machine that decides
//! (`pod_fsm`) and calls at the seams of [`crate::runtime`] that act. What must survive the agent lives with the
//! containers, so that an agent which starts anew adopts what runs, and one that ends leaves it running. While the
//! server is away nothing is ended and nothing is forgotten: only a complete list of the node's pods, fresh from the
//! server, makes the agent remove what is not on it.
//!
//! Not there yet: image garbage collection, eviction under pressure, enforcement of an on-disk `emptyDir`'s
//! `sizeLimit`, `hostPort` (a pod whose port another on the node has is refused, but nothing listens on the node's
//! address for it unless the pod is on the node's network), service environment variables beyond [`AgentConfig::service_env`], CSI volumes.

mod admission;
mod config;
mod container_spec;
mod context;
mod directory;
mod downward;
mod env;
mod events;
mod garbage;
mod heartbeat;
mod image_pull;
mod logs;
mod machine;
mod manager;
mod node;
mod pod_fsm;
mod pods;
mod probe;
mod qos;
mod sources;
mod status;
mod termination;
mod volumes;
mod worker;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use minik8s_reconcile::Client;

pub use config::AgentConfig;
pub use directory::{AgentHandle, AttemptInfo, ContainerInfo, PodInfo};

use crate::runtime::{ContainerRuntime, ImageStore, PodNetwork};
use context::Context;
use manager::Manager;

/// The agent of one node.
///
/// ```no_run
/// # async fn f(client: minik8s_reconcile::Client) {
/// use std::sync::Arc;
/// use minik8s_runtime::agent::{Agent, AgentConfig};
/// use minik8s_runtime::fake::Fake;
///
/// let node = Arc::new(Fake::new());
/// let agent = Agent::new("n1", client, node.clone(), node.clone(), node, AgentConfig::default());
/// let pods = agent.handle();
/// agent.run(async { tokio::signal::ctrl_c().await.unwrap() }).await;
/// # }
/// ```
pub struct Agent {
    ctx: Arc<Context>,
    writer: events::EventWriter,
}

impl Agent {
    /// An agent for the node `node_name`. The machine is measured now, where `config` does not say what it has.
    pub fn new(
        node_name: impl Into<String>,
        client: Client,
        runtime: Arc<dyn ContainerRuntime>,
        images: Arc<dyn ImageStore>,
        network: Arc<dyn PodNetwork>,
        config: AgentConfig,
    ) -> Self {
        let node_name = node_name.into();
        let client = client.field_manager("minik8s-node");
        let (events, writer) = events::events(client.clone(), node_name.clone());
        let ctx = Context::new(node_name, client, runtime, images, network, config, events);
        Self { ctx: Arc::new(ctx), writer }
    }

    /// A view of the node's pods, for servers of logs, exec, attach and port-forward.
    pub fn handle(&self) -> AgentHandle {
        AgentHandle { directory: self.ctx.directory.clone() }
    }

    /// Runs the node's pods until `shutdown` resolves. Containers are left running; the next agent adopts them.
    ///
    /// Registers the node, renews its lease in `kube-node-lease` and keeps its status up to date meanwhile.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let writer = tokio::spawn(self.writer.run());
        Manager::new(self.ctx).run(shutdown).await;
        writer.abort();
    }
}

impl Agent {
    /// Ends all pods of the node, each with its grace period, and removes what they have left: for a machine that is to be a
    /// node no longer. No agent may run beside it. The server is neither asked nor told.
    ///
    /// # Cancel safety
    /// What has been ended stays so; the next call goes on with the rest.
    pub async fn clear(self) {
        Manager::new(self.ctx).clear().await;
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("node", &self.ctx.node_name).finish_non_exhaustive()
    }
}
