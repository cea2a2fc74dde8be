//! Gives new pods what they show who they are with: an account and its tokens
//! (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-admission-controller>).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};

use super::ApiServer;
use super::admission::{Admission, Notes, Request, Verb};
use crate::controllers::root_ca;
use crate::error::ApiError;
use crate::stored::Stored;

/// Where containers look for what they show who they are with.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the volumes' names begin with.
const VOLUME: &str = "kube-api-access-";
/// How long a token lasts before a new one takes its place, in seconds.
const TOKEN_LIFETIME_S: i64 = 3607;
/// The account that every namespace has.
const DEFAULT: &str = "default";
/// How long to wait for it: it comes with its namespace, but a little later.
const PATIENCE: Duration = Duration::from_secs(2);
/// The annotation of pods that show what a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Readies new pods to run as their service accounts. Does nothing where no tokens are issued.
pub(super) struct ServiceAccounts;

#[async_trait]
impl Admission for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.verb() == Verb::Create && request.is("", "Pod") && request.server.tokens.is_some()
    }

    async fn mutate(&self, request: &mut Request<'_>, _: &mut Notes) -> Result<bool, ApiError> {
        // Without a namespace there is another complaint to be made.
        if request.namespace_object().await?.is_none() {
            return Ok(false);
        }
        let server = request.server;
        let namespace = request.namespace().unwrap_or_default().to_owned();
        let pod = request.object().and_then(|o| o.downcast_ref::<Pod>());
        let Some((pod, spec)) = pod.and_then(|pod| Some((pod, pod.spec.as_ref()?))) else { return Ok(false) };
        if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
            return Ok(false);
        }
        let name = spec.service_account_name.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let Some(account) = server.account(&namespace, &name).await? else {
            return Err(request.forbidden(format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            )));
        };
        let Some(pod) = request.object_mut().and_then(|o| o.downcast_mut::<Pod>()) else { return Ok(false) };
        let Some(spec) = &mut pod.spec else { return Ok(false) };
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
        }
        let wanted = spec.automount_service_account_token.or(account.automount_service_account_token);
        if wanted.unwrap_or(true) {
            mount(pod, || format!("{VOLUME}{}", server.rng.suffix(5)));
        }
        Ok(true)
    }
}

impl ApiServer {
    /// The account. A default one that is not there yet may come.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<Arc<ServiceAccount>>, ApiError> {
        let key = format!("serviceaccounts/{namespace}/{name}");
        let typed = |stored: Stored| stored.typed::<ServiceAccount>().map_err(ApiError::internal);
        if let Some(stored) = self.storage.get(&key).await? {
            return typed(stored).map(Some);
        }
        if name != DEFAULT {
            return Ok(None);
        }
        let mut news = self.storage.watch(&key, self.storage.revision().await?).await?;
        let comes = async {
            loop {
                // Once more after the watch has begun: it may have come before.
                if let Some(stored) = self.storage.get(&key).await? {
                    return Ok::<_, ApiError>(stored);
                }
                news.next().await?;
            }
        };
        match tokio::time::timeout(PATIENCE, comes).await {
            Ok(stored) => typed(stored?).map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// Mounts a volume with a token into all containers that have nothing else there.
fn mount(pod: &mut Pod, name: impl FnOnce() -> String) {
    let Some(spec) = &mut pod.spec else { return };
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let has = |mounts: &Option<Vec<VolumeMount>>| mounts.iter().flatten().any(|m| m.mount_path == MOUNT_PATH);
    if containers().all(|c| has(&c.volume_mounts)) {
        return;
    }
    // One that came with the pod, as when the spec of another pod was copied, serves as well.
    let old = spec.volumes.iter().flatten().find(|v| v.name.starts_with(VOLUME) && v.projected.is_some());
    let name = match old {
        Some(volume) => volume.name.clone(),
        None => {
            let name = name();
            spec.volumes.get_or_insert_default().push(access(&name));
            name
        }
    };
    let mount = VolumeMount {
        name,
        read_only: Some(true),
        mount_path: MOUNT_PATH.to_owned(),
        ..VolumeMount::default()
    };
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if !has(&container.volume_mounts) {
            container.volume_mounts.get_or_insert_default().push(mount.clone());
        }
    }
}

/// The volume: a token, the authority that the server is known by, and the namespace.
fn access(name: &str) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            expiration_seconds: Some(TOKEN_LIFETIME_S),
            path: "token".to_owned(),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let certificate =
        KeyToPath { key: root_ca::KEY.to_owned(), path: "ca.crt".to_owned(), ..KeyToPath::default() };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: root_ca::NAME.to_owned(),
            items: Some(vec![certificate]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
        ..VolumeProjection::default()
    };
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, authority, namespace]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).expect("a pod")
    }

    #[test]
    fn containers_get_a_token_where_there_is_nothing_else() {
        let other = json!([{ "name": "x", "mountPath": MOUNT_PATH }]);
        let mut both = pod(json!({
            "containers": [{ "name": "a" }, { "name": "b", "volumeMounts": other }],
            "initContainers": [{ "name": "i" }],
        }));
        mount(&mut both, || "kube-api-access-1".to_owned());
        let spec = both.spec.clone().expect("a spec");
        let names = |c: &k8s_openapi::api::core::v1::Container| -> Vec<String> {
            c.volume_mounts.iter().flatten().map(|m| m.name.clone()).collect()
        };
        assert_eq!(names(&spec.containers[0]), ["kube-api-access-1"]);
        assert_eq!(names(&spec.containers[1]), ["x"]);
        assert_eq!(names(&spec.init_containers.expect("one")[0]), ["kube-api-access-1"]);
        assert_eq!(spec.volumes.expect("volumes").len(), 1);

        let before = both.clone();
        mount(&mut both, || unreachable!("everything is there"));
        assert_eq!(both, before);

        let mut covered = pod(json!({ "containers": [{ "name": "b", "volumeMounts": other }] }));
        mount(&mut covered, || unreachable!("nobody needs it"));
        assert_eq!(covered.spec.expect("a spec").volumes, None);
    }
}
