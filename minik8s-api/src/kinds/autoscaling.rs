//! Group `autoscaling`.

use k8s_openapi::api::autoscaling::{v1, v2};

use crate::conversion;
use crate::default::autoscaling;
use crate::kind::Kind;
use crate::table::autoscaling as table;
use crate::validate::cluster as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<v2::HorizontalPodAutoscaler>()
            .defaults(autoscaling::autoscaler)
            .validate(validate::autoscaler)
            .table(table::columns(), table::row)
            .short_names(&["hpa"])
            .categories(&["all"])
            .status()
            .generation(false)
            .prepare_for_create(|h| h.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<v1::HorizontalPodAutoscaler>()
            .defaults(autoscaling::autoscaler_v1)
            .validate(validate::autoscaler_v1)
            .table(table::columns(), table::row_v1)
            .short_names(&["hpa"])
            .categories(&["all"])
            .status()
            .generation(false)
            .prepare_for_create(|h| h.status = Some(Default::default()))
            .stored_as(conversion::to_v2, conversion::from_v2)
            .schema()
            .build(),
    ]
}
