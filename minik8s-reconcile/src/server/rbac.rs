//! Role-based access control: who is bound to which role, and what roles allow
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/>).

mod bootstrap;
mod default_roles;
mod escalation;
mod policy;
mod rules;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule, SubjectRulesReviewStatus};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};

use self::policy::{Part, Policy};
use super::authorizer::{Action, Authorizer, Decision};
use super::follow::{Follower, Index};
use crate::request::User;
use crate::storage::{Storage, StorageError};
use crate::stored::Stored;

pub use self::bootstrap::bootstrap;
pub(super) use self::escalation::may_grant;

/// The group of those who may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";
/// The group of the API.
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

const ROLES: &str = "roles.rbac.authorization.k8s.io";
const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

/// Allows what the stored roles and bindings say, and everything to members of `system:masters`.
///
/// It answers from an index of its own, which follows the storage for as long as this lives.
pub struct Rbac {
    policy: Arc<Shared>,
    follower: Follower,
}

#[derive(Default)]
struct Shared(RwLock<Policy>);

impl Rbac {
    /// Authorizes by the roles in `storage`.
    ///
    /// # Errors
    /// The storage does not answer.
    ///
    /// # Panics
    /// Not in a tokio runtime.
    pub async fn start(storage: Arc<dyn Storage>) -> Result<Self, StorageError> {
        let policy = Arc::new(Shared::default());
        let shards = [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS];
        let follower = Follower::start(storage, &shards, policy.clone()).await?;
        Ok(Self { policy, follower })
    }
}

impl fmt::Debug for Rbac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rbac")
    }
}

/// Whether one of the rules allows the action.
pub(super) fn any_allows(of: &[PolicyRule], action: &Action<'_>) -> bool {
    of.iter().any(|rule| rules::allows(rule, action))
}

/// What nodes may do apart from what depends on the node.
pub(super) fn node_rules() -> Vec<PolicyRule> {
    default_roles::NODE.iter().map(|rule| rule.to_policy()).collect()
}

/// Whether the user may do everything, whatever the roles say.
pub(super) fn is_master(user: &User) -> bool {
    user.groups.iter().any(|g| g == MASTERS)
}

#[async_trait]
impl Authorizer for Rbac {
    fn authorize(&self, user: &User, action: &Action<'_>) -> Decision {
        if is_master(user) {
            return Decision::allow(String::new());
        }
        let namespace = match action {
            Action::Resource { namespace, .. } => namespace,
            Action::NonResource { .. } => "",
        };
        let policy = self.policy.0.read().expect("no writer panics");
        let mut missing = Vec::new();
        let granted = policy.visit(user, namespace, |(grant, rules)| match rules {
            Some(rules) if rules.iter().any(|rule| rules::allows(rule, action)) => {
                ControlFlow::Break(grant.explain())
            }
            Some(_) => ControlFlow::Continue(()),
            None => {
                let kind = grant.role.kind.to_lowercase();
                missing.push(format!("{kind}.{GROUP} {:?} not found", grant.role.name));
                ControlFlow::Continue(())
            }
        });
        match (granted, missing.as_slice()) {
            (Some(reason), _) => Decision::allow(reason),
            (None, []) => Decision::no_opinion(String::new()),
            (None, [one]) => Decision::no_opinion(format!("RBAC: {one}")),
            (None, all) => Decision::no_opinion(format!("RBAC: [{}]", all.join(", "))),
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus {
        let mut status = SubjectRulesReviewStatus::default();
        if is_master(user) {
            let all = || vec!["*".to_owned()];
            add(
                &mut status,
                &PolicyRule {
                    api_groups: Some(all()),
                    non_resource_urls: Some(all()),
                    resource_names: None,
                    resources: Some(all()),
                    verbs: all(),
                },
            );
        }
        let policy = self.policy.0.read().expect("no writer panics");
        policy.visit(user, namespace, |(_, rules)| {
            rules.into_iter().flatten().for_each(|rule| add(&mut status, rule));
            ControlFlow::<()>::Continue(())
        });
        status
    }

    async fn settle(&self) -> Result<(), StorageError> {
        self.follower.settle().await
    }
}

/// Lists one more rule.
fn add(status: &mut SubjectRulesReviewStatus, rule: &PolicyRule) {
    if rule.resources.as_ref().is_some_and(|r| !r.is_empty()) {
        status.resource_rules.push(ResourceRule {
            api_groups: rule.api_groups.clone(),
            resource_names: rule.resource_names.clone(),
            resources: rule.resources.clone(),
            verbs: rule.verbs.clone(),
        });
    }
    if rule.non_resource_urls.as_ref().is_some_and(|u| !u.is_empty()) {
        let non_resource_urls = rule.non_resource_urls.clone();
        status.non_resource_rules.push(NonResourceRule { non_resource_urls, verbs: rule.verbs.clone() });
    }
}

impl Index for Shared {
    fn replace(&self, shard: &str, objects: &[(Arc<str>, Stored)]) {
        {
            let mut policy = self.0.write().expect("no writer panics");
            match shard {
                ROLES | CLUSTER_ROLES => policy.clear_roles(shard == CLUSTER_ROLES),
                _ => policy.clear_bindings(shard == CLUSTER_ROLE_BINDINGS),
            }
            for (key, object) in objects {
                set(&mut policy, shard, key, Some(object));
            }
        }
    }

    fn set(&self, shard: &str, key: &str, object: Option<&Stored>) {
        set(&mut self.0.write().expect("no writer panics"), shard, key, object);
    }
}

fn set(policy: &mut Policy, shard: &str, key: &str, object: Option<&Stored>) {
    let place = key.split_once('/').map_or("", |(_, place)| place);
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    let put = match (shard, object) {
        (ROLES | CLUSTER_ROLES, None) => return policy.set_role(namespace, name, None),
        (_, None) => return policy.set_binding(namespace, name, None),
        (ROLES, Some(object)) => put::<Role>(policy, namespace, name, object),
        (CLUSTER_ROLES, Some(object)) => put::<ClusterRole>(policy, namespace, name, object),
        (ROLE_BINDINGS, Some(object)) => put::<RoleBinding>(policy, namespace, name, object),
        (_, Some(object)) => put::<ClusterRoleBinding>(policy, namespace, name, object),
    };
    if let Err(error) = put {
        // What cannot be read gives nobody anything.
        tracing::error!(key, %error, "a role or binding cannot be read");
        set(policy, shard, key, None);
    }
}

fn put<P: Part>(
    policy: &mut Policy,
    namespace: &str,
    name: &str,
    object: &Stored,
) -> Result<(), minik8s_api::DecodeError> {
    object.typed::<P>()?.put(policy, namespace, name);
    Ok(())
}

#[cfg(test)]
mod tests;
