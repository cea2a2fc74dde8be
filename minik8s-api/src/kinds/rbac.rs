//! Group `rbac.authorization.k8s.io`.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use crate::kind::Kind;
use crate::table::rbac as table;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<Role>()
            .table(table::role_columns(), table::role)
            .schema()
            .build(),
        Kind::of::<RoleBinding>()
            .table(table::binding_columns(), table::role_binding)
            .schema()
            .build(),
        Kind::of::<ClusterRole>()
            .table(table::role_columns(), table::cluster_role)
            .schema()
            .build(),
        Kind::of::<ClusterRoleBinding>()
            .table(table::binding_columns(), table::cluster_role_binding)
            .schema()
            .build(),
    ]
}
