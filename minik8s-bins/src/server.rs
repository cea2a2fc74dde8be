//! `minik8s server`: API server, controllers and scheduler.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use minik8s_reconcile::http::{Frontend, Listener, serve};
use minik8s_reconcile::pki::Authority;
use minik8s_reconcile::server::authorizer::Union;
use minik8s_reconcile::server::rbac;
use minik8s_reconcile::server::token::{self, Tokens};
use minik8s_reconcile::storage::Storage;
use minik8s_reconcile::storage::embedded::EmbeddedStorage;
use minik8s_reconcile::{ApiServer, Manager, controllers, scheduler};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::Server;
use crate::{audit, daemon, identity};

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
    let storage = EmbeddedStorage::open(database(&args.data_dir))
        .with_context(|| format!("cannot open the data in {}", args.data_dir.display()))?;
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let authority = Arc::new(identity::authority(&args.data_dir)?);
    let tokens = Tokens::new(token::DEFAULT_ISSUER, identity::signing_key(&args.data_dir)?);
    let access = Union::of_cluster(storage.clone()).await?;
    let server = ApiServer::builder().authorizer(access).tokens(tokens).build(storage);
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
    let manager = Manager::new(server.client())
        .controller(scheduler::controller())
        .controller(controllers::namespace::controller())
        .controller(controllers::cluster_role_aggregation::controller(&server.registry()))
        .controller(controllers::custom_resources::controller())
        .controller(controllers::disruption::controller(&server.registry()))
        .controller(controllers::events::controller())
        .controller(controllers::resource_quota::controller(server.kinds().clone()))
        .controller(controllers::root_ca::controller(&server.registry(), authority.certificate()))
        .controller(controllers::service_accounts::controller(&server.registry()))
        .controller(controllers::certificates::approver())
        .controller(controllers::certificates::signer(&server.registry(), authority.clone()))
        .controller(controllers::certificates::cleaner(&server.registry()))
        .task(|client, _, stop| controllers::bootstrap_tokens::run(client, cluster_info, stop))
        .task(|client, _, stop| controllers::garbage_collector::run(client, stop));
    let managing = tokio::spawn(manager.run(shutdown.clone()));
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

fn database(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("objects.redb")
}
