//! HorizontalPodAutoscalers: `autoscaling/v1` knows one metric, the use of CPU. The others, and what else it has no
//! fields for, it carries in annotations, in the forms that Kubernetes gives them.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v1::{
    CrossVersionObjectReference as V1Reference, HorizontalPodAutoscaler as V1,
    HorizontalPodAutoscalerSpec as V1Spec, HorizontalPodAutoscalerStatus as V1Status,
};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference as Reference, HorizontalPodAutoscaler as V2,
    HorizontalPodAutoscalerSpec as Spec, HorizontalPodAutoscalerStatus as Status, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ResourceMetricSource, ResourceMetricStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub(crate) const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The autoscaler with all that it has.
pub(crate) fn to_v2(old: &V1) -> V2 {
    let old = old.clone();
    let mut metadata = old.metadata;
    let mut notes = Notes(metadata.annotations.take().unwrap_or_default());
    let mut metrics: Vec<MetricSpec> = notes.list(METRICS, |m| spec_metric(m, V1_TO_V2));
    if let Some(percent) = old.spec.target_cpu_utilization_percentage {
        metrics.insert(0, cpu(percent));
    }
    let mut current: Vec<MetricStatus> = notes.list(CURRENT_METRICS, |m| status_metric(m, V1_TO_V2));
    let mut conditions = notes.list(CONDITIONS, |condition| condition);
    let behavior = notes.take(BEHAVIOR).and_then(|text| serde_json::from_value(lower(text)).ok());
    metadata.annotations = notes.rest();
    let status = old.status.map(|status| {
        let known = current.iter().any(|m| m.resource.as_ref().is_some_and(|r| r.name == "cpu"));
        if let Some(percent) = status.current_cpu_utilization_percentage.filter(|_| !known) {
            current.insert(0, current_cpu(percent));
        }
        Status {
            conditions: some(std::mem::take(&mut conditions)),
            current_metrics: some(std::mem::take(&mut current)),
            current_replicas: Some(status.current_replicas),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }
    });
    let target = old.spec.scale_target_ref;
    V2 {
        metadata,
        spec: Spec {
            behavior,
            max_replicas: old.spec.max_replicas,
            metrics: some(metrics),
            min_replicas: old.spec.min_replicas,
            scale_target_ref: Reference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
        },
        status,
    }
}

/// The autoscaler as older clients know it.
pub(crate) fn from_v2(new: &V2) -> V1 {
    let new = new.clone();
    let mut metadata = new.metadata;
    let mut notes = Notes(metadata.annotations.take().unwrap_or_default());
    let mut percent = None;
    let mut others = Vec::new();
    for metric in new.spec.metrics.unwrap_or_default() {
        // The first one has a field of its own.
        match cpu_percent(&metric).filter(|_| percent.is_none()) {
            Some(found) => percent = Some(found),
            None => others.push(metric),
        }
    }
    notes.put(METRICS, &others, |m| spec_metric(m, V2_TO_V1));
    if let Some(behavior) = new.spec.behavior {
        notes.0.insert(BEHAVIOR.to_owned(), upper(value(&behavior)).to_string());
    }
    let mut current_percent = None;
    let status = new.status.map(|status| {
        let mut others = Vec::new();
        for metric in status.current_metrics.unwrap_or_default() {
            let cpu = metric.resource.as_ref().filter(|r| r.name == "cpu");
            let percent = cpu.and_then(|r| r.current.average_utilization);
            match percent.filter(|_| current_percent.is_none()) {
                Some(found) => {
                    current_percent = Some(found);
                    // The absolute figure beside it has no field.
                    if cpu.is_some_and(|r| r.current.average_value.is_some()) {
                        others.push(metric);
                    }
                }
                None => others.push(metric),
            }
        }
        notes.put(CURRENT_METRICS, &others, |m| status_metric(m, V2_TO_V1));
        notes.put(CONDITIONS, &status.conditions.unwrap_or_default(), |condition| condition);
        V1Status {
            current_cpu_utilization_percentage: current_percent,
            current_replicas: status.current_replicas.unwrap_or(0),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }
    });
    metadata.annotations = notes.rest();
    let target = new.spec.scale_target_ref;
    V1 {
        metadata,
        spec: V1Spec {
            max_replicas: new.spec.max_replicas,
            min_replicas: new.spec.min_replicas,
            scale_target_ref: V1Reference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
            target_cpu_utilization_percentage: percent,
        },
        status,
    }
}

fn cpu(percent: i32) -> MetricSpec {
    let target = MetricTarget {
        type_: "Utilization".to_owned(),
        average_utilization: Some(percent),
        ..MetricTarget::default()
    };
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource { name: "cpu".to_owned(), target }),
        ..MetricSpec::default()
    }
}

fn cpu_percent(metric: &MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref().filter(|r| r.name == "cpu" && r.target.type_ == "Utilization")?;
    resource.target.average_utilization
}

fn current_cpu(percent: i32) -> MetricStatus {
    let current = MetricValueStatus { average_utilization: Some(percent), ..MetricValueStatus::default() };
    MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricStatus { name: "cpu".to_owned(), current }),
        ..MetricStatus::default()
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("API types have string keys and no failing serializers")
}

/// The annotations of an object.
struct Notes(BTreeMap<String, String>);

impl Notes {
    fn take(&mut self, name: &str) -> Option<Value> {
        serde_json::from_str(&self.0.remove(name)?).ok()
    }

    /// The list in an annotation; what cannot be read in it is lost, as in Kubernetes.
    fn list<T: DeserializeOwned>(&mut self, name: &str, form: impl Fn(Value) -> Value) -> Vec<T> {
        let Some(Value::Array(list)) = self.take(name) else { return Vec::new() };
        list.into_iter().filter_map(|v| serde_json::from_value(form(v)).ok()).collect()
    }

    fn put<T: Serialize>(&mut self, name: &str, list: &[T], form: impl Fn(Value) -> Value) {
        if list.is_empty() {
            self.0.remove(name);
            return;
        }
        let list: Value = list.iter().map(|v| form(value(v))).collect();
        self.0.insert(name.to_owned(), list.to_string());
    }

    fn rest(&self) -> Option<BTreeMap<String, String>> {
        (!self.0.is_empty()).then(|| self.0.clone())
    }
}

/// Whether fields move from the flat form of version 1 into the nested one of version 2, or back.
type Direction = bool;
const V1_TO_V2: Direction = true;
const V2_TO_V1: Direction = false;

/// Moves fields: `(flat name, path in the nested form)`.
fn moved(metric: &mut Map<String, Value>, pairs: &[(&str, &str)], direction: Direction) {
    for (flat, nested) in pairs {
        let path: Vec<&str> = nested.split('.').collect();
        if direction == V1_TO_V2 {
            if let Some(value) = metric.remove(*flat) {
                nest(metric, &path, value);
            }
        } else if let Some(value) = unnest(metric, &path) {
            metric.insert((*flat).to_owned(), value);
        }
    }
}

fn nest(map: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => drop(map.insert((*last).to_owned(), value)),
        [first, rest @ ..] => {
            if let Value::Object(below) = map.entry(*first).or_insert_with(|| json!({})) {
                nest(below, rest, value);
            }
        }
    }
}

fn unnest(map: &mut Map<String, Value>, path: &[&str]) -> Option<Value> {
    match path {
        [] => None,
        [last] => map.remove(*last),
        [first, rest @ ..] => {
            let below = map.get_mut(*first)?.as_object_mut()?;
            let value = unnest(below, rest);
            if below.is_empty() {
                map.remove(*first);
            }
            value
        }
    }
}

/// A wanted metric in the other version's form.
fn spec_metric(mut metric: Value, direction: Direction) -> Value {
    each_source(&mut metric, |kind, source| {
        let pairs: &[(&str, &str)] = match kind {
            "resource" | "containerResource" => &[
                ("targetAverageUtilization", "target.averageUtilization"),
                ("targetAverageValue", "target.averageValue"),
            ],
            "pods" => &[
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("targetAverageValue", "target.averageValue"),
            ],
            "object" => &[
                ("target", "describedObject"),
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("targetValue", "target.value"),
                ("averageValue", "target.averageValue"),
            ],
            _ => &[
                ("metricName", "metric.name"),
                ("metricSelector", "metric.selector"),
                ("targetValue", "target.value"),
                ("targetAverageValue", "target.averageValue"),
            ],
        };
        if direction == V2_TO_V1 {
            if let Some(Value::Object(target)) = source.get_mut("target") {
                target.remove("type");
            }
            // An object's own `target` in version 1 is another thing than in version 2: last, so that it can move in.
            let (own, rest): (Vec<_>, Vec<_>) = pairs.iter().partition(|(flat, _)| *flat == "target");
            moved(source, &rest, direction);
            source.remove("target");
            moved(source, &own, direction);
            return;
        }
        moved(source, pairs, direction);
        let of = |field: &str| source.get("target").and_then(|t| t.get(field)).is_some_and(|v| !v.is_null());
        // Version 1 has a zero where it means nothing.
        let zero = |v: &Value| v.as_str().is_some_and(|t| t == "0");
        let type_ = if of("averageUtilization") {
            "Utilization"
        } else if of("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        nest(source, &["target", "type"], type_.into());
        if let Some(Value::Object(target)) = source.get_mut("target")
            && type_ == "AverageValue"
            && target.get("value").is_some_and(zero)
        {
            target.remove("value");
        }
    });
    metric
}

/// A measured metric in the other version's form.
fn status_metric(mut metric: Value, direction: Direction) -> Value {
    each_source(&mut metric, |kind, source| {
        let pairs: &[(&str, &str)] = match kind {
            "resource" | "containerResource" => &[
                ("currentAverageUtilization", "current.averageUtilization"),
                ("currentAverageValue", "current.averageValue"),
            ],
            "pods" => &[
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("currentAverageValue", "current.averageValue"),
            ],
            "object" => &[
                ("target", "describedObject"),
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("currentValue", "current.value"),
                ("averageValue", "current.averageValue"),
            ],
            _ => &[
                ("metricName", "metric.name"),
                ("metricSelector", "metric.selector"),
                ("currentValue", "current.value"),
                ("currentAverageValue", "current.averageValue"),
            ],
        };
        moved(source, pairs, direction);
        if direction == V1_TO_V2 {
            source.entry("current").or_insert_with(|| json!({}));
        } else {
            source.remove("current");
        }
    });
    metric
}

fn each_source(metric: &mut Value, mut change: impl FnMut(&str, &mut Map<String, Value>)) {
    for (kind, source) in metric.as_object_mut().into_iter().flatten() {
        if let Value::Object(source) = source {
            change(kind, source);
        }
    }
}

/// The behaviour's annotation has the names of Go's fields: `ScaleUp`.
fn upper(value: Value) -> Value {
    renamed(value, |c| c.to_uppercase().collect())
}

fn lower(value: Value) -> Value {
    renamed(value, |c| c.to_lowercase().collect())
}

fn renamed(value: Value, first: fn(char) -> String) -> Value {
    match value {
        Value::Object(map) => {
            let rename = |name: String| {
                let mut chars = name.chars();
                chars.next().map(first).unwrap_or_default() + chars.as_str()
            };
            map.into_iter().map(|(name, value)| (rename(name), renamed(value, first))).collect()
        }
        Value::Array(list) => list.into_iter().map(|value| renamed(value, first)).collect(),
        other => other,
    }
}
