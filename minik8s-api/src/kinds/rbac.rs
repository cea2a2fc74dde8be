//! Group `rbac.authorization.k8s.io`.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use crate::kind::Kind;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<Role>().schema().build(),
        Kind::of::<RoleBinding>().schema().build(),
        Kind::of::<ClusterRole>().schema().build(),
        Kind::of::<ClusterRoleBinding>().schema().build(),
    ]
}
