//! `minik8s node`: the agent of a machine.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use minik8s_api::Registry;
use minik8s_net::bridge::{BridgeConfig, BridgeNetwork};
use minik8s_reconcile::{Client, pki};
use minik8s_runtime::agent::{Agent, AgentConfig};
use minik8s_runtime::containerd::{Config, Containerd};
use minik8s_runtime::streaming::StreamingServer;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::args::{Node, NodeOptions};
use crate::daemon;
use crate::identity::{self, Member};
use crate::network::Bridge;

/// How long to wait between attempts to reach containerd.
const RETRY: Duration = Duration::from_millis(100);

/// Runs until a signal.
pub async fn run(args: Node) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let identity = Identity::find(args.name, args.address)?;
    let Member { config, serving } = Member::read(args.server_kubeconfig.as_deref()).await?;
    let client = Client::remote(kube::Client::try_from(config)?, Arc::new(Registry::builtin()));
    let agent = serve(identity, &args.options, client, serving, shutdown);
    daemon::ready();
    agent.await
}

/// What a node is called and where it is.
pub struct Identity {
    pub name: String,
    pub address: IpAddr,
}

impl Identity {
    /// Takes what is given and finds out the rest.
    pub fn find(name: Option<String>, address: Option<IpAddr>) -> anyhow::Result<Self> {
        let name = match name {
            Some(name) => name,
            None => {
                let host = nix::unistd::gethostname().context("cannot tell the host name; give --name")?;
                host.to_string_lossy().to_lowercase()
            }
        };
        Ok(Self { name, address: address.unwrap_or_else(default_address) })
    }
}

/// The address of the default route; loopback without one. Nothing is sent.
pub fn default_address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // An address of documentation: it is only asked which way it would be.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    };
    probe().map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
}

/// Runs the agent until `shutdown`. Containers live on.
pub async fn serve(
    identity: Identity,
    options: &NodeOptions,
    client: Client,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let program = log_program().context("cannot tell where this program is")?;
    let runtime = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        runtime = connect(options, &program) => Arc::new(runtime),
    };
    let subnet = options.pod_cidr.parse().with_context(|| format!("--pod-cidr {}", options.pod_cidr))?;
    let network = BridgeNetwork::open(BridgeConfig::new(subnet, options.node_dir.join("network")))
        .await
        .context("cannot set up the pod network")?;
    let mut config = AgentConfig::default();
    config.addresses = vec![identity.address];
    config.cluster_dns.clone_from(&options.cluster_dns);
    config.pods_dir = options.node_dir.join("pods");
    config.logs_dir.clone_from(&options.log_dir);
    config.port = options.port;
    let agent = Agent::new(
        identity.name,
        client,
        runtime.clone(),
        runtime.clone(),
        Arc::new(Bridge(network)),
        config,
    );
    // Nobody but the API server has business here; it has asked what its clients may do.
    let allowed = |certificate: &CertificateDer<'_>| {
        pki::holder(certificate).is_some_and(|user| &*user.name == identity::API_SERVER)
    };
    let streaming = StreamingServer::new(agent.handle(), runtime).tls(tls, allowed);
    let address = SocketAddr::new(identity.address, options.port);
    let streaming = tokio::spawn(streaming.serve(address, shutdown.clone()));
    agent.run(shutdown.clone().cancelled_owned()).await;
    shutdown.cancel();
    streaming.await?.with_context(|| format!("cannot listen on {address}"))
}

/// The program that writes containers' logs: the small one beside this one, or else this one.
fn log_program() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let small = own.with_file_name("minik8s-log");
    Ok(if small.exists() { small } else { own })
}

/// Waits for containerd, which may start at the same time as this.
async fn connect(options: &NodeOptions, program: &Path) -> Containerd {
    let mut told = false;
    loop {
        let config = Config::new(options.node_dir.join("containerd"), program);
        match Containerd::connect(&options.containerd, config).await {
            Ok(runtime) => return runtime,
            Err(error) => {
                if !told {
                    tracing::warn!(socket = %options.containerd.display(), %error, "waiting for containerd");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
