//! The roles and bindings of a cluster, in the order in which they are asked for. A plain data structure.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use crate::request::User;

/// What the user names of service accounts begin with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The role that a binding gives, and to whom.
#[derive(Debug, PartialEq)]
pub(super) struct Grant {
    /// The binding's name.
    pub(super) binding: String,
    /// The binding's namespace; empty for one of the cluster.
    pub(super) namespace: String,
    /// The role.
    pub(super) role: RoleRef,
    /// The subject, as the binding names it.
    subject: Subject,
}

impl Grant {
    /// The sentence that explains a permission.
    pub(super) fn explain(&self) -> String {
        let Self { binding, namespace, role, subject } = self;
        let (kind, binding) = match namespace.as_str() {
            "" => ("ClusterRoleBinding", binding.clone()),
            namespace => ("RoleBinding", format!("{binding}/{namespace}")),
        };
        let who = match subject.kind.as_str() {
            "ServiceAccount" => {
                let home = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
                format!("{}/{home}", subject.name)
            }
            _ => subject.name.clone(),
        };
        format!(
            "RBAC: allowed by {kind} {binding:?} of {} {:?} to {} {who:?}",
            role.kind, role.name, subject.kind
        )
    }
}

/// Grants by the names of those who have them, and then by the names of bindings.
type BySubject = BTreeMap<String, BTreeMap<String, Arc<Grant>>>;

/// Grants of users and of groups.
#[derive(Debug, Default, PartialEq)]
struct Grants {
    users: BySubject,
    groups: BySubject,
}

impl Grants {
    fn to(&mut self, subject: &Subject) -> Option<(&mut BySubject, String)> {
        match subject.kind.as_str() {
            "User" => Some((&mut self.users, subject.name.clone())),
            "Group" => Some((&mut self.groups, subject.name.clone())),
            "ServiceAccount" => {
                let namespace = subject.namespace.as_deref().unwrap_or_default();
                Some((&mut self.users, format!("{SERVICE_ACCOUNT}{namespace}:{}", subject.name)))
            }
            _ => None,
        }
    }
}

/// The roles and bindings of a cluster.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Policy {
    /// By namespace, which is empty for cluster roles, and name.
    roles: BTreeMap<String, BTreeMap<String, Arc<[PolicyRule]>>>,
    /// By namespace, as above.
    grants: BTreeMap<String, Grants>,
    /// The subjects of each binding, to find its grants again.
    bindings: BTreeMap<(String, String), Vec<Subject>>,
}

/// What a grant comes to: its rules, unless its role is missing.
pub(super) type Granted<'a> = (&'a Grant, Option<&'a [PolicyRule]>);

impl Policy {
    /// Puts a role in, or takes it out.
    pub(super) fn set_role(&mut self, namespace: &str, name: &str, rules: Option<Vec<PolicyRule>>) {
        let roles = self.roles.entry(namespace.to_owned()).or_default();
        match rules {
            Some(rules) => drop(roles.insert(name.to_owned(), rules.into())),
            None => drop(roles.remove(name)),
        }
        if roles.is_empty() {
            self.roles.remove(namespace);
        }
    }

    /// Puts a binding in, in place of the one before, or takes it out.
    pub(super) fn set_binding(
        &mut self,
        namespace: &str,
        name: &str,
        binding: Option<(RoleRef, Vec<Subject>)>,
    ) {
        let at = (namespace.to_owned(), name.to_owned());
        let grants = self.grants.entry(namespace.to_owned()).or_default();
        for subject in self.bindings.remove(&at).unwrap_or_default() {
            if let Some((table, who)) = grants.to(&subject)
                && let Some(bindings) = table.get_mut(&who)
            {
                bindings.remove(name);
                if bindings.is_empty() {
                    table.remove(&who);
                }
            }
        }
        if let Some((role, subjects)) = binding {
            for subject in &subjects {
                if let Some((table, who)) = grants.to(subject) {
                    let grant = Grant {
                        binding: name.to_owned(),
                        namespace: namespace.to_owned(),
                        role: role.clone(),
                        subject: subject.clone(),
                    };
                    table.entry(who).or_default().entry(name.to_owned()).or_insert_with(|| Arc::new(grant));
                }
            }
            self.bindings.insert(at, subjects);
        }
        if *grants == Grants::default() {
            self.grants.remove(namespace);
        }
    }

    /// Forgets all roles, of the cluster or of namespaces.
    pub(super) fn clear_roles(&mut self, of_cluster: bool) {
        self.roles.retain(|namespace, _| namespace.is_empty() != of_cluster);
    }

    /// Forgets all bindings, of the cluster or of namespaces.
    pub(super) fn clear_bindings(&mut self, of_cluster: bool) {
        self.grants.retain(|namespace, _| namespace.is_empty() != of_cluster);
        self.bindings.retain(|(namespace, _), _| namespace.is_empty() != of_cluster);
    }

    /// Shows `visit` what is granted to `user`, in the whole cluster and then in `namespace` (if it is not empty), until
    /// it has seen enough.
    pub(super) fn visit<'a, T>(
        &'a self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(Granted<'a>) -> ControlFlow<T>,
    ) -> Option<T> {
        let places = [Some(""), Some(namespace).filter(|n| !n.is_empty())];
        for grants in places.into_iter().flatten().filter_map(|place| self.grants.get(place)) {
            let own = grants.users.get(&*user.name);
            let shared = user.groups.iter().filter_map(|group| grants.groups.get(group));
            for grant in own.into_iter().chain(shared).flat_map(BTreeMap::values) {
                let rules = self.rules(&grant.role, &grant.namespace);
                if let ControlFlow::Break(done) = visit((grant, rules)) {
                    return Some(done);
                }
            }
        }
        None
    }

    /// The rules of a role that a binding in `namespace` names.
    fn rules(&self, role: &RoleRef, namespace: &str) -> Option<&[PolicyRule]> {
        let home = if role.kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(home)?.get(&role.name).map(|rules| &**rules)
    }
}

/// A stored object that the policy is made of.
pub(super) trait Part: minik8s_api::Resource {
    /// Puts it in.
    fn put(&self, policy: &mut Policy, namespace: &str, name: &str);
}

impl Part for Role {
    fn put(&self, policy: &mut Policy, namespace: &str, name: &str) {
        policy.set_role(namespace, name, Some(self.rules.clone().unwrap_or_default()));
    }
}

impl Part for ClusterRole {
    fn put(&self, policy: &mut Policy, _namespace: &str, name: &str) {
        policy.set_role("", name, Some(self.rules.clone().unwrap_or_default()));
    }
}

impl Part for RoleBinding {
    fn put(&self, policy: &mut Policy, namespace: &str, name: &str) {
        let subjects = self.subjects.clone().unwrap_or_default();
        policy.set_binding(namespace, name, Some((self.role_ref.clone(), subjects)));
    }
}

impl Part for ClusterRoleBinding {
    fn put(&self, policy: &mut Policy, _namespace: &str, name: &str) {
        let subjects = self.subjects.clone().unwrap_or_default();
        policy.set_binding("", name, Some((self.role_ref.clone(), subjects)));
    }
}

#[cfg(test)]
mod tests;
