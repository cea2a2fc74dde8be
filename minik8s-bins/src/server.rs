//! `minik8s server`: API server, controllers and scheduler.

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
use crate::{daemon, identity};

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
    pub authority: Authority,
    serving: JoinHandle<()>,
    managing: JoinHandle<()>,
}

impl Running {
    /// Waits for the end, after a shutdown.
    pub async fn join(self) {
        for task in [self.serving, self.managing] {
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
    let tokens = Tokens::new(token::DEFAULT_ISSUER, identity::signing_key(&args.data_dir)?);
    let access = Union::of_cluster(storage.clone()).await?;
    let server = ApiServer::builder().authorizer(access).tokens(tokens).build(storage);
    server.bootstrap().await?;
    rbac::bootstrap(&server.client()).await?;
    let mut listeners = daemon::passed_on()?;
    for address in &args.listen {
        listeners
            .push(Listener::bind(*address).await.with_context(|| format!("cannot listen on {address}"))?);
    }
    let addresses = listeners.iter().map(Listener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let first = *addresses.first().context("there is nowhere to listen: give --listen ADDRESS:PORT")?;
    let authority = identity::authority(&args.data_dir)?;
    let tls = identity::server(&authority, &addresses, &args.tls_san)?;
    let kubeconfig = args.data_dir.join("admin.kubeconfig");
    identity::write_admin_kubeconfig(&authority, &kubeconfig, first)?;
    for address in addresses {
        tracing::info!(%address, kubeconfig = %kubeconfig.display(), "serving the Kubernetes API");
    }
    let listeners = listeners.into_iter().map(|listener| listener.tls(tls.clone())).collect();
    let frontend = Frontend::new(server.clone()).with_agent_tls(identity::agents(&authority)?);
    let serving = tokio::spawn(serve(frontend, listeners, shutdown.clone()));
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
        .task(|client, _, stop| controllers::garbage_collector::run(client, stop));
    let managing = tokio::spawn(manager.run(shutdown.clone()));
    tracing::info!(elapsed = ?began.elapsed(), "ready");
    Ok(Running { server, authority, serving, managing })
}

fn database(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("objects.redb")
}
