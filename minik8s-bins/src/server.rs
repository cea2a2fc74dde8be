//! `minik8s server`: API server, controllers and scheduler.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use minik8s_reconcile::controllers::node_ipam::Blocks;
use minik8s_reconcile::http::{Frontend, Listener, serve};
use minik8s_reconcile::lease::{self, Election};
use minik8s_reconcile::pki::Authority;
use minik8s_reconcile::scheduler::Scheduler;
use minik8s_reconcile::server::authorizer::Union;
use minik8s_reconcile::server::rbac;
use minik8s_reconcile::server::token::{self, Tokens};
use minik8s_reconcile::{ApiServer, Client, Manager, controllers};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::{Server, StorageKind};
use crate::outages::Outages;
use crate::{audit, daemon, identity, storage};

/// Runs until a signal.
pub async fn run(args: Server) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let running = start(&args, &shutdown).await?;
    daemon::ready();
    running.join().await;
    Ok(())
}

/// A server that serves.
pub struct Running {
    pub server: ApiServer,
    pub authority: Arc<Authority>,
    tasks: [JoinHandle<()>; 3],
}

impl Running {
    /// Waits for the end, after a shutdown.
    pub async fn join(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the server failed");
            }
        }
    }
}

/// Opens the storage, listens, and starts the controllers.
pub async fn start(args: &Server, shutdown: &CancellationToken) -> anyhow::Result<Running> {
    let began = std::time::Instant::now();
    let pod_blocks = Blocks::new(args.cluster_cidr, args.node_cidr_mask_size)
        .context("--cluster-cidr with --node-cidr-mask-size")?;
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make {}", args.data_dir.display()))?;
    let storage = storage::open(args).await?;
    let authority = Arc::new(identity::authority(&args.data_dir)?);
    let tokens = Tokens::new(token::DEFAULT_ISSUER, identity::signing_key(&args.data_dir)?);
    let access = Union::of_cluster(storage.clone()).await?;
    let server = ApiServer::builder()
        .authorizer(access)
        .tokens(tokens)
        .default_tolerations(args.outages.tolerations())
        .build(storage);
    server.bootstrap().await?;
    if args.forget_authority {
        identity::forget_authority(&server.client()).await?;
    }
    identity::claim(&server.client(), &authority, &args.data_dir).await?;
    rbac::bootstrap(&server.client()).await?;
    let mut listeners = daemon::passed_on()?;
    for address in &args.listen {
        listeners
            .push(Listener::bind(*address).await.with_context(|| format!("cannot listen on {address}"))?);
    }
    let addresses = listeners.iter().map(Listener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let kubeconfig = args.data_dir.join("admin.kubeconfig");
    let shown = identity::Shown::issue(&authority, &addresses, &args.tls_san, kubeconfig.clone())?;
    let advertised = args.advertise.clone().unwrap_or_else(|| advertised(&addresses));
    let (tls, agents) = (shown.server()?, shown.agents()?);
    for address in addresses {
        tracing::info!(%address, kubeconfig = %kubeconfig.display(), "serving the Kubernetes API");
    }
    let listeners = listeners.into_iter().map(|listener| listener.tls(tls.clone())).collect();
    let mut frontend = args.limits.on(Frontend::new(server.clone()).with_agent_tls(agents));
    if let Some(audit) = audit::open(&args.audit)? {
        frontend = frontend.with_audit(audit);
    }
    let serving = tokio::spawn(serve(frontend, listeners, shutdown.clone()));
    let cluster_info = identity::cluster_info(&advertised, &authority);
    let parts =
        Parts { authority: authority.clone(), cluster_info, pod_blocks, outages: args.outages.clone() };
    let managing = match args.storage {
        StorageKind::Embedded => tokio::spawn(parts.manager(&server, server.client()).run(shutdown.clone())),
        StorageKind::Etcd => tokio::spawn(share(server.clone(), parts, shutdown.clone())),
    };
    let renewing = tokio::spawn(shown.keep(shutdown.clone()));
    tracing::info!(elapsed = ?began.elapsed(), "ready");
    Ok(Running { server, authority, tasks: [serving, managing, renewing] })
}

/// The URL that other machines are told: of an address that they may reach, if there is one.
fn advertised(addresses: &[SocketAddr]) -> String {
    let reachable = addresses.iter().find(|a| !a.ip().is_loopback()).or(addresses.first());
    match reachable {
        Some(any) if any.ip().is_unspecified() => {
            format!("https://{}", SocketAddr::new(crate::node::default_address(), any.port()))
        }
        Some(address) => format!("https://{address}"),
        None => String::new(),
    }
}

/// What the controllers need besides a server.
struct Parts {
    authority: Arc<Authority>,
    cluster_info: String,
    pod_blocks: Blocks,
    outages: Outages,
}

impl Parts {
    /// The controllers of a cluster, working through `client`.
    fn manager(&self, server: &ApiServer, client: Client) -> Manager {
        let (registry, cluster_info) = (server.registry(), self.cluster_info.clone());
        let clock = server.clock().clone();
        let lifecycle = self.outages.node_lifecycle();
        let (collect, its_clock) = (self.outages.pod_garbage_collector(), clock.clone());
        Manager::new(client)
            .clock(clock.clone())
            .scheduler(Scheduler::default())
            .controller(controllers::namespace::controller())
            .controller(controllers::cluster_role_aggregation::controller(&registry))
            .controller(controllers::custom_resources::controller())
            .controller(controllers::disruption::controller(&registry))
            .controller(controllers::events::controller())
            .controller(controllers::node_ipam::controller(&registry, self.pod_blocks))
            .controller(controllers::node_lifecycle::controller(&registry, clock.clone(), lifecycle))
            .controller(controllers::node_lifecycle::readiness(&registry))
            .controller(controllers::taint_eviction::controller(&registry))
            .controller(controllers::resource_quota::controller(server.kinds().clone()))
            .controller(controllers::root_ca::controller(&registry, self.authority.certificate()))
            .controller(controllers::service_accounts::controller(&registry))
            .controller(controllers::certificates::approver())
            .controller(controllers::certificates::signer(&registry, self.authority.clone()))
            .controller(controllers::certificates::cleaner(&registry))
            .task(move |client, caches, stop| {
                controllers::pod_garbage_collector::run(client, &caches, its_clock, collect, stop)
            })
            .task(|client, _, stop| controllers::bootstrap_tokens::run(client, clock, cluster_info, stop))
            .task(|client, _, stop| controllers::garbage_collector::run(client, stop))
    }
}

/// What several servers on one storage have to do for one another: notice each other's definitions, and leave the
/// controllers to one of them.
async fn share(server: ApiServer, parts: Parts, shutdown: CancellationToken) {
    let host = nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
    let identity = format!("{host}_{:016x}", server.rng().below(u64::MAX));
    let election = Election::new("kube-system", "minik8s-controllers", &identity);
    let follow = server.follow_definitions(shutdown.clone());
    let lead = lease::lead(&server, &election, shutdown, |term| {
        parts.manager(&term.server, term.client).run(term.ended)
    });
    tokio::join!(follow, lead);
}
