//! HorizontalPodAutoscalers.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler as V1;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};

use super::{NONE, UNKNOWN, UNSET, age, columns, name, row, text};
use crate::kind::{Cell, Column};

pub(crate) fn columns() -> Vec<Column> {
    columns![
        "Reference" "What it scales.",
        "Targets" "The present and the wanted values of its metrics.",
        "MinPods" "The fewest pods.",
        "MaxPods" "The most pods.",
        "Replicas" "How many pods there are.": int,
        "Age" "How long ago the object was created.",
    ]
}

pub(crate) fn row(object: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Cell> {
    let spec = &object.spec;
    let status = object.status.as_ref();
    let current = status.and_then(|s| s.current_metrics.as_deref()).unwrap_or_default();
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    row![
        name(&object.metadata),
        format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name),
        targets(metrics, current),
        spec.min_replicas.map_or_else(|| UNSET.to_owned(), |n| n.to_string()),
        spec.max_replicas.to_string(),
        status.and_then(|s| s.current_replicas).unwrap_or(0),
        age(&object.metadata, now),
    ]
}

pub(crate) fn row_v1(object: &V1, now: Timestamp) -> Vec<Cell> {
    let spec = &object.spec;
    let status = object.status.as_ref();
    let target = spec.target_cpu_utilization_percentage.map(|target| {
        let current = status.and_then(|s| s.current_cpu_utilization_percentage);
        let current = current.map_or_else(|| UNKNOWN.to_owned(), |c| format!("{c}%"));
        format!("cpu: {current}/{target}%")
    });
    row![
        name(&object.metadata),
        format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name),
        text(target.as_deref(), NONE),
        spec.min_replicas.map_or_else(|| UNSET.to_owned(), |n| n.to_string()),
        spec.max_replicas.to_string(),
        status.map_or(0, |s| s.current_replicas),
        age(&object.metadata, now),
    ]
}

fn targets(metrics: &[MetricSpec], current: &[MetricStatus]) -> String {
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let list: Vec<_> = metrics.iter().enumerate().map(|(i, m)| target(m, current.get(i))).collect();
    let (shown, more) = list.split_at(list.len().min(2));
    match more.len() {
        0 => shown.join(", "),
        more => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn target(metric: &MetricSpec, current: Option<&MetricStatus>) -> String {
    let pair = |target: &MetricTarget, current: Option<&MetricValueStatus>| {
        let unknown = || UNKNOWN.to_owned();
        if let Some(wanted) = target.average_utilization {
            let now = current.and_then(|c| c.average_utilization).map(|u| format!("{u}%"));
            return format!("{}/{wanted}%", now.unwrap_or_else(unknown));
        }
        let average = target.average_value.as_ref();
        if let Some(wanted) = average {
            let now = current.and_then(|c| c.average_value.as_ref()).map(|q| q.0.clone());
            return format!("{}/{}", now.unwrap_or_else(unknown), wanted.0);
        }
        let wanted = target.value.as_ref().map_or(UNSET, |q| q.0.as_str());
        let now = current.and_then(|c| c.value.as_ref()).map(|q| q.0.clone());
        format!("{}/{wanted}", now.unwrap_or_else(unknown))
    };
    let averaged = |target: &MetricTarget, text: String| {
        if target.value.is_none() && target.average_value.is_some() { format!("{text} (avg)") } else { text }
    };
    if let Some(m) = &metric.resource {
        let now = current.and_then(|c| c.resource.as_ref()).map(|c| &c.current);
        return format!("{}: {}", m.name, pair(&m.target, now));
    }
    if let Some(m) = &metric.container_resource {
        let now = current.and_then(|c| c.container_resource.as_ref()).map(|c| &c.current);
        return format!("{}: {}", m.name, pair(&m.target, now));
    }
    if let Some(m) = &metric.pods {
        return pair(&m.target, current.and_then(|c| c.pods.as_ref()).map(|c| &c.current));
    }
    if let Some(m) = &metric.object {
        let now = current.and_then(|c| c.object.as_ref()).map(|c| &c.current);
        return averaged(&m.target, pair(&m.target, now));
    }
    if let Some(m) = &metric.external {
        let now = current.and_then(|c| c.external.as_ref()).map(|c| &c.current);
        return averaged(&m.target, pair(&m.target, now));
    }
    "<unknown type>".to_owned()
}
