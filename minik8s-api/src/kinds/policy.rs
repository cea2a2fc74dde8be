//! Group `policy`.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::kind::Kind;
use crate::table::cluster as table;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<PodDisruptionBudget>()
            .table(table::budget_columns(), table::budget)
            .short_names(&["pdb"])
            .status()
            .prepare_for_create(|p| p.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
