//! `minik8s server`: API server, controllers and scheduler.

use anyhow::Context;
use minik8s_reconcile::http::{Frontend, Listener, serve};
use minik8s_reconcile::lease::{self, Election};
use minik8s_reconcile::pki::Authority;
use minik8s_reconcile::server::authorizer::Union;
use minik8s_reconcile::server::rbac;
use minik8s_reconcile::server::token::{self, Tokens};
use minik8s_reconcile::{ApiServer, Client, Manager, controllers, scheduler};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::{Server, StorageKind};
use crate::{daemon, identity, storage};

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
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make {}", args.data_dir.display()))?;
    let storage = storage::open(args).await?;
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
    let managing = match args.storage {
        StorageKind::Embedded => {
            tokio::spawn(manager(&server, server.client(), authority.certificate()).run(shutdown.clone()))
        }
        StorageKind::Etcd => {
            tokio::spawn(share(server.clone(), authority.certificate().to_owned(), shutdown.clone()))
        }
    };
    tracing::info!(elapsed = ?began.elapsed(), "ready");
    Ok(Running { server, authority, serving, managing })
}

/// What the controllers of a cluster are, working through `client`.
fn manager(server: &ApiServer, client: Client, ca: &str) -> Manager {
    let registry = server.registry();
    Manager::new(client)
        .controller(scheduler::controller())
        .controller(controllers::namespace::controller())
        .controller(controllers::cluster_role_aggregation::controller(&registry))
        .controller(controllers::custom_resources::controller())
        .controller(controllers::disruption::controller(&registry))
        .controller(controllers::events::controller())
        .controller(controllers::root_ca::controller(&registry, ca))
        .controller(controllers::service_accounts::controller(&registry))
        .task(|client, _, stop| controllers::garbage_collector::run(client, stop))
}

/// What several servers on one storage have to do for one another: notice each other's definitions, and leave the
/// controllers to one of them.
async fn share(server: ApiServer, ca: String, shutdown: CancellationToken) {
    let host = nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
    let identity = format!("{host}_{:016x}", server.rng().below(u64::MAX));
    let election = Election::new("kube-system", "minik8s-controllers", &identity);
    let follow = server.follow_definitions(shutdown.clone());
    let lead = lease::lead(&server, &election, shutdown, |term| {
        manager(&term.server, term.client, &ca).run(term.ended)
    });
    tokio::join!(follow, lead);
}
