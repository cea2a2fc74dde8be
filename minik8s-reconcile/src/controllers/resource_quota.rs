//! Keeps the status of ResourceQuotas true: what they limit, and what is used of it.
//!
//! The server counts as it writes. This counts from nothing: for quotas that are new or have changed, and now and then
//! for all of them, in case somebody else has written to the storage.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ResourceQuota;
use minik8s_api::Kind;

use crate::controller::Controller;
use crate::cx::Cx;
use crate::error::ApiError;
use crate::kinds::Kinds;
use crate::reconciler::{Action, Reconciler, Result};
use crate::request::{ApiRequest, ListParams, Operation, Payload, ResponseBody, WriteParams};
use crate::server::admission::quota::{self, usage};

/// How often everything is counted anew.
const PERIOD: Duration = Duration::from_secs(5 * 60);

/// The controller, to be given to a [`crate::Manager`]. `kinds` are those that the server serves.
///
/// # Panics
/// There are no ResourceQuotas among the kinds.
pub fn controller(kinds: Kinds) -> Controller<impl Reconciler> {
    let kind = kinds.current().of::<ResourceQuota>().expect("ResourceQuotas are built in").clone();
    Controller::new("resource-quota", Quotas { kinds, kind })
}

struct Quotas {
    kinds: Kinds,
    kind: Arc<Kind>,
}

impl Reconciler for Quotas {
    type Object = ResourceQuota;

    async fn reconcile(&self, quota: Arc<ResourceQuota>, cx: Cx) -> Result<Action> {
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let client = cx.client();
        // It is read before the count: whoever is charged meanwhile writes it, and this write is refused.
        let name = quota.metadata.name.as_deref().unwrap_or_default();
        let current = match client.namespaced::<ResourceQuota>(namespace).get(name).await {
            Ok(current) => current,
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            Err(error) => return Err(error.into()),
        };
        let mut used = quota::nothing_of(&current);
        for kind in usage::kinds(&current, &self.kinds.current()) {
            let list = client.request(kind.clone(), Some(namespace), Operation::List(ListParams::default()));
            let ResponseBody::List(list) = client.call(list).await?.body else { continue };
            for stored in list.items {
                let object = stored.object(&kind).map_err(ApiError::internal)?;
                quota::add(&mut used, &current, &kind, &*object);
            }
        }
        let mut counted = (*current).clone();
        let status = counted.status.get_or_insert_default();
        status.hard = counted.spec.as_ref().and_then(|s| s.hard.clone());
        status.used = Some(used.to_list());
        if counted.status != current.status {
            let operation = Operation::Update(Payload::Typed(Box::new(counted)), WriteParams::default());
            let request = client.request(self.kind.clone(), Some(namespace), operation);
            let (name, subresource) = (Some(name.to_owned()), Some("status".to_owned()));
            client.call(ApiRequest { name, subresource, ..request }).await?;
        }
        Ok(Action::RequeueAfter(PERIOD))
    }
}
