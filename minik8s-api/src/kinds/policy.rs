//! Group `policy`.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::kind::Kind;
use crate::table::cluster as table;
use crate::validate::cluster as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<PodDisruptionBudget>()
            .validate(validate::disruption_budget)
            .table(table::budget_columns(), table::budget)
            .short_names(&["pdb"])
            .status()
            .prepare_for_create(|p| p.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
