//! Tables: what `kubectl get` prints of each kind.

pub(crate) mod aggregation;
pub(crate) mod autoscaling;
pub(crate) mod batch;
pub(crate) mod cluster;
pub(crate) mod event;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod rbac;
pub(crate) mod resource;
pub(crate) mod small;
pub(crate) mod storage;
pub(crate) mod workload;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};

use crate::kind::human_duration;
use crate::selector::Selector;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const UNSET: &str = "<unset>";

/// A text of the object, or `otherwise` if it has none.
fn text(value: Option<&str>, otherwise: &str) -> String {
    value.filter(|v| !v.is_empty()).unwrap_or(otherwise).to_owned()
}

fn name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

/// How long ago, in at most two units.
fn since(time: Option<&Time>, now: Timestamp) -> String {
    time.map_or_else(|| UNKNOWN.to_owned(), |t| human_duration(now.as_second() - t.0.as_second()))
}

fn age(metadata: &ObjectMeta, now: Timestamp) -> String {
    since(metadata.creation_timestamp.as_ref(), now)
}

/// When it was created, for the few kinds whose tables show that.
fn created(metadata: &ObjectMeta) -> String {
    let created = metadata.creation_timestamp.as_ref();
    created.map_or_else(|| UNKNOWN.to_owned(), |t| format!("{:.0}", t.0))
}

/// `a,b`, or `<none>`.
fn joined<S: AsRef<str>>(parts: impl IntoIterator<Item = S>) -> String {
    let parts: Vec<_> = parts.into_iter().map(|p| p.as_ref().to_owned()).collect();
    text(Some(&parts.join(",")), NONE)
}

/// The first three parts and a count of the others.
fn first_three(parts: &[String]) -> String {
    let shown = parts.len().min(3);
    let list = parts[..shown].join(",");
    match parts.len() - shown {
        0 => list,
        more => format!("{list} + {more} more..."),
    }
}

fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    joined(labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")))
}

/// A selector as text; `<none>` takes everything.
fn selector(selector: Option<&LabelSelector>) -> String {
    match selector.map(Selector::from_label_selector) {
        None => NONE.to_owned(),
        Some(Ok(parsed)) => text(Some(&parsed.to_string()), NONE),
        Some(Err(_)) => "<error>".to_owned(),
    }
}

/// The names and the images of a template's containers.
fn containers(template: Option<&PodTemplateSpec>) -> [String; 2] {
    let list = template.and_then(|t| t.spec.as_ref()).map(|s| s.containers.as_slice()).unwrap_or_default();
    let part = |f: fn(&Container) -> &str| list.iter().map(f).collect::<Vec<_>>().join(",");
    [part(|c| &c.name), part(|c| c.image.as_deref().unwrap_or_default())]
}

fn true_or_false(value: Option<bool>) -> String {
    match value {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
    .to_owned()
}

/// A row of cells of different types.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(crate::kind::Cell::from($cell)),*] };
}
use row;

/// Columns of text: `"Name" "what it says"`, with `: int` behind whole numbers and `: wide` behind those that are
/// shown with `-o wide` only. The column of the name comes first and is not listed.
macro_rules! columns {
    ($($name:literal $description:literal $(: $modifier:ident)?),* $(,)?) => {
        vec![
            crate::kind::Column::name(),
            $(columns!(@ crate::kind::Column::new($name, $description) $(, $modifier)?)),*
        ]
    };
    (@ $column:expr) => { $column };
    (@ $column:expr, int) => { $column.integer() };
    (@ $column:expr, wide) => { $column.wide() };
}
use columns;

#[cfg(test)]
mod tests;
