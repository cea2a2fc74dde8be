//! ConfigMaps, Secrets and the other objects that pods refer to, read once for many.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use minik8s_api::Resource;
use minik8s_reconcile::Client;
use minik8s_reconcile::clock::Clock;
use minik8s_reconcile::request::{ApiRequest, Operation, Payload, ResponseBody, WriteParams};
use serde_json::json;

use super::pod_fsm::spec;

/// The objects that pods of this node refer to.
///
/// Whoever asks says how old an answer may be at most; those who ask at the same time share one request.
pub(crate) struct Sources {
    client: Client,
    clock: Clock,
    slots: Mutex<BTreeMap<Key, Arc<Slot>>>,
}

/// Kind, namespace and name.
type Key = (&'static str, String, String);
type Known = Arc<dyn Any + Send + Sync>;
/// When it was read, and what was there.
type Slot = tokio::sync::Mutex<Option<(Timestamp, Option<Known>)>>;

/// More objects than this are not remembered: the oldest guess is as good as any, so all are forgotten.
const MOST: usize = 4096;

impl Sources {
    pub(crate) fn new(client: Client, clock: Clock) -> Self {
        Self { client, clock, slots: Mutex::default() }
    }

    /// The object, read no earlier than `since`; `None` if there is none.
    async fn get<K: Resource>(
        &self,
        kind: &'static str,
        namespace: &str,
        name: &str,
        since: Timestamp,
    ) -> Result<Option<Arc<K>>, String> {
        if self.client.registry().of::<K>().is_none() {
            return Err(format!("the server does not serve {kind}s"));
        }
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if slots.len() > MOST {
                slots.clear();
            }
            slots.entry((kind, namespace.to_owned(), name.to_owned())).or_default().clone()
        };
        let mut slot = slot.lock().await;
        let known = match &*slot {
            Some((at, known)) if *at >= since => known.clone(),
            _ => {
                let at = self.clock.now();
                let fresh = self.client.namespaced::<K>(namespace).get_opt(name).await;
                let fresh: Option<Known> = fresh
                    .map_err(|e| format!("failed to get {kind} \"{namespace}/{name}\": {e}"))?
                    .map(|object| object as Known);
                *slot = Some((at, fresh.clone()));
                fresh
            }
        };
        Ok(known.and_then(|object| object.downcast::<K>().ok()))
    }

    /// Everything that `wanted` names, read no earlier than `since`.
    pub(crate) async fn resolve(
        &self,
        namespace: &str,
        wanted: &Wanted,
        since: Timestamp,
    ) -> Result<Objects, String> {
        let mut objects = Objects::default();
        for name in &wanted.config_maps {
            let found = self.get::<ConfigMap>("configmap", namespace, name, since).await?;
            objects.config_maps.insert(name.clone(), found);
        }
        for name in &wanted.secrets {
            let found = self.get::<Secret>("secret", namespace, name, since).await?;
            objects.secrets.insert(name.clone(), found);
        }
        Ok(objects)
    }

    /// The secrets of `names` that exist, such as those for image registries.
    pub(crate) async fn secrets(
        &self,
        namespace: &str,
        names: &[String],
        since: Timestamp,
    ) -> Result<Vec<Arc<Secret>>, String> {
        let mut out = Vec::new();
        for name in names {
            out.extend(self.get::<Secret>("secret", namespace, name, since).await?);
        }
        Ok(out)
    }

    /// The volume that a claim is bound to.
    pub(crate) async fn volume(
        &self,
        namespace: &str,
        claim: &str,
        since: Timestamp,
    ) -> Result<Arc<PersistentVolume>, String> {
        let found =
            self.get::<PersistentVolumeClaim>("persistentvolumeclaim", namespace, claim, since).await?;
        let found = found.ok_or_else(|| format!("persistentvolumeclaim \"{claim}\" not found"))?;
        let bound = found.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let name = found.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|n| bound && !n.is_empty());
        let name = name.ok_or_else(|| format!("persistentvolumeclaim \"{claim}\" is not bound"))?;
        let volume = self.get::<PersistentVolume>("persistentvolume", "", &name, since).await?;
        volume.ok_or_else(|| format!("persistentvolume \"{name}\" not found"))
    }

    /// A token of the pod's service account, and when it expires.
    pub(crate) async fn token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        expiration_s: i64,
    ) -> Result<(String, Timestamp), String> {
        let account =
            spec(pod).service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let kind = self.client.registry().of::<ServiceAccount>().cloned();
        let kind = kind.ok_or("the server does not serve service accounts")?;
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audience.into_iter().collect::<Vec<_>>(),
                "expirationSeconds": expiration_s,
                "boundObjectRef": {
                    "apiVersion": "v1", "kind": "Pod",
                    "name": pod.metadata.name, "uid": pod.metadata.uid,
                },
            },
        });
        let request = ApiRequest {
            kind,
            namespace: pod.metadata.namespace.clone(),
            name: Some(account.to_owned()),
            subresource: Some("token".to_owned()),
            operation: Operation::Create(
                Payload::Json(body.to_string().into()),
                WriteParams { field_manager: "minik8s-node".to_owned(), ..WriteParams::default() },
            ),
            user: self.client.identity().clone(),
        };
        let failed = |e: &dyn std::fmt::Display| format!("failed to fetch token of \"{account}\": {e}");
        let response = self.client.call(request).await.map_err(|e| failed(&e))?;
        let ResponseBody::Object { object, .. } = response.body else {
            return Err(failed(&"the server answered with something else"));
        };
        let answer: TokenRequest = serde_json::from_slice(object.json()).map_err(|e| failed(&e))?;
        let status = answer.status.unwrap_or_default();
        match (status.token, status.expiration_timestamp) {
            (Some(token), Some(expires)) => Ok((token, expires.0)),
            _ => Err(failed(&"no token in the answer")),
        }
    }
}

/// What a pod or container refers to, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

/// What those names stand for; `None` for what does not exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    pub(crate) secrets: BTreeMap<String, Option<Arc<Secret>>>,
}
