//! Group `autoscaling`.

use k8s_openapi::api::autoscaling::{v1, v2};

use crate::kind::Kind;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<v2::HorizontalPodAutoscaler>()
            .short_names(&["hpa"])
            .categories(&["all"])
            .status()
            .generation(false)
            .prepare_for_create(|h| h.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<v1::HorizontalPodAutoscaler>()
            .short_names(&["hpa"])
            .categories(&["all"])
            .status()
            .generation(false)
            .prepare_for_create(|h| h.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
