//! Nobody gives what they do not have.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use minik8s_api::Object;

use super::rules;
use crate::error::ApiError;
use crate::server::key::Scope;
use crate::server::{ApiServer, authorizer};

/// What somebody is about to give.
enum Gift<'a> {
    /// What these rules allow, by writing them into a role.
    Rules(&'a [PolicyRule]),
    /// Whatever some roles allow or will allow, by aggregating them.
    Anything,
    /// What this role allows, by binding somebody to it.
    Role(&'a RoleRef),
}

/// Whether whoever asks may write the role or binding `new`, in place of `old`.
///
/// # Errors
/// 403, if it would give what they do not have themselves; 404, if they bind a role that does not exist.
pub(in crate::server) async fn may_grant(
    server: &ApiServer,
    scope: &Scope,
    old: Option<&dyn Object>,
    new: &dyn Object,
) -> Result<(), ApiError> {
    let Some(gift) = gift(old, new) else { return Ok(()) };
    let (user, kind) = (&scope.user, &scope.kind);
    let name = new.metadata().name.as_deref().unwrap_or_default();
    let namespace = scope.namespace.as_deref();
    let may = |verb: &str, resource: &str, name: &str| {
        let registry = server.registry();
        let kind = registry.by_path(super::GROUP, "v1", resource);
        kind.is_some_and(|kind| {
            let action = authorizer::action(kind, verb, namespace, Some(name), None);
            server.authorizer.authorize(user, &action).allowed
        })
    };
    let owned;
    let wanted: &[PolicyRule] = match gift {
        Gift::Role(role) => {
            let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
            if super::is_master(user) || may("bind", resource, &role.name) {
                return Ok(());
            }
            owned = rules_of(server, role, namespace).await?;
            &owned
        }
        _ if super::is_master(user) || may("escalate", &kind.plural, name) => return Ok(()),
        Gift::Rules(rules) => rules,
        Gift::Anything => {
            owned = everything();
            &owned
        }
    };
    let held = held(server, scope);
    let missing = rules::missing(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    if matches!(gift, Gift::Anything) {
        let why = "must have cluster-admin privileges to use an aggregationRule";
        return Err(ApiError::forbidden(kind, name, why));
    }
    let mut lines: Vec<String> = missing.iter().map(rules::describe).collect();
    lines.sort();
    let why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        &*user.name,
        rules::quoted(&user.groups),
        lines.join("\n")
    );
    Err(ApiError::forbidden(kind, name, why))
}

/// What the write gives that was not given before.
fn gift<'a>(old: Option<&'a dyn Object>, new: &'a dyn Object) -> Option<Gift<'a>> {
    fn rules(rules: &Option<Vec<PolicyRule>>) -> &[PolicyRule] {
        rules.as_deref().unwrap_or_default()
    }
    fn subjects(subjects: &Option<Vec<Subject>>) -> &[Subject] {
        subjects.as_deref().unwrap_or_default()
    }
    if let Some(role) = new.downcast_ref::<Role>() {
        let same = |old: &Role| rules(&old.rules) == rules(&role.rules);
        let old = old.and_then(|o| o.downcast_ref::<Role>());
        return (!old.is_some_and(same)).then(|| Gift::Rules(rules(&role.rules)));
    }
    if let Some(role) = new.downcast_ref::<ClusterRole>() {
        let old = old.and_then(|o| o.downcast_ref::<ClusterRole>());
        // Labels count: they say into which other roles the rules go.
        let same = |old: &ClusterRole| {
            rules(&old.rules) == rules(&role.rules)
                && old.aggregation_rule == role.aggregation_rule
                && old.metadata.labels == role.metadata.labels
        };
        let aggregates = |role: &ClusterRole| role.aggregation_rule.is_some();
        return match old {
            Some(old) if same(old) => None,
            old if aggregates(role) || old.is_some_and(aggregates) => Some(Gift::Anything),
            _ => Some(Gift::Rules(rules(&role.rules))),
        };
    }
    if let Some(binding) = new.downcast_ref::<RoleBinding>() {
        let same = |old: &RoleBinding| subjects(&old.subjects) == subjects(&binding.subjects);
        let old = old.and_then(|o| o.downcast_ref::<RoleBinding>());
        return (!old.is_some_and(same)).then_some(Gift::Role(&binding.role_ref));
    }
    let binding = new.downcast_ref::<ClusterRoleBinding>()?;
    let same = |old: &ClusterRoleBinding| subjects(&old.subjects) == subjects(&binding.subjects);
    let old = old.and_then(|o| o.downcast_ref::<ClusterRoleBinding>());
    (!old.is_some_and(same)).then_some(Gift::Role(&binding.role_ref))
}

/// The rules by which whoever asks acts in the namespace in question.
fn held(server: &ApiServer, scope: &Scope) -> Vec<PolicyRule> {
    let status = server.authorizer.rules(&scope.user, scope.namespace.as_deref().unwrap_or_default());
    let resources = status.resource_rules.into_iter().map(|rule| PolicyRule {
        api_groups: rule.api_groups,
        non_resource_urls: None,
        resource_names: rule.resource_names,
        resources: rule.resources,
        verbs: rule.verbs,
    });
    let paths = status.non_resource_rules.into_iter().map(|rule| PolicyRule {
        non_resource_urls: rule.non_resource_urls,
        verbs: rule.verbs,
        ..PolicyRule::default()
    });
    resources.chain(paths).collect()
}

fn everything() -> Vec<PolicyRule> {
    let all = || vec!["*".to_owned()];
    let resources =
        PolicyRule { api_groups: Some(all()), resources: Some(all()), verbs: all(), ..PolicyRule::default() };
    let paths = PolicyRule { non_resource_urls: Some(all()), verbs: all(), ..PolicyRule::default() };
    vec![resources, paths]
}

/// The rules of the role that a binding in `namespace` names.
async fn rules_of(
    server: &ApiServer,
    role: &RoleRef,
    namespace: Option<&str>,
) -> Result<Vec<PolicyRule>, ApiError> {
    let client = server.client();
    let rules = if role.kind == "ClusterRole" {
        client.all::<ClusterRole>().get(&role.name).await?.rules.clone()
    } else {
        client.namespaced::<Role>(namespace.unwrap_or_default()).get(&role.name).await?.rules.clone()
    };
    Ok(rules.unwrap_or_default())
}
