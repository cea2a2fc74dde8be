//! Group `resource.k8s.io`: devices and claims on them.

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};

use crate::kind::Kind;
use crate::table::resource as table;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<DeviceClass>().generation(true).schema().build(),
        Kind::of::<ResourceClaim>()
            .table(table::claim_columns(), table::claim)
            .status()
            .generation(false)
            .returns_deleted()
            .prepare_for_create(|c| c.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<ResourceClaimTemplate>().schema().build(),
        Kind::of::<ResourceSlice>()
            .table(table::slice_columns(), table::slice)
            .generation(true)
            .selectable("spec.nodeName", |s| s.spec.node_name.clone().unwrap_or_default())
            .selectable("spec.driver", |s| s.spec.driver.clone())
            .schema()
            .build(),
    ]
}
