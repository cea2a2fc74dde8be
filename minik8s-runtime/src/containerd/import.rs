//! Images from archives: OCI layouts, and what `docker save` writes.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::Containerd;
use super::content::{self, Source};
use super::images::full_name;
use super::manifest::{Descriptor, Index, Manifest, Target};
use super::reference::Reference;
use super::rpc::Rpc;
use crate::runtime::{Image, Result, RuntimeError};

mod archive;

use archive::Archive;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where an OCI layout says what its images are called.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An image that has been stored, and what the archive calls it.
struct Stored {
    names: Vec<String>,
    target: Descriptor,
}

/// An entry of `manifest.json`, as `docker save` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Containerd {
    /// Brings in all images of an archive, unpacked: an OCI layout or the output of `docker save`, as a plain tar file.
    /// One that the archive does not name gets `name`, if given.
    ///
    /// # Errors
    /// [`RuntimeError::Other`] if the file is no such archive or lacks some of an image; what had been stored by then goes
    /// by itself.
    pub async fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>> {
        let shown = archive.display().to_string();
        let bad = |error: &dyn std::fmt::Display| RuntimeError::Other(format!("{shown}: {error}"));
        let path = archive.to_owned();
        let read = tokio::task::spawn_blocking(move || Archive::read(&path)).await;
        let archive = read.map_err(|error| bad(&error))?.map_err(|error| bad(&error))?;
        let lease = self.inner.rpc.lease().await?;
        let result = self.import_from(&lease.rpc, &archive, name).await;
        lease.release().await;
        result.map_err(|error| match error {
            RuntimeError::Other(why) => bad(&why),
            error => error,
        })
    }

    async fn import_from(&self, rpc: &Rpc, archive: &Archive, name: Option<&str>) -> Result<Vec<Image>> {
        let stored = if archive.has("index.json") {
            store_layout(rpc, archive).await?
        } else if archive.has("manifest.json") {
            store_docker(rpc, archive).await?
        } else {
            return Err(RuntimeError::Other(
                "neither an OCI layout nor an archive of docker save".to_owned(),
            ));
        };
        let mut images = Vec::new();
        for Stored { mut names, target } in stored {
            names.extend(name.filter(|_| names.is_empty()).map(str::to_owned));
            if names.is_empty() {
                return Err(RuntimeError::Other(format!(
                    "it does not name image {}; give a name",
                    target.digest
                )));
            }
            for name in names {
                let name = full_name(&name)?;
                self.inner.name_image(rpc, &name, target.to_proto()).await?;
                let unpacked = self.inner.unpacked(&name).await?;
                let (digest, contents) =
                    unpacked.ok_or_else(|| RuntimeError::Other(format!("it lacks some of image {name}")))?;
                images.push(contents.image(&name, &digest));
            }
        }
        Ok(images)
    }
}

async fn store_layout(rpc: &Rpc, archive: &Archive) -> Result<Vec<Stored>> {
    let index: Index = archive.json("index.json")?;
    let mut stored = Vec::new();
    for target in index.manifests {
        store_tree(rpc, archive, &target).await?;
        // A bare tag, which some tools write there, is no name.
        let names = NAME_ANNOTATIONS.iter().filter_map(|key| target.annotations.get(*key));
        let full = names.filter(|name| name.contains(['/', ':']) && Reference::parse(name).is_some());
        stored.push(Stored { names: full.take(1).cloned().collect(), target });
    }
    Ok(stored)
}

/// Stores a manifest or an index with all that it refers to and the archive has: one of an image for many machines may
/// hold the variant for only one of them.
async fn store_tree(rpc: &Rpc, archive: &Archive, root: &Descriptor) -> Result<()> {
    let mut waiting = vec![root.clone()];
    let mut blobs = Vec::new();
    while let Some(descriptor) = waiting.pop() {
        let path = blob_path(&descriptor.digest)?;
        let Some(source) = archive.source(&path) else {
            continue;
        };
        let mut labels = HashMap::new();
        let mut refer = |kind: String, to: Descriptor| {
            labels.insert(format!("containerd.io/gc.ref.content.{kind}"), to.digest.clone());
            waiting.push(to);
        };
        if refers(&descriptor.media_type) {
            match archive.json(&path)? {
                Target::Manifest(manifest) => {
                    refer("config".to_owned(), manifest.config);
                    manifest
                        .layers
                        .into_iter()
                        .enumerate()
                        .for_each(|(at, layer)| refer(format!("l.{at}"), layer));
                }
                Target::Index(index) => {
                    index
                        .manifests
                        .into_iter()
                        .enumerate()
                        .for_each(|(at, one)| refer(format!("m.{at}"), one));
                }
            }
        }
        blobs.push((descriptor.digest, source, labels));
    }
    // What is referred to comes first.
    for (digest, source, labels) in blobs.into_iter().rev() {
        content::write(rpc, &digest, source, labels).await?;
    }
    Ok(())
}

/// Whether a blob of this type refers to others, whoever's type it is.
fn refers(media_type: &str) -> bool {
    [".manifest.v", ".index.v", ".manifest.list.v", "distribution.manifest"]
        .iter()
        .any(|part| media_type.contains(part))
}

/// Where an OCI layout has a blob.
fn blob_path(digest: &str) -> Result<String> {
    let (algorithm, hash) =
        digest.split_once(':').ok_or_else(|| RuntimeError::Other(format!("{digest:?} is no digest")))?;
    Ok(format!("blobs/{algorithm}/{hash}"))
}

async fn store_docker(rpc: &Rpc, archive: &Archive) -> Result<Vec<Stored>> {
    let images: Vec<DockerImage> = archive.json("manifest.json")?;
    let mut stored = Vec::new();
    for image in images {
        let config_blob = archive.bytes(&image.config)?;
        let config = descriptor(OCI_CONFIG, content::digest(&config_blob), config_blob.len() as u64);
        content::write(rpc, &config.digest, Source::Bytes(config_blob), HashMap::new()).await?;
        let mut labels =
            HashMap::from([("containerd.io/gc.ref.content.config".to_owned(), config.digest.clone())]);
        let mut layers = Vec::new();
        for (at, path) in image.layers.iter().enumerate() {
            let source =
                archive.source(path).ok_or_else(|| RuntimeError::Other(format!("it lacks layer {path}")))?;
            let (digest, compression) = archive.examine(path).await?;
            let layer = descriptor(&format!("{OCI_LAYER}{compression}"), digest, source.size());
            content::write(rpc, &layer.digest, source, HashMap::new()).await?;
            labels.insert(format!("containerd.io/gc.ref.content.l.{at}"), layer.digest.clone());
            layers.push(layer);
        }
        let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers };
        let blob = serde_json::to_vec(&manifest).map_err(|error| RuntimeError::Other(error.to_string()))?;
        let target = descriptor(OCI_MANIFEST, content::digest(&blob), blob.len() as u64);
        content::write(rpc, &target.digest, Source::Bytes(blob), labels).await?;
        stored.push(Stored { names: image.repo_tags.unwrap_or_default(), target });
    }
    Ok(stored)
}

fn descriptor(media_type: &str, digest: String, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: size.cast_signed(),
        ..Descriptor::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_and_indexes_of_both_worlds_refer() {
        for media_type in [
            OCI_MANIFEST,
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ] {
            assert!(refers(media_type), "{media_type}");
        }
        for media_type in [OCI_CONFIG, OCI_LAYER, "application/vnd.docker.container.image.v1+json"] {
            assert!(!refers(media_type), "{media_type}");
        }
    }
}
