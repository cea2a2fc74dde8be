//! Puts together the rules of cluster roles that are made of others
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles>).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use minik8s_api::{Kind, Registry, Selector};

use crate::cache::Caches;
use crate::controller::Controller;
use crate::key::Key;
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;

/// The controller, to be given to a [`crate::Manager`].
///
/// # Panics
/// The registry has no cluster roles.
pub fn controller(registry: &Registry) -> Controller<impl Reconciler> {
    let kind = registry.of::<ClusterRole>().expect("cluster roles are a kind of the server").clone();
    Controller::new("clusterrole-aggregation-controller", Planned(Aggregation { kind }))
        .maps_with::<ClusterRole>(|_, roles| {
            let whole = roles.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            whole.map(|role| Key::of(&*role)).collect()
        })
}

struct Aggregation {
    kind: Arc<Kind>,
}

impl Planner for Aggregation {
    type Object = ClusterRole;
    /// The roles that the object is made of, by name.
    type World = Vec<Arc<ClusterRole>>;

    fn observe(&self, role: &ClusterRole, caches: &Caches) -> Self::World {
        match &role.aggregation_rule {
            Some(_) => caches.of::<ClusterRole>().list(),
            None => Vec::new(),
        }
    }

    fn plan(&self, role: &ClusterRole, all: &Self::World, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(rules) = aggregated(role, all) else { return plan };
        if rules != role.rules.as_deref().unwrap_or_default() {
            let update = ClusterRole { rules: Some(rules).filter(|r| !r.is_empty()), ..role.clone() };
            plan.changes.push(Change::Update(Box::new(update), self.kind.clone()));
        }
        plan
    }
}

/// The rules of all roles that are selected, each once, in the order of the roles' names; nothing for a role that is
/// not made of others.
fn aggregated(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    // A selector that makes no sense selects nothing; it has been refused when it was written.
    let selectors: Vec<Selector> =
        selectors.iter().filter_map(|s| Selector::from_label_selector(s).ok()).collect();
    let none = BTreeMap::new();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for other in all.iter().filter(|other| other.metadata.name != role.metadata.name) {
        let labels = other.metadata.labels.as_ref().unwrap_or(&none);
        if selectors.iter().any(|s| s.matches(labels)) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::AggregationRule;
    use serde_json::json;

    use super::*;

    fn role(name: &str, label: &str, verb: &str) -> ClusterRole {
        let rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": [verb] });
        let body = json!({ "metadata": { "name": name, "labels": { "to": label } }, "rules": [rule] });
        serde_json::from_value(body).expect("a role")
    }

    fn whole(name: &str, of: &str) -> ClusterRole {
        let selector = json!({ "matchLabels": { "to": of } });
        let rule: AggregationRule =
            serde_json::from_value(json!({ "clusterRoleSelectors": [selector] })).expect("a rule");
        ClusterRole { aggregation_rule: Some(rule), ..role(name, of, "made by hand") }
    }

    fn world(roles: &[&ClusterRole]) -> Vec<Arc<ClusterRole>> {
        roles.iter().map(|r| Arc::new((*r).clone())).collect()
    }

    #[test]
    fn a_role_is_made_of_those_it_selects() {
        let kind = Registry::builtin().of::<ClusterRole>().expect("a kind").clone();
        let planner = Aggregation { kind };
        let (a, b, c) = (role("a", "x", "get"), role("b", "y", "list"), role("c", "x", "watch"));
        let same = role("d", "x", "get");
        let x = whole("x", "x");
        let all = world(&[&a, &b, &c, &same, &x]);
        let plan = planner.plan(&x, &all, Timestamp::UNIX_EPOCH);
        let [Change::Update(update, _)] = plan.changes.as_slice() else { panic!("{plan:?}") };
        let update = update.downcast_ref::<ClusterRole>().expect("a role");
        let verbs: Vec<_> = update.rules.iter().flatten().flat_map(|r| r.verbs.clone()).collect();
        assert_eq!(verbs, ["get", "watch"]);
        assert!(planner.plan(update, &all, Timestamp::UNIX_EPOCH).changes.is_empty(), "done is done");
        assert!(planner.plan(&a, &all, Timestamp::UNIX_EPOCH).changes.is_empty(), "others are left alone");
    }
}
