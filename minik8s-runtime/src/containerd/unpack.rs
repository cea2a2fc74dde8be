//! Layers made into snapshots.

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use tonic::Code;

use super::content;
use super::manifest::{Config, Manifest};
use super::rpc::{Rpc, failed, found, unique};
use crate::runtime::{Result, RuntimeError};

/// Whether this snapshot is there.
pub(super) async fn exists(rpc: &Rpc, snapshotter: &str, name: &str) -> Result<bool> {
    let request = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: name.to_owned() };
    Ok(found("stat snapshot", rpc.snapshots().stat(request).await)?.is_some())
}

/// Makes the snapshots of an image that are not there yet. The blobs must be.
pub(super) async fn unpack(rpc: &Rpc, snapshotter: &str, manifest: &Manifest, config: &Config) -> Result<()> {
    let chain = config.rootfs.chain_ids();
    if manifest.layers.len() != chain.len() {
        return Err(RuntimeError::Other(format!(
            "the image has {} layers and the digests of {}",
            manifest.layers.len(),
            chain.len()
        )));
    }
    let Some(top) = chain.last() else { return Ok(()) };
    let lease = rpc.lease().await?;
    let result = layers(&lease.rpc, snapshotter, manifest, config, &chain).await;
    let result = match result {
        // The configuration holds on to the snapshot for as long as the image is there.
        Ok(()) => {
            let reference = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
            content::label(rpc, &manifest.config.digest, [(reference, top.clone())].into()).await
        }
        Err(error) => Err(error),
    };
    lease.release().await;
    result
}

async fn layers(
    rpc: &Rpc,
    snapshotter: &str,
    manifest: &Manifest,
    config: &Config,
    chain: &[String],
) -> Result<()> {
    let mut parent = String::new();
    for ((layer, diff), name) in manifest.layers.iter().zip(&config.rootfs.diff_ids).zip(chain) {
        if !exists(rpc, snapshotter, name).await? {
            let key = unique("minik8s-extract");
            let labels = [("containerd.io/snapshot.ref".to_owned(), name.clone())].into();
            let prepare = PrepareSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                key: key.clone(),
                parent: parent.clone(),
                labels,
            };
            let prepared = rpc.snapshots().prepare(prepare).await;
            let mounts = prepared.map_err(|status| failed("prepare snapshot", &status))?.into_inner().mounts;
            let apply = ApplyRequest { diff: Some(layer.to_proto()), mounts, ..ApplyRequest::default() };
            let applied = match rpc.diff().apply(apply).await {
                Ok(applied) => applied.into_inner().applied.unwrap_or_default(),
                Err(status) => {
                    discard(rpc, snapshotter, &key).await;
                    return Err(failed("unpack layer", &status));
                }
            };
            if applied.digest != *diff {
                discard(rpc, snapshotter, &key).await;
                return Err(RuntimeError::Other(format!(
                    "layer {} unpacks to {}, not to {diff} as the image says",
                    layer.digest, applied.digest
                )));
            }
            let commit = CommitSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                name: name.clone(),
                key: key.clone(),
                ..CommitSnapshotRequest::default()
            };
            match rpc.snapshots().commit(commit).await {
                Ok(_) => {}
                // Somebody else was quicker.
                Err(status) if status.code() == Code::AlreadyExists => discard(rpc, snapshotter, &key).await,
                Err(status) => {
                    discard(rpc, snapshotter, &key).await;
                    return Err(failed("commit snapshot", &status));
                }
            }
        }
        parent.clone_from(name);
    }
    Ok(())
}

/// Removes a snapshot that came to nothing. The garbage collector would; this is sooner.
async fn discard(rpc: &Rpc, snapshotter: &str, key: &str) {
    let request = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
    if let Err(status) = rpc.snapshots().remove(request).await {
        tracing::debug!(%status, key, "an unfinished snapshot was not removed");
    }
}
