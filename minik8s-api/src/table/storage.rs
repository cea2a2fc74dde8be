//! Volumes, claims, classes and drivers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{NONE, UNSET, age, columns, joined, name, row, text};
use crate::kind::{Cell, Column};

/// The annotation by which classes were chosen before there was a field.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

fn access_modes(modes: Option<&Vec<String>>) -> String {
    let short = |m: &String| match m.as_str() {
        "ReadWriteOnce" => "RWO".to_owned(),
        "ReadOnlyMany" => "ROX".to_owned(),
        "ReadWriteMany" => "RWX".to_owned(),
        "ReadWriteOncePod" => "RWOP".to_owned(),
        _ => m.clone(),
    };
    modes.into_iter().flatten().map(short).collect::<Vec<_>>().join(",")
}

fn capacity(list: Option<&BTreeMap<String, Quantity>>) -> String {
    list.and_then(|l| l.get("storage")).map(|q| q.0.clone()).unwrap_or_default()
}

fn class(metadata: &ObjectMeta, class: Option<&String>) -> String {
    let old = metadata.annotations.as_ref().and_then(|a| a.get(OLD_CLASS));
    old.or(class).cloned().unwrap_or_default()
}

pub(crate) fn volume_columns() -> Vec<Column> {
    columns![
        "Capacity" "How much it holds.",
        "Access Modes" "How it can be mounted.",
        "Reclaim Policy" "What becomes of it when its claim goes.",
        "Status" "Whether it is free, bound or released.",
        "Claim" "Who has it.",
        "StorageClass" "Its class.",
        "VolumeAttributesClass" "The class of its attributes.",
        "Reason" "Why it has that status.",
        "Age" "How long ago the object was created.",
        "VolumeMode" "Whether it is a file system or a device.": wide,
    ]
}

pub(crate) fn volume(volume: &PersistentVolume, now: Timestamp) -> Vec<Cell> {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = volume.status.clone().unwrap_or_default();
    let going = volume.metadata.deletion_timestamp.is_some();
    let claim = spec.claim_ref.as_ref().map(|c| {
        let part = |p: &Option<String>| p.clone().unwrap_or_default();
        format!("{}/{}", part(&c.namespace), part(&c.name))
    });
    row![
        name(&volume.metadata),
        capacity(spec.capacity.as_ref()),
        access_modes(spec.access_modes.as_ref()),
        spec.persistent_volume_reclaim_policy.clone().unwrap_or_default(),
        if going { "Terminating".to_owned() } else { status.phase.unwrap_or_default() },
        claim.unwrap_or_default(),
        class(&volume.metadata, spec.storage_class_name.as_ref()),
        text(spec.volume_attributes_class_name.as_deref(), UNSET),
        status.reason.unwrap_or_default(),
        age(&volume.metadata, now),
        text(spec.volume_mode.as_deref(), UNSET),
    ]
}

pub(crate) fn claim_columns() -> Vec<Column> {
    columns![
        "Status" "Whether it has a volume.",
        "Volume" "The volume it has.",
        "Capacity" "How much that holds.",
        "Access Modes" "How that can be mounted.",
        "StorageClass" "The class it asks for.",
        "VolumeAttributesClass" "The class of attributes it asks for.",
        "Age" "How long ago the object was created.",
        "VolumeMode" "Whether it is a file system or a device.": wide,
    ]
}

pub(crate) fn claim(claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Cell> {
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    let going = claim.metadata.deletion_timestamp.is_some();
    let bound = spec.volume_name.as_deref().is_some_and(|v| !v.is_empty());
    row![
        name(&claim.metadata),
        if going { "Terminating".to_owned() } else { status.phase.clone().unwrap_or_default() },
        spec.volume_name.clone().unwrap_or_default(),
        if bound { capacity(status.capacity.as_ref()) } else { String::new() },
        if bound { access_modes(status.access_modes.as_ref()) } else { String::new() },
        class(&claim.metadata, spec.storage_class_name.as_ref()),
        text(spec.volume_attributes_class_name.as_deref(), UNSET),
        age(&claim.metadata, now),
        text(spec.volume_mode.as_deref(), UNSET),
    ]
}

pub(crate) fn class_columns() -> Vec<Column> {
    columns![
        "Provisioner" "Who makes its volumes.",
        "ReclaimPolicy" "What becomes of a volume when its claim goes.",
        "VolumeBindingMode" "When volumes are made.",
        "AllowVolumeExpansion" "Whether volumes may grow.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn storage_class(class: &StorageClass, now: Timestamp) -> Vec<Cell> {
    let annotations = class.metadata.annotations.as_ref();
    let marked = |key: &&str| annotations.and_then(|a| a.get(*key)).is_some_and(|v| v == "true");
    let default = if DEFAULT_CLASS.iter().any(marked) { " (default)" } else { "" };
    row![
        format!("{}{default}", name(&class.metadata)),
        class.provisioner.clone(),
        text(class.reclaim_policy.as_deref(), "Delete"),
        text(class.volume_binding_mode.as_deref(), "Immediate"),
        class.allow_volume_expansion.unwrap_or(false),
        age(&class.metadata, now),
    ]
}

pub(crate) fn driver_columns() -> Vec<Column> {
    columns![
        "AttachRequired" "Whether volumes are attached before they are mounted.",
        "PodInfoOnMount" "Whether it is told about the pod.",
        "StorageCapacity" "Whether it says how much is left.",
        "TokenRequests" "The audiences of the tokens it is given.",
        "RequiresRepublish" "Whether it is called again and again.",
        "Modes" "The life cycles of its volumes.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn driver(driver: &CSIDriver, now: Timestamp) -> Vec<Cell> {
    let spec = &driver.spec;
    let audiences: Vec<_> = spec.token_requests.iter().flatten().map(|t| t.audience.as_str()).collect();
    row![
        name(&driver.metadata),
        spec.attach_required.unwrap_or(true),
        spec.pod_info_on_mount.unwrap_or(false),
        spec.storage_capacity.unwrap_or(false),
        if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") },
        spec.requires_republish.unwrap_or(false),
        joined(spec.volume_lifecycle_modes.iter().flatten()),
        age(&driver.metadata, now),
    ]
}

pub(crate) fn node_columns() -> Vec<Column> {
    columns!["Drivers" "How many drivers the node has.": int, "Age" "How long ago the object was created."]
}

pub(crate) fn node(node: &CSINode, now: Timestamp) -> Vec<Cell> {
    row![name(&node.metadata), node.spec.drivers.len(), age(&node.metadata, now)]
}

pub(crate) fn capacity_columns() -> Vec<Column> {
    columns![
        "StorageClassName" "Of which class.",
        "Capacity" "How much is left.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn storage_capacity(object: &CSIStorageCapacity, now: Timestamp) -> Vec<Cell> {
    row![
        name(&object.metadata),
        object.storage_class_name.clone(),
        text(object.capacity.as_ref().map(|q| q.0.as_str()), UNSET),
        age(&object.metadata, now),
    ]
}

pub(crate) fn attachment_columns() -> Vec<Column> {
    columns![
        "Attacher" "Who attaches it.",
        "PV" "The volume.",
        "Node" "The node it is attached to.",
        "Attached" "Whether that is done.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn attachment(object: &VolumeAttachment, now: Timestamp) -> Vec<Cell> {
    let spec = &object.spec;
    row![
        name(&object.metadata),
        spec.attacher.clone(),
        text(spec.source.persistent_volume_name.as_deref(), NONE),
        spec.node_name.clone(),
        object.status.as_ref().is_some_and(|s| s.attached),
        age(&object.metadata, now),
    ]
}

pub(crate) fn attributes_columns() -> Vec<Column> {
    columns!["DriverName" "Whose attributes they are.", "Age" "How long ago the object was created."]
}

pub(crate) fn attributes(class: &VolumeAttributesClass, now: Timestamp) -> Vec<Cell> {
    row![name(&class.metadata), class.driver_name.clone(), age(&class.metadata, now)]
}
