//! Group `storage.k8s.io`.

use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};

use crate::kind::Kind;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<StorageClass>()
            .short_names(&["sc"])
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<CSIDriver>().returns_deleted().schema().build(),
        Kind::of::<CSINode>().returns_deleted().schema().build(),
        Kind::of::<CSIStorageCapacity>()
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<VolumeAttachment>()
            .status()
            .generation(false)
            .returns_deleted()
            .prepare_for_create(|v| v.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
