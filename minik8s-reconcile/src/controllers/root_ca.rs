//! Tells every namespace by which authority the API server is known: the ConfigMap `kube-root-ca.crt`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::{Kind, Registry};

use crate::cache::Caches;
use crate::controller::Controller;
use crate::key::Key;
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;

/// The name of the ConfigMap.
pub const NAME: &str = "kube-root-ca.crt";
/// The key in it.
pub const KEY: &str = "ca.crt";

/// The controller, to be given to a [`crate::Manager`]; `certificate` is the authority's, as PEM.
///
/// # Panics
/// The registry has no ConfigMaps.
pub fn controller(registry: &Registry, certificate: &str) -> Controller<impl Reconciler> {
    let kind = registry.of::<ConfigMap>().expect("ConfigMaps are a kind of the server").clone();
    let data = BTreeMap::from([(KEY.to_owned(), certificate.to_owned())]);
    Controller::new("root-ca-certificate-publisher", Planned(RootCa { kind, data }))
        .maps::<ConfigMap>(|map| namespace_of(&map.metadata, NAME))
}

/// The key of the namespace that an object is in, if the object is called `name`.
pub(super) fn namespace_of(metadata: &ObjectMeta, name: &str) -> Vec<Key> {
    let namespace = metadata.namespace.as_deref().filter(|_| metadata.name.as_deref() == Some(name));
    namespace.map(|namespace| Key::new("", namespace)).into_iter().collect()
}

struct RootCa {
    kind: Arc<Kind>,
    data: BTreeMap<String, String>,
}

impl Planner for RootCa {
    type Object = Namespace;
    type World = Option<Arc<ConfigMap>>;

    fn observe(&self, namespace: &Namespace, caches: &Caches) -> Self::World {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        caches.of::<ConfigMap>().get(&Key::new(name, NAME))
    }

    fn plan(&self, namespace: &Namespace, there: &Self::World, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let data = Some(self.data.clone());
        match there {
            _ if namespace.metadata.deletion_timestamp.is_some() => {}
            Some(map) if map.data == data => {}
            Some(map) => {
                let map = ConfigMap { data, ..(**map).clone() };
                plan.changes.push(Change::Update(Box::new(map), self.kind.clone()));
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: namespace.metadata.name.clone(),
                    ..ObjectMeta::default()
                };
                let map = ConfigMap { metadata, data, ..ConfigMap::default() };
                plan.changes.push(Change::Create(Box::new(map), self.kind.clone()));
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_is_told_and_told_again() {
        let kind = Registry::builtin().of::<ConfigMap>().expect("a kind").clone();
        let data = BTreeMap::from([(KEY.to_owned(), "certificate".to_owned())]);
        let planner = RootCa { kind, data };
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("a".to_owned());
        let now = Timestamp::UNIX_EPOCH;
        let plan = planner.plan(&namespace, &None, now);
        let [Change::Create(made, _)] = plan.changes.as_slice() else { panic!("{plan:?}") };
        let made = made.downcast_ref::<ConfigMap>().expect("a map").clone();
        assert_eq!(made.metadata.namespace.as_deref(), Some("a"));
        assert!(planner.plan(&namespace, &Some(Arc::new(made.clone())), now).changes.is_empty());
        let spoilt = ConfigMap { data: None, ..made };
        let plan = planner.plan(&namespace, &Some(Arc::new(spoilt)), now);
        assert!(matches!(plan.changes.as_slice(), [Change::Update(..)]), "{plan:?}");
        namespace.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        assert!(planner.plan(&namespace, &None, now).changes.is_empty(), "let it go");
    }
}
