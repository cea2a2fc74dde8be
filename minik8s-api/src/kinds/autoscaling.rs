//! Group `autoscaling`.

use k8s_openapi::api::autoscaling::{v1, v2};

use crate::kind::Kind;
use crate::table::autoscaling as table;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<v2::HorizontalPodAutoscaler>()
            .table(table::columns(), table::row)
            .short_names(&["hpa"])
            .categories(&["all"])
            .status()
            .generation(false)
            .prepare_for_create(|h| h.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<v1::HorizontalPodAutoscaler>()
            .table(table::columns(), table::row_v1)
            .short_names(&["hpa"])
            .categories(&["all"])
            .status()
            .generation(false)
            .prepare_for_create(|h| h.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
