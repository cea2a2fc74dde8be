//! `minik8s node leave`: a node becomes a machine.
//!
//! Its pods are ended and what they have left is removed; then it forgets the cluster. A node may not delete its own Node:
//! that is for somebody who may administrate the cluster, and until then its pods count as its own.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use minik8s_reconcile::request::DeleteParams;
use minik8s_reconcile::server::node::LEASES;
use minik8s_reconcile::{ApiError, Client};
use tokio_util::sync::CancellationToken;

use super::manifest::Manifest;
use super::{Identity, kubeconfig_of, manifest_of, name, serving_of};
use crate::args::NodeRun;
use crate::cli::note;
use crate::identity::Member;
use crate::network;

/// Leaves.
pub async fn leave(args: NodeRun) -> anyhow::Result<()> {
    let dir = &args.options.node_dir;
    let kubeconfig = kubeconfig_of(dir);
    ensure!(
        kubeconfig.exists(),
        "this machine has not joined a cluster (there is no {}): there is nothing to leave",
        kubeconfig.display()
    );
    let port = args.options.port;
    let taken =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err_and(|e| e.kind() == ErrorKind::AddrInUse);
    ensure!(
        port == 0 || !taken,
        "the agent of this node runs (something listens on port {port}): stop it first, such as with \
         `systemctl stop minik8s-node`"
    );
    let member = Member::read(&kubeconfig).await?;
    let manifest = Some(manifest_of(dir)).filter(|path| path.exists());
    let manifest = manifest.map(|path| Manifest::read(&path)).transpose()?;
    let name = name(args.name, member.node(), manifest.as_ref())?;
    let client = member.client()?;
    let identity = Identity::find(Some(name.clone()), args.address)?;
    note("ending this node's pods");
    let stop = CancellationToken::new();
    let address = identity.address;
    let (agent, _, following) =
        super::agent(identity, &args.options, manifest.as_ref(), client.clone(), &stop).await?;
    agent.clear().await;
    stop.cancel();
    if let Some(following) = following {
        following.await?;
    }
    network::forget(dir, address).await?;
    // The name is free at once, if the server can be told.
    if let Err(error) = give_up_lease(&client, &name).await {
        note(&format!("the server could not be told: {error}"));
    }
    for path in [serving_of(dir), manifest_of(dir), kubeconfig] {
        remove(&path)?;
    }
    note(&format!(
        "this machine is no node any more; the cluster keeps its Node until somebody does: minik8s delete node {name}"
    ));
    Ok(())
}

async fn give_up_lease(client: &Client, name: &str) -> Result<(), ApiError> {
    match client.namespaced::<Lease>(LEASES).delete(name, &DeleteParams::default()).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
