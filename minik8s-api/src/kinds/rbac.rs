//! Group `rbac.authorization.k8s.io`.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use crate::default::cluster as default;
use crate::kind::Kind;
use crate::table::rbac as table;
use crate::validate::cluster as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<Role>()
            .validate(validate::role)
            .table(table::role_columns(), table::role)
            .schema()
            .build(),
        Kind::of::<RoleBinding>()
            .defaults(default::role_binding)
            .validate(validate::role_binding)
            .validate_update(validate::role_binding_update)
            .table(table::binding_columns(), table::role_binding)
            .schema()
            .build(),
        Kind::of::<ClusterRole>()
            .validate(validate::cluster_role)
            .table(table::role_columns(), table::cluster_role)
            .schema()
            .build(),
        Kind::of::<ClusterRoleBinding>()
            .defaults(default::cluster_role_binding)
            .validate(validate::cluster_role_binding)
            .validate_update(validate::cluster_role_binding_update)
            .table(table::binding_columns(), table::cluster_role_binding)
            .schema()
            .build(),
    ]
}
