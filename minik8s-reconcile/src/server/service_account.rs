//! Gives new pods what they show who they are with: an account and its tokens
//! (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-admission-controller>).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use minik8s_api::Object;

use super::ApiServer;
use super::key::Scope;
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

impl ApiServer {
    /// Readies a new pod to run as its service account. Does nothing where no tokens are issued.
    ///
    /// # Errors
    /// 403, if there is no such account.
    pub(super) async fn equip(&self, scope: &Scope, object: &mut dyn Object) -> Result<(), ApiError> {
        if self.tokens.is_none() {
            return Ok(());
        }
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
            return Ok(());
        }
        let Some(spec) = &mut pod.spec else { return Ok(()) };
        let name = spec.service_account_name.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let namespace = scope.namespace.as_deref().unwrap_or_default();
        // Without a namespace there is another complaint to be made.
        if self.storage.get(&super::key::namespace_key(namespace)).await?.is_none() {
            return Ok(());
        }
        let Some(account) = self.account(namespace, &name).await? else {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            );
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(ApiError::forbidden(&scope.kind, pod, why));
        };
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
        }
        let wanted = spec.automount_service_account_token.or(account.automount_service_account_token);
        if wanted.unwrap_or(true) {
            mount(pod, || format!("{VOLUME}{}", self.rng.suffix(5)));
        }
        Ok(())
    }

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
