//! `minik8s node`: the agent of a machine.

mod join;
mod leave;
mod manifest;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use minik8s_net::cni::{ChainConfig, ChainNetwork};
use minik8s_reconcile::http::tls;
use minik8s_reconcile::{Client, pki};
use minik8s_runtime::agent::{Agent, AgentConfig};
use minik8s_runtime::containerd::{Config, Containerd};
use minik8s_runtime::runtime::PodNetwork;
use minik8s_runtime::streaming::StreamingServer;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::{Node, NodeCommand, NodeOptions, NodeRun};
use crate::daemon;
use crate::identity::{self, Member};
use crate::network::{Keeper, Plugins, Settings, enforce};
use manifest::Manifest;

/// How long to wait between attempts to reach containerd.
const RETRY: Duration = Duration::from_millis(100);

/// Where a machine that joined has its kubeconfig.
fn kubeconfig_of(node_dir: &Path) -> PathBuf {
    node_dir.join("kubeconfig")
}

/// Where a machine that joined has the manifest with which it did.
fn manifest_of(node_dir: &Path) -> PathBuf {
    node_dir.join("node.yaml")
}

/// Where a node has the certificate that it shows to those it serves.
fn serving_of(node_dir: &Path) -> PathBuf {
    node_dir.join("serving.pem")
}

/// Joins or leaves, if that is asked for, and runs until a signal.
pub async fn run(args: Node) -> anyhow::Result<()> {
    match args.command {
        None => run_agent(args.run).await,
        Some(NodeCommand::Join(join)) => {
            join::join(&join).await?;
            if join.no_run { Ok(()) } else { run_agent(join.run).await }
        }
        Some(NodeCommand::Leave(leave)) => leave::leave(leave.run).await,
    }
}

async fn run_agent(args: NodeRun) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let dir = &args.options.node_dir;
    let member = Member::read(&kubeconfig(&args)?).await?;
    let manifest = Some(manifest_of(dir)).filter(|path| path.exists());
    let manifest = manifest.map(|path| Manifest::read(&path)).transpose()?;
    let identity = Identity::find(Some(name(args.name, member.node(), manifest.as_ref())?), args.address)?;
    let hosts = vec![identity.name.clone(), identity.address.to_string()];
    let store = serving_of(dir);
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let shown = member.serving(&store, &hosts)?;
    let tls = tls::server_config(shown.clone(), member.roots())?;
    let client = member.client()?;
    let keeping = tokio::spawn(member.keep(client.clone(), shown, store, hosts, shutdown.clone()));
    let agent = serve(identity, &args.options, manifest.as_ref(), client, tls, shutdown);
    daemon::ready();
    let result = agent.await;
    keeping.await?;
    result
}

/// Where the agent finds out who it is.
fn kubeconfig(args: &NodeRun) -> anyhow::Result<PathBuf> {
    let joined = kubeconfig_of(&args.options.node_dir);
    let named = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    let found = args.server_kubeconfig.clone().or_else(|| joined.exists().then(|| joined.clone())).or(named);
    found.with_context(|| {
        format!(
            "this machine has not joined a cluster (there is no {}): join one with `minik8s node join`, or give \
             --server-kubeconfig FILE",
            joined.display()
        )
    })
}

/// What the node is called: as it is said, else as its certificate or its manifest says, else as the machine.
fn name(
    said: Option<String>,
    certificate: Option<String>,
    manifest: Option<&Manifest>,
) -> anyhow::Result<String> {
    let in_manifest = manifest.and_then(Manifest::name).map(ToOwned::to_owned);
    if let (Some(said), Some(other)) = (&said, certificate.as_ref().or(in_manifest.as_ref())) {
        let whose = if certificate.is_some() { "certificate" } else { "manifest" };
        anyhow::ensure!(said == other, "--name {said}: the node's {whose} says {other}");
    }
    said.or(certificate).or(in_manifest).map_or_else(Identity::host_name, Ok)
}

/// What a node is called and where it is.
pub struct Identity {
    pub name: String,
    pub address: IpAddr,
}

impl Identity {
    fn host_name() -> anyhow::Result<String> {
        let host = nix::unistd::gethostname().context("cannot tell the host name; give --name")?;
        Ok(host.to_string_lossy().to_lowercase())
    }

    /// Takes what is given and finds out the rest.
    pub fn find(name: Option<String>, address: Option<IpAddr>) -> anyhow::Result<Self> {
        let name = name.map_or_else(Self::host_name, Ok)?;
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
    manifest: Option<&Manifest>,
    client: Client,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = SocketAddr::new(identity.address, options.port);
    let (agent, runtime, following) = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        agent = agent(identity, options, manifest, client, &shutdown) => agent?,
    };
    // Nobody but the API server has business here; it has asked what its clients may do.
    let allowed = |certificate: &CertificateDer<'_>| {
        pki::holder(certificate).is_some_and(|user| &*user.name == identity::API_SERVER)
    };
    let streaming = StreamingServer::new(agent.handle(), runtime).tls(tls, allowed);
    let streaming = tokio::spawn(streaming.serve(address, shutdown.clone()));
    agent.run(shutdown.clone().cancelled_owned()).await;
    shutdown.cancel();
    if let Some(following) = following {
        following.await?;
    }
    streaming.await?.with_context(|| format!("cannot listen on {address}"))
}

/// The agent, what it runs containers with, and what follows the other nodes until `shutdown`. Waits for containerd.
async fn agent(
    identity: Identity,
    options: &NodeOptions,
    manifest: Option<&Manifest>,
    client: Client,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Agent, Arc<Containerd>, Option<JoinHandle<()>>)> {
    let program = log_program().context("cannot tell where this program is")?;
    let runtime = Arc::new(connect(options, &program).await);
    let (pods, following) =
        network(&identity, options, &client, shutdown).await.context("cannot set up the pod network")?;
    let mut config = AgentConfig::default();
    config.addresses = vec![identity.address];
    config.cluster_dns.clone_from(&options.cluster_dns);
    config.pods_dir = options.node_dir.join("pods");
    config.logs_dir.clone_from(&options.log_dir);
    config.port = options.port;
    config.lease_duration = options.lease_duration;
    if let Some(manifest) = manifest {
        manifest.configure(&mut config);
    }
    let agent = Agent::new(identity.name, client, runtime.clone(), runtime.clone(), pods, config);
    Ok((agent, runtime, following))
}

/// The network of the node's pods, and what follows the other nodes: ours, or that of plugins.
async fn network(
    identity: &Identity,
    options: &NodeOptions,
    client: &Client,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Arc<dyn PodNetwork>, Option<JoinHandle<()>>)> {
    if let Some(conf_dir) = &options.cni_conf_dir {
        let mut config = ChainConfig::new(conf_dir, options.node_dir.join("cni"));
        config.bin_dirs.clone_from(&options.cni_bin_dir);
        return Ok((Arc::new(Plugins(ChainNetwork::open(config)?)), None));
    }
    std::fs::create_dir_all(&options.node_dir)?;
    let settings = Settings {
        node: identity.name.clone(),
        address: identity.address,
        backend: options.network_backend,
        vxlan_port: options.vxlan_port,
        dir: options.node_dir.clone(),
    };
    let keeper = Keeper::open(settings, client.clone()).await?;
    let pods = keeper.network();
    let enforcing =
        options.network_policy.then(|| enforce(identity.name.clone(), client.clone(), shutdown.clone()));
    let keeping = keeper.run(shutdown.clone());
    let following = tokio::spawn(async {
        tokio::join!(keeping, async {
            if let Some(enforcing) = enforcing {
                enforcing.await;
            }
        });
    });
    Ok((pods, Some(following)))
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
