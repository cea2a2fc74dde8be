//! Getting the image of a container.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use k8s_openapi::api::core::v1::{Container, Secret};
use tokio::sync::Semaphore;

use super::pod_fsm::ImageError;
use crate::runtime::{Image, ImageStore, RegistryAuth, RuntimeError};

/// Fetches images, a few at a time, and each one only once for all who wait for it.
pub(crate) struct Puller {
    images: Arc<dyn ImageStore>,
    slots: Semaphore,
    busy: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The container's pull policy; one that says nothing fetches what has no fixed version.
pub(crate) fn policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let name = image.rsplit('/').next().unwrap_or_default();
            let fixed = image.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
            if fixed { PullPolicy::IfNotPresent } else { PullPolicy::Always }
        }
    }
}

impl Puller {
    pub(crate) fn new(images: Arc<dyn ImageStore>, at_once: usize) -> Self {
        Self { images, slots: Semaphore::new(at_once.max(1)), busy: Mutex::default() }
    }

    /// The image, and whether it was fetched for this.
    pub(crate) async fn ensure(
        &self,
        reference: &str,
        policy: PullPolicy,
        secrets: &[Arc<Secret>],
    ) -> Result<(Arc<Image>, bool), ImageError> {
        if reference.trim().is_empty() || reference.contains(char::is_whitespace) {
            let message =
                format!("Failed to apply default image tag \"{reference}\": invalid reference format");
            return Err(ImageError::InvalidName(message));
        }
        if policy != PullPolicy::Always
            && let Some(image) = self.images.find(reference).await.map_err(told)?
        {
            return Ok((Arc::new(image), false));
        }
        if policy == PullPolicy::Never {
            let message = format!("Container image \"{reference}\" is not present with pull policy of Never");
            return Err(ImageError::NeverPull(message));
        }
        let lock = {
            let mut busy = self.busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            busy.retain(|_, lock| Arc::strong_count(lock) > 1);
            busy.entry(reference.to_owned()).or_default().clone()
        };
        let _mine = lock.lock().await;
        // Whoever held the lock before may have fetched it.
        if policy == PullPolicy::IfNotPresent
            && let Some(image) = self.images.find(reference).await.map_err(told)?
        {
            return Ok((Arc::new(image), true));
        }
        let _slot = self.slots.acquire().await.expect("never closed");
        let mut last = None;
        for auth in credentials(reference, secrets).iter().map(Some).chain([None]) {
            match self.images.pull(reference, auth).await {
                Ok(image) => return Ok((Arc::new(image), true)),
                Err(e) => last = last.or(Some(e)),
            }
        }
        Err(last.map_or_else(|| ImageError::Pull("nothing was tried".to_owned()), told))
    }
}

fn told(error: RuntimeError) -> ImageError {
    match error {
        RuntimeError::InvalidImageName(_) => ImageError::InvalidName(error.to_string()),
        other => ImageError::Pull(other.to_string()),
    }
}

/// What the secrets say for the registry of `reference`, in their order.
fn credentials(reference: &str, secrets: &[Arc<Secret>]) -> Vec<RegistryAuth> {
    let host = registry(reference);
    let mut out = Vec::new();
    for secret in secrets {
        let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
        let parsed = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
        let auths = match (data(".dockerconfigjson"), data(".dockercfg")) {
            (Some(json), _) => parsed(json).and_then(|v| v.get("auths").cloned()),
            (None, Some(json)) => parsed(json),
            (None, None) => None,
        };
        for (server, auth) in auths.iter().filter_map(|a| a.as_object()).flatten() {
            if server_host(server) == host {
                out.extend(login(auth));
            }
        }
    }
    out
}

fn login(auth: &serde_json::Value) -> Option<RegistryAuth> {
    let text = |key: &str| auth.get(key).and_then(|v| v.as_str()).filter(|v| !v.is_empty());
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() });
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.trim_end_matches('\0').split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

/// The registry's host and port; Docker Hub where the reference names none.
fn registry(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => "docker.io".to_owned(),
    }
}

fn server_host(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    fn container(image: &str, policy: Option<&str>) -> Container {
        serde_json::from_value(json!({"name": "c", "image": image, "imagePullPolicy": policy})).unwrap()
    }

    fn secret(server: &str) -> Arc<Secret> {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = json!({"auths": {server: {"auth": encode("me:pw")}}}).to_string();
        Arc::new(serde_json::from_value(json!({"data": {".dockerconfigjson": encode(&config)}})).unwrap())
    }

    #[test]
    fn policies() {
        assert_eq!(policy(&container("a", None)), PullPolicy::Always);
        assert_eq!(policy(&container("localhost:5000/a", None)), PullPolicy::Always);
        assert_eq!(policy(&container("a:latest", None)), PullPolicy::Always);
        assert_eq!(policy(&container("a:1", None)), PullPolicy::IfNotPresent);
        assert_eq!(policy(&container("a@sha256:0", None)), PullPolicy::IfNotPresent);
        assert_eq!(policy(&container("a", Some("Never"))), PullPolicy::Never);
    }

    #[test]
    fn secrets_are_for_their_registry() {
        assert_eq!(credentials("busybox", &[secret("https://index.docker.io/v1/")])[0].username, "me");
        assert_eq!(credentials("r.example:5000/a/b:1", &[secret("r.example:5000")])[0].password, "pw");
        assert!(credentials("other.example/a", &[secret("r.example")]).is_empty());
    }

    #[tokio::test]
    async fn one_pull_serves_all_who_wait() {
        let node = Fake::new();
        node.add_to_registry("r/a:1");
        let puller = Arc::new(Puller::new(Arc::new(node.clone()), 2));
        node.hold(crate::fake::Op::Pull);
        let all: Vec<_> = (0..5)
            .map(|_| {
                let puller = puller.clone();
                tokio::spawn(async move { puller.ensure("r/a:1", PullPolicy::IfNotPresent, &[]).await })
            })
            .collect();
        while !node.calls().iter().any(|c| c.starts_with("pull")) {
            tokio::task::yield_now().await;
        }
        node.release(crate::fake::Op::Pull);
        for one in all {
            assert!(one.await.unwrap().is_ok());
        }
        assert_eq!(node.calls().iter().filter(|c| c.starts_with("pull")).count(), 1);
    }

    #[tokio::test]
    async fn what_stands_against_it() {
        let node = Fake::new();
        let puller = Puller::new(Arc::new(node.clone()), 1);
        let never = puller.ensure("a:1", PullPolicy::Never, &[]).await.unwrap_err();
        assert!(matches!(never, ImageError::NeverPull(_)));
        let name = puller.ensure("a b", PullPolicy::Always, &[]).await.unwrap_err();
        assert!(matches!(name, ImageError::InvalidName(_)));
        let gone = puller.ensure("a:1", PullPolicy::Always, &[]).await.unwrap_err();
        assert!(matches!(gone, ImageError::Pull(_)));
    }
}
