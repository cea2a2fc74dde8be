//! The small kinds of the core group.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, LimitRange, Namespace, PodTemplate, ResourceQuota, Secret, ServiceAccount,
};

use super::{age, columns, containers, created, labels, name, row};
use crate::kind::{Cell, Column};

pub(crate) fn namespace_columns() -> Vec<Column> {
    columns!["Status" "Whether it is active or going.", "Age" "How long ago the object was created."]
}

pub(crate) fn namespace(namespace: &Namespace, now: Timestamp) -> Vec<Cell> {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
    row![name(&namespace.metadata), phase, age(&namespace.metadata, now)]
}

pub(crate) fn config_map_columns() -> Vec<Column> {
    columns!["Data" "How many entries it has.": int, "Age" "How long ago the object was created."]
}

pub(crate) fn config_map(map: &ConfigMap, now: Timestamp) -> Vec<Cell> {
    let entries = map.data.iter().flatten().count() + map.binary_data.iter().flatten().count();
    row![name(&map.metadata), entries, age(&map.metadata, now)]
}

pub(crate) fn secret_columns() -> Vec<Column> {
    columns![
        "Type" "What it is for.",
        "Data" "How many entries it has.": int,
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn secret(secret: &Secret, now: Timestamp) -> Vec<Cell> {
    let entries = secret.data.iter().flatten().count();
    let type_ = secret.type_.clone().unwrap_or_default();
    row![name(&secret.metadata), type_, entries, age(&secret.metadata, now)]
}

pub(crate) fn service_account_columns() -> Vec<Column> {
    columns!["Secrets" "How many secrets it may use.": int, "Age" "How long ago the object was created."]
}

pub(crate) fn service_account(account: &ServiceAccount, now: Timestamp) -> Vec<Cell> {
    let secrets = account.secrets.iter().flatten().count();
    row![name(&account.metadata), secrets, age(&account.metadata, now)]
}

pub(crate) fn limit_range_columns() -> Vec<Column> {
    columns!["Created At" "When the object was created."]
}

pub(crate) fn limit_range(range: &LimitRange, _: Timestamp) -> Vec<Cell> {
    row![name(&range.metadata), created(&range.metadata)]
}

pub(crate) fn quota_columns() -> Vec<Column> {
    columns![
        "Request" "What is used of what may be requested.",
        "Limit" "What is used of what may be limited.",
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn quota(quota: &ResourceQuota, now: Timestamp) -> Vec<Cell> {
    let status = quota.status.as_ref();
    let of = |limits: bool| {
        let hard = status.into_iter().flat_map(|s| s.hard.iter().flatten());
        let parts: Vec<_> = hard
            .filter(|(resource, _)| resource.starts_with("limits") == limits)
            .map(|(resource, hard)| {
                let used = status.and_then(|s| s.used.as_ref()?.get(resource)).map_or("0", |q| q.0.as_str());
                format!("{resource}: {used}/{}", hard.0)
            })
            .collect();
        parts.join(", ")
    };
    row![name(&quota.metadata), of(false), of(true), age(&quota.metadata, now)]
}

pub(crate) fn pod_template_columns() -> Vec<Column> {
    columns![
        "Containers" "The names of its containers.",
        "Images" "The images of its containers.",
        "Pod Labels" "The labels of pods made of it.",
    ]
}

pub(crate) fn pod_template(object: &PodTemplate, _: Timestamp) -> Vec<Cell> {
    let template = object.template.as_ref();
    let [names, images] = containers(template);
    let pod_labels = template.and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    row![name(&object.metadata), names, images, labels(pod_labels)]
}
