//! Device claims and slices.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};

use super::{NONE, age, columns, name, row, text};
use crate::kind::{Cell, Column};

pub(crate) fn claim_columns() -> Vec<Column> {
    columns!["State" "How far it has come.", "Age" "How long ago the object was created."]
}

pub(crate) fn claim(claim: &ResourceClaim, now: Timestamp) -> Vec<Cell> {
    let status = claim.status.as_ref();
    let mut state = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        state.push("deleted");
    }
    match status.and_then(|s| s.allocation.as_ref()) {
        None if state.is_empty() => state.push("pending"),
        None => {}
        Some(_) => {
            state.push("allocated");
            if status.and_then(|s| s.reserved_for.as_ref()).is_some_and(|r| !r.is_empty()) {
                state.push("reserved");
            }
        }
    }
    row![name(&claim.metadata), state.join(","), age(&claim.metadata, now)]
}

pub(crate) fn slice_columns() -> Vec<Column> {
    columns![
        "Node" "The node that has the devices.",
        "Driver" "What provides them.",
        "Pool" "The pool they belong to.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn slice(slice: &ResourceSlice, now: Timestamp) -> Vec<Cell> {
    row![
        name(&slice.metadata),
        text(slice.spec.node_name.as_deref(), NONE),
        slice.spec.driver.clone(),
        slice.spec.pool.name.clone(),
        age(&slice.metadata, now),
    ]
}
