//! Roles and bindings.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{age, columns, created, name, row};
use crate::kind::{Cell, Column};

pub(crate) fn role_columns() -> Vec<Column> {
    columns!["Created At" "When the object was created."]
}

pub(crate) fn role(role: &Role, _: Timestamp) -> Vec<Cell> {
    row![name(&role.metadata), created(&role.metadata)]
}

pub(crate) fn cluster_role(role: &ClusterRole, _: Timestamp) -> Vec<Cell> {
    row![name(&role.metadata), created(&role.metadata)]
}

pub(crate) fn binding_columns() -> Vec<Column> {
    columns![
        "Role" "The role that is given.",
        "Age" "How long ago the object was created.",
        "Users" "The users it is given to.": wide,
        "Groups" "The groups it is given to.": wide,
        "ServiceAccounts" "The service accounts it is given to.": wide,
    ]
}

pub(crate) fn role_binding(binding: &RoleBinding, now: Timestamp) -> Vec<Cell> {
    let subjects = binding.subjects.as_deref().unwrap_or_default();
    self::binding(&binding.metadata, &binding.role_ref, subjects, now)
}

pub(crate) fn cluster_role_binding(binding: &ClusterRoleBinding, now: Timestamp) -> Vec<Cell> {
    let subjects = binding.subjects.as_deref().unwrap_or_default();
    self::binding(&binding.metadata, &binding.role_ref, subjects, now)
}

fn binding(metadata: &ObjectMeta, role: &RoleRef, subjects: &[Subject], now: Timestamp) -> Vec<Cell> {
    let of = |kind: &str| {
        let subjects = subjects.iter().filter(|s| s.kind == kind);
        let names = subjects.map(|s| match (kind, &s.namespace) {
            ("ServiceAccount", namespace) => {
                format!("{}/{}", namespace.as_deref().unwrap_or_default(), s.name)
            }
            _ => s.name.clone(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    row![
        name(metadata),
        format!("{}/{}", role.kind, role.name),
        age(metadata, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}
