//! The images on this node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as Record, ListImagesRequest,
    UpdateImageRequest,
};
use containerd_client::types::Descriptor as Target;
use prost_types::FieldMask;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tonic::Code;

use super::manifest::{self, Config, Manifest};
use super::reference::{Reference, is_digest};
use super::rpc::{Rpc, failed, found};
use super::{Containerd, Inner, content, cri, rootfs, unpack};
use crate::runtime::{Image, ImageStore, RegistryAuth, Result, RuntimeError};
use crate::spec::user::Accounts;

/// The only namespace that containerd's CRI plugin pulls into.
const CRI_NAMESPACE: &str = "k8s.io";

/// What an image is, beneath its names. It cannot change: its name is the hash of all of it.
#[derive(Debug)]
pub(super) struct Contents {
    manifest: Manifest,
    config: Config,
    size: u64,
    /// The snapshot of all layers; empty for an image without any.
    pub(super) snapshot: String,
    accounts: OnceCell<Arc<Accounts>>,
}

impl Contents {
    pub(super) fn image(&self, reference: &str, digest: &str) -> Image {
        let name =
            Reference::parse(reference).map_or_else(|| reference.to_owned(), |reference| reference.name);
        Image {
            reference: reference.to_owned(),
            digest: digest.to_owned(),
            id: format!("{name}@{digest}"),
            size: self.size,
            ..self.config.image()
        }
    }
}

/// What is known of images that were looked at before, by the digest that their name stands for.
#[derive(Debug, Default)]
pub(super) struct Known {
    contents: Mutex<BTreeMap<String, Arc<Contents>>>,
    unpacking: tokio::sync::Mutex<()>,
}

impl Known {
    fn get(&self, digest: &str) -> Option<Arc<Contents>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn put(&self, digest: &str, contents: Arc<Contents>) {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.to_owned(), contents);
    }

    fn forget(&self, digest: &str) {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

#[async_trait]
impl ImageStore for Containerd {
    async fn find(&self, reference: &str) -> Result<Option<Image>> {
        let name = full_name(reference)?;
        Ok(self.inner.unpacked(&name).await?.map(|(digest, contents)| contents.image(&name, &digest)))
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Image> {
        let name = full_name(reference)?;
        let refused = |message: String| RuntimeError::ImagePull { image: reference.to_owned(), message };
        if self.inner.config.namespace != CRI_NAMESPACE {
            return Err(refused(format!("containerd pulls into namespace {CRI_NAMESPACE} only")));
        }
        cri::pull(&self.inner.rpc, &name, auth).await?;
        let found = self.inner.unpacked(&name).await?;
        let (digest, contents) =
            found.ok_or_else(|| refused("it was removed while it was pulled".to_owned()))?;
        Ok(contents.image(&name, &digest))
    }

    async fn list(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for (name, target) in visible(&self.inner.image_records().await?) {
            // One that is only half here is none.
            if let Some(contents) = self.inner.contents(&target).await? {
                images.push(contents.image(&name, &target.digest));
            }
        }
        Ok(images)
    }

    async fn remove(&self, reference: &str) -> Result<()> {
        let name = full_name(reference)?;
        let records = self.inner.image_records().await?;
        let Some(digest) = records.get(&name).map(|target| target.digest.clone()) else {
            return Ok(());
        };
        let others = records.iter().filter(|(other, target)| target.digest == digest && **other != name);
        let others: Vec<&String> = others.map(|(other, _)| other).collect();
        let mut names = vec![&name];
        if others.iter().all(|other| is_byname(other)) {
            self.inner.known.forget(&digest);
            names.extend(others);
        }
        let last = names.len() - 1;
        for (at, name) in names.into_iter().enumerate() {
            // Its blobs are gone when the last call returns.
            let request = DeleteImageRequest { name: name.clone(), sync: at == last, target: None };
            found("remove image", self.inner.rpc.images().delete(request).await)?;
        }
        Ok(())
    }
}

impl Inner {
    /// An image with its files unpacked, by its full name; `None` if it is not all here.
    pub(super) async fn unpacked(&self, name: &str) -> Result<Option<(String, Arc<Contents>)>> {
        let request = GetImageRequest { name: name.to_owned() };
        let record = found("find image", self.rpc.images().get(request).await)?;
        let Some(target) = record.and_then(|answer| answer.image).and_then(|image| image.target) else {
            return Ok(None);
        };
        let Some(contents) = self.contents(&target).await? else {
            return Ok(None);
        };
        let (snapshotter, snapshot) = (&self.config.snapshotter, &contents.snapshot);
        if snapshot.is_empty() || unpack::exists(&self.rpc, snapshotter, snapshot).await? {
            return Ok(Some((target.digest, contents)));
        }
        for layer in &contents.manifest.layers {
            if !self.has_content(&layer.digest).await? {
                return Ok(None);
            }
        }
        let _one_at_a_time = self.known.unpacking.lock().await;
        unpack::unpack(&self.rpc, snapshotter, &contents.manifest, &contents.config).await?;
        Ok(Some((target.digest, contents)))
    }

    /// The users and groups that an image knows. Its files must be unpacked.
    pub(super) async fn accounts(&self, contents: &Contents) -> Result<Arc<Accounts>> {
        let read = || async {
            let (snapshotter, snapshot) = (&self.config.snapshotter, &contents.snapshot);
            let paths = ["etc/passwd", "etc/group"];
            let files =
                rootfs::read(&self.rpc, snapshotter, snapshot, &self.config.state_dir, &paths).await?;
            let [passwd, group] = files.try_into().unwrap_or_default();
            Ok(Arc::new(Accounts::parse(&passwd, &group)))
        };
        contents.accounts.get_or_try_init(read).await.cloned()
    }

    /// Gives a name to content that is here, in place of what had the name before.
    pub(super) async fn name_image(&self, rpc: &Rpc, name: &str, target: Target) -> Result<()> {
        let record = Record { name: name.to_owned(), target: Some(target), ..Record::default() };
        let create = CreateImageRequest { image: Some(record.clone()), ..CreateImageRequest::default() };
        match rpc.images().create(create).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let update_mask = Some(FieldMask { paths: vec!["target".to_owned()] });
                let update =
                    UpdateImageRequest { image: Some(record), update_mask, ..UpdateImageRequest::default() };
                rpc.images().update(update).await.map_err(|status| failed("name image", &status))?;
                Ok(())
            }
            Err(status) => Err(failed("name image", &status)),
        }
    }

    async fn image_records(&self) -> Result<BTreeMap<String, Target>> {
        let answer = self.rpc.images().list(ListImagesRequest::default()).await;
        let images = answer.map_err(|status| failed("list images", &status))?.into_inner().images;
        Ok(images.into_iter().filter_map(|image| Some((image.name, image.target?))).collect())
    }

    async fn contents(&self, target: &Target) -> Result<Option<Arc<Contents>>> {
        if let Some(known) = self.known.get(&target.digest) {
            return Ok(Some(known));
        }
        let mut size = target.size;
        let manifest = match self.json(&target.digest).await? {
            None => return Ok(None),
            Some(manifest::Target::Manifest(manifest)) => manifest,
            Some(manifest::Target::Index(index)) => {
                let Some(ours) = index.ours() else {
                    return Err(RuntimeError::Other(format!(
                        "image {} has no variant for linux/{}",
                        target.digest,
                        manifest::architecture()
                    )));
                };
                size += ours.size;
                match self.json(&ours.digest).await? {
                    Some(manifest) => manifest,
                    None => return Ok(None),
                }
            }
        };
        let Some(config) = self.json::<Config>(&manifest.config.digest).await? else {
            return Ok(None);
        };
        size += manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<i64>();
        let contents = Arc::new(Contents {
            snapshot: config.rootfs.chain_ids().pop().unwrap_or_default(),
            manifest,
            config,
            size: size.max(0).cast_unsigned(),
            accounts: OnceCell::new(),
        });
        self.known.put(&target.digest, contents.clone());
        Ok(Some(contents))
    }

    async fn json<T: DeserializeOwned>(&self, digest: &str) -> Result<Option<T>> {
        let Some(blob) = content::read(&self.rpc, digest).await? else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&blob);
        parsed.map(Some).map_err(|error| RuntimeError::Other(format!("image content {digest}: {error}")))
    }

    async fn has_content(&self, digest: &str) -> Result<bool> {
        let request = containerd_client::services::v1::InfoRequest { digest: digest.to_owned() };
        Ok(found("look for content", self.rpc.content().info(request).await)?.is_some())
    }
}

/// The name under which containerd keeps this reference. A bare digest is a name too: the CRI plugin gives each image
/// that of its configuration.
pub(super) fn full_name(reference: &str) -> Result<String> {
    if is_digest(reference) {
        return Ok(reference.to_owned());
    }
    match Reference::parse(reference) {
        Some(full) => Ok(full.to_string()),
        None => Err(RuntimeError::InvalidImageName(reference.to_owned())),
    }
}

/// Whether this is not what people call an image: the digest of its configuration, or `NAME@DIGEST`.
fn is_byname(name: &str) -> bool {
    name.contains('@') || is_digest(name)
}

/// The names to show: those that people gave, and for an image without any the first of its bynames.
fn visible(records: &BTreeMap<String, Target>) -> Vec<(String, Target)> {
    let named =
        |digest: &str| records.iter().any(|(name, target)| target.digest == digest && !is_byname(name));
    let first =
        |digest: &str| records.iter().find(|(_, target)| target.digest == digest).map(|(name, _)| name);
    let shown = records.iter().filter(|(name, target)| {
        !is_byname(name) || (!named(&target.digest) && first(&target.digest) == Some(*name))
    });
    shown.map(|(name, target)| (name.clone(), target.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_the_names_they_gave() {
        let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
        let target = |c| Target { digest: digest(c), ..Target::default() };
        let records = BTreeMap::from([
            ("docker.io/library/a:1".to_owned(), target('a')),
            ("docker.io/library/a:2".to_owned(), target('a')),
            (format!("docker.io/library/a@{}", digest('a')), target('a')),
            (digest('f'), target('a')),
            (format!("docker.io/library/b@{}", digest('b')), target('b')),
            (digest('e'), target('b')),
        ]);
        let names: Vec<_> = visible(&records).into_iter().map(|(name, _)| name).collect();
        let b = format!("docker.io/library/b@{}", digest('b'));
        assert_eq!(names, ["docker.io/library/a:1", "docker.io/library/a:2", &b]);
    }

    #[test]
    fn an_invalid_name_is_told() {
        assert_eq!(full_name("busybox").unwrap(), "docker.io/library/busybox:latest");
        assert_eq!(full_name("Not Valid").unwrap_err().to_string(), "invalid image name \"Not Valid\"");
    }
}
