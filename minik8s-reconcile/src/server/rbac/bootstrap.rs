//! Makes the default roles and bindings, and adds to those that are there what they lack.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use minik8s_api::Resource;

use super::default_roles::{BINDINGS, DefaultBinding, DefaultRole, ROLES, Rule};
use super::rules;
use crate::client::{Api, Client};
use crate::error::ApiError;
use crate::request::DeleteParams;

/// Whether a start may add to a default role or binding what it lacks: unless it says `false`.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// What says into which roles a role's rules go begins so.
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";
/// How often a write is tried that others get in the way of.
const ATTEMPTS: usize = 8;

/// Makes the roles and bindings that every cluster has. Where they exist, what they lack is added, unless their
/// annotation `rbac.authorization.kubernetes.io/autoupdate` is `false`; nothing is taken away.
///
/// # Errors
/// The server does not answer, or `client` may not do that.
pub async fn bootstrap(client: &Client) -> Result<(), ApiError> {
    // All at once: writes that wait go to the disk together.
    try_join_all(ROLES.iter().map(|role| async move {
        if role.namespace.is_empty() {
            reconcile(&client.all::<ClusterRole>(), cluster_role(role)).await
        } else {
            reconcile(&client.namespaced::<Role>(role.namespace), namespaced_role(role)).await
        }
    }))
    .await?;
    try_join_all(BINDINGS.iter().map(|binding| async move {
        if binding.namespace.is_empty() {
            reconcile(&client.all::<ClusterRoleBinding>(), cluster_binding(binding)).await
        } else {
            reconcile(&client.namespaced::<RoleBinding>(binding.namespace), namespaced_binding(binding)).await
        }
    }))
    .await?;
    Ok(())
}

/// A role or binding that may lack something.
trait Built: Resource {
    /// Whether it is so different that a new one has to take its place.
    fn replaces(&self, _existing: &Self) -> bool {
        false
    }
    /// Adds to `existing` what it lacks of this.
    fn complete(&self, existing: &mut Self);
}

async fn reconcile<K: Built>(api: &Api<K>, wanted: K) -> Result<(), ApiError> {
    let name = wanted.meta().name.clone().unwrap_or_default();
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(existing) = api.get_opt(&name).await? else {
            match api.create(&wanted).await {
                Err(e) if e.is_already_exists() => {
                    last = Some(e);
                    continue;
                }
                done => return done.map(drop),
            }
        };
        let annotation = |o: &K| o.meta().annotations.as_ref().and_then(|a| a.get(AUTO_UPDATE)).cloned();
        if annotation(&existing).as_deref() == Some("false") {
            return Ok(());
        }
        if wanted.replaces(&existing) {
            let this = DeleteParams { uid: existing.meta().uid.clone(), ..DeleteParams::default() };
            match api.delete(&name, &this).await {
                Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e),
                _ => continue,
            }
        }
        let mut complete = (*existing).clone();
        add(&mut complete.meta_mut().annotations, &wanted.meta().annotations);
        add(&mut complete.meta_mut().labels, &wanted.meta().labels);
        wanted.complete(&mut complete);
        match api.update(&complete).await {
            Err(e) if e.is_conflict() || e.is_not_found() => last = Some(e),
            done => return done.map(drop),
        }
    }
    Err(last.unwrap_or_else(|| ApiError::timeout(format!("{name} keeps changing"))))
}

/// Adds what is not there by that name.
fn add(to: &mut Option<BTreeMap<String, String>>, from: &Option<BTreeMap<String, String>>) {
    for (key, value) in from.iter().flatten() {
        to.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn complete_rules(existing: &mut Option<Vec<PolicyRule>>, wanted: &Option<Vec<PolicyRule>>) {
    let missing =
        rules::missing(existing.as_deref().unwrap_or_default(), wanted.as_deref().unwrap_or_default());
    if !missing.is_empty() {
        existing.get_or_insert_default().extend(missing);
    }
}

fn complete_subjects(existing: &mut Option<Vec<Subject>>, wanted: &Option<Vec<Subject>>) {
    for subject in wanted.iter().flatten() {
        let subjects = existing.get_or_insert_default();
        if !subjects.contains(subject) {
            subjects.push(subject.clone());
        }
    }
}

impl Built for Role {
    fn complete(&self, existing: &mut Self) {
        complete_rules(&mut existing.rules, &self.rules);
    }
}

impl Built for ClusterRole {
    fn complete(&self, existing: &mut Self) {
        let Some(rule) = &self.aggregation_rule else {
            return complete_rules(&mut existing.rules, &self.rules);
        };
        let selectors = existing.aggregation_rule.get_or_insert_default();
        for selector in rule.cluster_role_selectors.iter().flatten() {
            let selectors = selectors.cluster_role_selectors.get_or_insert_default();
            if !selectors.contains(selector) {
                selectors.push(selector.clone());
            }
        }
    }
}

impl Built for RoleBinding {
    fn replaces(&self, existing: &Self) -> bool {
        self.role_ref != existing.role_ref
    }

    fn complete(&self, existing: &mut Self) {
        complete_subjects(&mut existing.subjects, &self.subjects);
    }
}

impl Built for ClusterRoleBinding {
    fn replaces(&self, existing: &Self) -> bool {
        self.role_ref != existing.role_ref
    }

    fn complete(&self, existing: &mut Self) {
        complete_subjects(&mut existing.subjects, &self.subjects);
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

impl Rule {
    /// The rule as the API has it.
    pub(in crate::server) fn to_policy(self) -> PolicyRule {
        let groups = |text: &str| {
            let groups = text.split_whitespace();
            groups.map(|g| if g == "core" { String::new() } else { g.to_owned() }).collect()
        };
        match self {
            Self::On(verbs, of, resources) => PolicyRule {
                api_groups: Some(groups(of)),
                resources: Some(words(resources)),
                verbs: words(verbs),
                ..PolicyRule::default()
            },
            Self::Named(verbs, of, resources, names) => PolicyRule {
                api_groups: Some(groups(of)),
                resources: Some(words(resources)),
                resource_names: Some(words(names)),
                verbs: words(verbs),
                ..PolicyRule::default()
            },
            Self::Paths(verbs, paths) => PolicyRule {
                non_resource_urls: Some(words(paths)),
                verbs: words(verbs),
                ..PolicyRule::default()
            },
        }
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    let pair = |key: &str, value: &str| Some([(key.to_owned(), value.to_owned())].into());
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()).filter(|n| !n.is_empty()),
        labels: pair("kubernetes.io/bootstrapping", "rbac-defaults"),
        annotations: pair(AUTO_UPDATE, "true"),
        ..ObjectMeta::default()
    }
}

fn policy_rules(role: &DefaultRole) -> Option<Vec<PolicyRule>> {
    (!role.rules.is_empty()).then(|| role.rules.iter().map(|rule| rule.to_policy()).collect())
}

fn cluster_role(role: &DefaultRole) -> ClusterRole {
    let label = |to: &str| (format!("{AGGREGATE_TO}{to}"), "true".to_owned());
    let mut metadata = metadata("", role.name);
    if !role.goes_into.is_empty() {
        metadata.labels.get_or_insert_default().extend([label(role.goes_into)]);
    }
    let aggregation_rule = role.aggregates.then(|| {
        let match_labels = Some([label(role.name)].into());
        let selector = LabelSelector { match_labels, ..LabelSelector::default() };
        AggregationRule { cluster_role_selectors: Some(vec![selector]) }
    });
    ClusterRole { metadata, aggregation_rule, rules: policy_rules(role) }
}

fn namespaced_role(role: &DefaultRole) -> Role {
    Role { metadata: metadata(role.namespace, role.name), rules: policy_rules(role) }
}

fn subjects(binding: &DefaultBinding) -> Option<Vec<Subject>> {
    let subject = |&(kind, name): &(&str, &str)| match name.split_once('/') {
        Some((namespace, name)) if kind == "ServiceAccount" => Subject {
            api_group: None,
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
        },
        _ => Subject {
            api_group: Some(super::GROUP.to_owned()),
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: None,
        },
    };
    (!binding.subjects.is_empty()).then(|| binding.subjects.iter().map(subject).collect())
}

fn role_ref(binding: &DefaultBinding) -> RoleRef {
    let kind = if binding.namespace.is_empty() { "ClusterRole" } else { "Role" };
    RoleRef { api_group: Some(super::GROUP.to_owned()), kind: kind.to_owned(), name: binding.role.to_owned() }
}

fn cluster_binding(binding: &DefaultBinding) -> ClusterRoleBinding {
    let metadata = metadata("", binding.name);
    ClusterRoleBinding { metadata, role_ref: role_ref(binding), subjects: subjects(binding) }
}

fn namespaced_binding(binding: &DefaultBinding) -> RoleBinding {
    let metadata = metadata(binding.namespace, binding.name);
    RoleBinding { metadata, role_ref: role_ref(binding), subjects: subjects(binding) }
}
