//! Group `storage.k8s.io`.

use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};

use crate::default::storage;
use crate::kind::Kind;
use crate::table::storage as table;
use crate::validate::cluster as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<StorageClass>()
            .defaults(storage::class)
            .validate(validate::storage_class)
            .validate_update(validate::storage_class_update)
            .table(table::class_columns(), table::storage_class)
            .short_names(&["sc"])
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<VolumeAttributesClass>()
            .table(table::attributes_columns(), table::attributes)
            .short_names(&["vac"])
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<CSIDriver>()
            .defaults(storage::driver)
            .table(table::driver_columns(), table::driver)
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<CSINode>().table(table::node_columns(), table::node).returns_deleted().schema().build(),
        Kind::of::<CSIStorageCapacity>()
            .table(table::capacity_columns(), table::storage_capacity)
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<VolumeAttachment>()
            .table(table::attachment_columns(), table::attachment)
            .status()
            .generation(false)
            .returns_deleted()
            .prepare_for_create(|v| v.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
