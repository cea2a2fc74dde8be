//! The controllers of group `apps`, and ReplicationControllers.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;

use super::{NONE, age, columns, containers, labels, name, row, selector, text};
use crate::kind::{Cell, Column};

pub(crate) fn deployment_columns() -> Vec<Column> {
    columns![
        "Ready" "How many of the wanted pods are ready.",
        "Up-to-date" "How many pods have the present template.": int,
        "Available" "How many pods have been ready for long enough.": int,
        "Age" "How long ago the object was created.",
        "Containers" "The names of the template's containers.": wide,
        "Images" "The images of the template's containers.": wide,
        "Selector" "Which pods belong to it.": wide,
    ]
}

pub(crate) fn deployment(object: &Deployment, now: Timestamp) -> Vec<Cell> {
    let status = object.status.clone().unwrap_or_default();
    let [names, images] = containers(Some(&object.spec.template));
    row![
        name(&object.metadata),
        format!("{}/{}", status.ready_replicas.unwrap_or(0), object.spec.replicas.unwrap_or(0)),
        status.updated_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
        age(&object.metadata, now),
        names,
        images,
        selector(Some(&object.spec.selector)),
    ]
}

pub(crate) fn replica_set_columns() -> Vec<Column> {
    columns![
        "Desired" "How many pods there should be.": int,
        "Current" "How many pods there are.": int,
        "Ready" "How many pods are ready.": int,
        "Age" "How long ago the object was created.",
        "Containers" "The names of the template's containers.": wide,
        "Images" "The images of the template's containers.": wide,
        "Selector" "Which pods belong to it.": wide,
    ]
}

pub(crate) fn replica_set(object: &ReplicaSet, now: Timestamp) -> Vec<Cell> {
    let status = object.status.clone().unwrap_or_default();
    let [names, images] = containers(object.spec.template.as_ref());
    row![
        name(&object.metadata),
        object.spec.replicas.unwrap_or(0),
        status.replicas,
        status.ready_replicas.unwrap_or(0),
        age(&object.metadata, now),
        names,
        images,
        selector(Some(&object.spec.selector)),
    ]
}

pub(crate) fn replication_controller(object: &ReplicationController, now: Timestamp) -> Vec<Cell> {
    let status = object.status.clone().unwrap_or_default();
    let spec = object.spec.as_ref();
    let [names, images] = containers(spec.and_then(|s| s.template.as_ref()));
    row![
        name(&object.metadata),
        spec.and_then(|s| s.replicas).unwrap_or(0),
        status.replicas,
        status.ready_replicas.unwrap_or(0),
        age(&object.metadata, now),
        names,
        images,
        labels(spec.and_then(|s| s.selector.as_ref())),
    ]
}

pub(crate) fn stateful_set_columns() -> Vec<Column> {
    columns![
        "Ready" "How many of the wanted pods are ready.",
        "Age" "How long ago the object was created.",
        "Containers" "The names of the template's containers.": wide,
        "Images" "The images of the template's containers.": wide,
    ]
}

pub(crate) fn stateful_set(object: &StatefulSet, now: Timestamp) -> Vec<Cell> {
    let ready = object.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
    let [names, images] = containers(Some(&object.spec.template));
    row![
        name(&object.metadata),
        format!("{ready}/{}", object.spec.replicas.unwrap_or(0)),
        age(&object.metadata, now),
        names,
        images,
    ]
}

pub(crate) fn daemon_set_columns() -> Vec<Column> {
    columns![
        "Desired" "How many nodes should run a pod.": int,
        "Current" "How many nodes run a pod.": int,
        "Ready" "How many pods are ready.": int,
        "Up-to-date" "How many pods have the present template.": int,
        "Available" "How many pods have been ready for long enough.": int,
        "Node Selector" "Which nodes should run a pod.",
        "Age" "How long ago the object was created.",
        "Containers" "The names of the template's containers.": wide,
        "Images" "The images of the template's containers.": wide,
        "Selector" "Which pods belong to it.": wide,
    ]
}

pub(crate) fn daemon_set(object: &DaemonSet, now: Timestamp) -> Vec<Cell> {
    let status = object.status.clone().unwrap_or_default();
    let [names, images] = containers(Some(&object.spec.template));
    row![
        name(&object.metadata),
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled.unwrap_or(0),
        status.number_available.unwrap_or(0),
        labels(object.spec.template.spec.as_ref().and_then(|s| s.node_selector.as_ref())),
        age(&object.metadata, now),
        names,
        images,
        selector(Some(&object.spec.selector)),
    ]
}

pub(crate) fn revision_columns() -> Vec<Column> {
    columns![
        "Controller" "What it is a revision of.",
        "Revision" "Its number.": int,
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn revision(object: &ControllerRevision, now: Timestamp) -> Vec<Cell> {
    let owners = object.metadata.owner_references.iter().flatten();
    let controller = owners.into_iter().find(|o| o.controller == Some(true)).map(|o| {
        let group = o.api_version.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
        format!("{}{group}/{}", o.kind.to_lowercase(), o.name)
    });
    row![
        name(&object.metadata),
        text(controller.as_deref(), NONE),
        object.revision.unwrap_or(0),
        age(&object.metadata, now),
    ]
}
