//! Aggregated API services, flow schemas and priority levels.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::{NONE, age, columns, name, row, text};
use crate::kind::{Cell, Column};

pub(crate) fn service_columns() -> Vec<Column> {
    columns![
        "Service" "Who serves it: `Local`, or a Service.",
        "Available" "Whether it can be reached.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn service(service: &APIService, now: Timestamp) -> Vec<Cell> {
    let spec = service.spec.as_ref();
    let place = match spec.and_then(|s| s.service.as_ref()) {
        None => "Local".to_owned(),
        Some(s) => [s.namespace.as_deref(), s.name.as_deref()].map(Option::unwrap_or_default).join("/"),
    };
    let conditions = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let available = conditions.into_iter().find(|c| c.type_ == "Available");
    let words = available.map_or_else(
        || "Unknown".to_owned(),
        |c| match (c.status.as_str(), c.reason.as_deref()) {
            ("True", _) | (_, None) => c.status.clone(),
            (status, Some(reason)) => format!("{status} ({reason})"),
        },
    );
    row![name(&service.metadata), place, words, age(&service.metadata, now)]
}

pub(crate) fn schema_columns() -> Vec<Column> {
    columns![
        "PriorityLevel" "The level of its requests.",
        "MatchingPrecedence" "The lowest one counts.": int,
        "DistinguisherMethod" "What flows are told apart by.",
        "Age" "How long ago the object was created.",
        "MissingPL" "Whether its level does not exist.",
    ]
}

pub(crate) fn schema(schema: &FlowSchema, now: Timestamp) -> Vec<Cell> {
    let spec = &schema.spec;
    let conditions = schema.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let dangling = conditions.into_iter().find(|c| c.type_ == "Dangling");
    row![
        name(&schema.metadata),
        text(Some(&spec.priority_level_configuration.name), NONE),
        spec.matching_precedence.unwrap_or(0),
        text(spec.distinguisher_method.as_ref().map(|m| m.type_.as_str()), NONE),
        age(&schema.metadata, now),
        text(dangling.and_then(|c| c.status.as_deref()), "?"),
    ]
}

pub(crate) fn level_columns() -> Vec<Column> {
    columns![
        "Type" "Whether requests of this level are limited.",
        "NominalConcurrencyShares" "Its share of the requests that are served at once.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn level(level: &PriorityLevelConfiguration, now: Timestamp) -> Vec<Cell> {
    let spec = &level.spec;
    let shares = spec.limited.as_ref().and_then(|l| l.nominal_concurrency_shares);
    row![
        name(&level.metadata),
        text(Some(&spec.type_), NONE),
        shares.map_or_else(|| NONE.to_owned(), |s| s.to_string()),
        age(&level.metadata, now),
    ]
}
