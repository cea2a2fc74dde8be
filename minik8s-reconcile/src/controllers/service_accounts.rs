//! Gives every namespace its default service account.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::{Kind, Registry};

use crate::cache::Caches;
use crate::controller::Controller;
use crate::key::Key;
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;

/// The account that every namespace has.
const NAME: &str = "default";

/// The controller, to be given to a [`crate::Manager`].
///
/// # Panics
/// The registry has no service accounts.
pub fn controller(registry: &Registry) -> Controller<impl Reconciler> {
    let kind = registry.of::<ServiceAccount>().expect("service accounts are a kind of the server").clone();
    Controller::new("serviceaccount-controller", Planned(ServiceAccounts { kind }))
        .maps::<ServiceAccount>(|account| super::root_ca::namespace_of(&account.metadata, NAME))
}

struct ServiceAccounts {
    kind: Arc<Kind>,
}

impl Planner for ServiceAccounts {
    type Object = Namespace;
    /// Whether the account is there.
    type World = bool;

    fn observe(&self, namespace: &Namespace, caches: &Caches) -> bool {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        caches.of::<ServiceAccount>().get(&Key::new(name, NAME)).is_some()
    }

    fn plan(&self, namespace: &Namespace, there: &bool, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if !there && namespace.metadata.deletion_timestamp.is_none() {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: namespace.metadata.name.clone(),
                ..ObjectMeta::default()
            };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            plan.changes.push(Change::Create(Box::new(account), self.kind.clone()));
        }
        plan
    }
}
