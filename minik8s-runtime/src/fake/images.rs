//! The images of a [`Fake`] and its registry.

use async_trait::async_trait;

use super::{Fake, Op};
use crate::runtime::{Image, ImageStore, RegistryAuth, Result, RuntimeError};

/// An image that runs nothing in particular, with a digest that only depends on its reference.
pub(super) fn made_up(reference: &str) -> Image {
    use sha2::{Digest, Sha256};
    let digest = format!("sha256:{:x}", Sha256::digest(reference.as_bytes()));
    let name = match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => reference,
    };
    Image {
        reference: reference.to_owned(),
        id: format!("{name}@{digest}"),
        digest,
        size: 1 << 20,
        ..Image::default()
    }
}

#[async_trait]
impl ImageStore for Fake {
    async fn find(&self, reference: &str) -> Result<Option<Image>> {
        let after = self.call(Op::FindImage, reference).await?;
        let found = self.lock().images.get(reference).cloned();
        after.answer(Ok(found))
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Image> {
        let after = self.call(Op::Pull, reference).await?;
        after.answer(self.pull_now(reference, auth))
    }

    async fn list(&self) -> Result<Vec<Image>> {
        let after = self.call(Op::ListImages, "").await?;
        let all = self.lock().images.values().cloned().collect();
        after.answer(Ok(all))
    }

    async fn remove(&self, reference: &str) -> Result<()> {
        let after = self.call(Op::RemoveImage, reference).await?;
        self.lock().images.remove(reference);
        after.answer(Ok(()))
    }
}

impl Fake {
    fn pull_now(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Image> {
        let refused = |message: &str| RuntimeError::ImagePull {
            image: reference.to_owned(),
            message: message.to_owned(),
        };
        if reference.is_empty() || reference.contains(char::is_whitespace) {
            return Err(RuntimeError::InvalidImageName(reference.to_owned()));
        }
        let mut state = self.lock();
        let (image, wanted) = state.registry.get(reference).ok_or_else(|| refused("not found"))?;
        if wanted.is_some() && wanted.as_ref() != auth {
            return Err(refused("authorization failed"));
        }
        let image = image.clone();
        state.images.insert(reference.to_owned(), image.clone());
        Ok(image)
    }
}
