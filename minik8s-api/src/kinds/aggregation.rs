//! Groups `apiregistration.k8s.io` and `flowcontrol.apiserver.k8s.io`: how API servers share their work. The objects
//! are kept; nothing acts on them.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use crate::kind::Kind;
use crate::table::aggregation as table;
use crate::validate::aggregation as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<APIService>()
            .validate(validate::api_service)
            .table(table::service_columns(), table::service)
            .categories(&["api-extensions"])
            .status()
            .generation(false)
            .prepare_for_create(|s| s.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<FlowSchema>()
            .table(table::schema_columns(), table::schema)
            .status()
            .prepare_for_create(|s| s.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<PriorityLevelConfiguration>()
            .table(table::level_columns(), table::level)
            .status()
            .prepare_for_create(|l| l.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
