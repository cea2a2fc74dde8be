//! The node's sign of life: a Lease that it renews
//! (<https://kubernetes.io/docs/concepts/architecture/leases/#node-heart-beats>).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use minik8s_reconcile::{ApiError, Client};
use tokio::time::{Instant, timeout};

use super::context::Context;

const LEASES: &str = "kube-node-lease";
/// A renewal that failed is tried again after that, or sooner.
const RETRY: Duration = Duration::from_secs(1);

/// Renews the node's lease for ever, and tells the agent when the server may have given the node up meanwhile.
pub(crate) async fn beat(ctx: Arc<Context>) {
    let duration = ctx.config.lease_duration;
    let period = duration / 4;
    let mut held: Option<Arc<Lease>> = None;
    let mut last = Instant::now();
    let mut told = false;
    loop {
        let began = Instant::now();
        // An answer that comes later than that is none: the connection may be dead.
        let error = match timeout(duration / 2, renew(&ctx, held.take())).await {
            Ok(Ok(lease)) => {
                held = Some(lease);
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the server does not answer".to_owned()),
        };
        let pause = match error {
            None => {
                if last.elapsed() >= duration {
                    tracing::info!(silent = ?last.elapsed(), "the server hears of this node again");
                    ctx.returned.tell();
                }
                (last, told) = (Instant::now(), false);
                period
            }
            Some(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("the node's lease cannot be renewed: {error}");
                }
                period.min(RETRY)
            }
        };
        tokio::time::sleep_until(began + pause).await;
    }
}

/// Renews the lease; without `held`, which is how the server had it last, that is looked up first.
async fn renew(ctx: &Context, held: Option<Arc<Lease>>) -> Result<Arc<Lease>, ApiError> {
    let api = ctx.client.namespaced::<Lease>(LEASES);
    if let Some(held) = held {
        match api.update(&renewed(ctx, &held)).await {
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            answer => return answer,
        }
    }
    match api.get_opt(&ctx.node_name).await? {
        Some(known) => api.update(&renewed(ctx, &known)).await,
        None => {
            let lease = renewed(ctx, &fresh(ctx).await?);
            match api.create(&lease).await {
                Err(error) if error.is_not_found() => {
                    make_namespace(&ctx.client).await?;
                    api.create(&lease).await
                }
                answer => answer,
            }
        }
    }
}

fn renewed(ctx: &Context, lease: &Lease) -> Lease {
    let mut lease = lease.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(ctx.node_name.clone());
    spec.lease_duration_seconds =
        Some(i32::try_from(ctx.config.lease_duration.as_secs()).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(ctx.config.clock.now()));
    lease
}

/// A lease that goes with its node.
async fn fresh(ctx: &Context) -> Result<Lease, ApiError> {
    let node = ctx.client.all::<Node>().get_opt(&ctx.node_name).await?;
    let owner = node.and_then(|n| n.metadata.uid.clone()).map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: ctx.node_name.clone(),
        uid,
        ..OwnerReference::default()
    });
    Ok(Lease {
        metadata: ObjectMeta {
            name: Some(ctx.node_name.clone()),
            namespace: Some(LEASES.to_owned()),
            owner_references: owner.map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec::default()),
    })
}

async fn make_namespace(client: &Client) -> Result<(), ApiError> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(LEASES.to_owned());
    match client.all::<Namespace>().create(&namespace).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}
