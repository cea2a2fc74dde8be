//! Answers in other shapes: tables and bare metadata.

use jiff::Timestamp;
use minik8s_api::Kind;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::stored::Stored;

/// How much of each object a table's rows carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::Nothing),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "includeObject: Unsupported value: \"{other}\": supported values: \"None\", \"Metadata\", \"Object\""
            ))),
        }
    }
}

/// A `meta.k8s.io/v1` Table of `objects`; `metadata` is the list's own.
pub(super) fn table<'a>(
    kind: &Kind,
    objects: impl Iterator<Item = &'a Stored>,
    metadata: Value,
    include: Include,
    now: Timestamp,
) -> Result<Value, ApiError> {
    let columns: Vec<Value> = kind
        .columns
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "type": c.type_, "format": c.format,
                "description": c.description, "priority": c.priority,
            })
        })
        .collect();
    let rows = objects.map(|o| row(kind, o, include, now)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    }))
}

fn row(kind: &Kind, stored: &Stored, include: Include, now: Timestamp) -> Result<Value, ApiError> {
    let object = stored.object(kind).map_err(ApiError::internal)?;
    let cells = kind.row(&*object, now);
    Ok(match include {
        Include::Nothing => json!({ "cells": cells }),
        Include::Metadata => json!({ "cells": cells, "object": partial(stored)? }),
        Include::Object => {
            let whole: Value = serde_json::from_slice(stored.json()).map_err(ApiError::internal)?;
            json!({ "cells": cells, "object": whole })
        }
    })
}

/// A `meta.k8s.io/v1` PartialObjectMetadata of the object.
pub(super) fn partial(stored: &Stored) -> Result<Value, ApiError> {
    #[derive(serde::Deserialize)]
    struct Partial {
        metadata: Value,
    }
    let Partial { metadata } = serde_json::from_slice(stored.json()).map_err(ApiError::internal)?;
    Ok(json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata }))
}
