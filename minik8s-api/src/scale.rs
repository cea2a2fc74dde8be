//! The scale subresource: how many there are and should be, in one form for every kind that can be scaled.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::field::{FieldErrors, FieldPath};
use crate::kind::{Cell, Column, Kind, age};
use crate::selector::Selector;

/// Where a kind keeps what its scale shows: paths of JSON fields such as `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// How many there should be.
    pub spec_replicas: String,
    /// How many there are.
    pub status_replicas: String,
    /// The selector of the pods: a text, a label selector or a map of labels.
    pub label_selector: Option<String>,
}

impl ScalePaths {
    /// Paths as a `CustomResourceDefinition` gives them.
    pub fn new(spec_replicas: &str, status_replicas: &str, label_selector: Option<&str>) -> Self {
        Self {
            spec_replicas: spec_replicas.to_owned(),
            status_replicas: status_replicas.to_owned(),
            label_selector: label_selector.map(ToOwned::to_owned),
        }
    }

    /// The scale of `object`; `None` if it does not say how many there should be.
    pub fn read(&self, object: &Value) -> Option<Value> {
        let wanted = at(object, &self.spec_replicas)?.as_i64()?;
        let present = at(object, &self.status_replicas).and_then(Value::as_i64).unwrap_or(0);
        let metadata: serde_json::Map<String, Value> =
            ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
                .into_iter()
                .filter_map(|field| Some((field.to_owned(), object["metadata"].get(field)?.clone())))
                .collect();
        let mut scale = json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
            "spec": { "replicas": wanted }, "status": { "replicas": present },
        });
        let selector = self.label_selector.as_ref().and_then(|path| at(object, path)).and_then(selector);
        if let Some(selector) = selector {
            scale["status"]["selector"] = selector.into();
        }
        Some(scale)
    }

    /// Makes `object` want as many as `replicas`.
    pub fn write(&self, object: &mut Value, replicas: i32) {
        let mut place = object;
        for name in fields(&self.spec_replicas) {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[name];
        }
        *place = replicas.into();
    }
}

/// What is wrong with a scale.
pub fn validate(scale: &Scale) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let replicas = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    if replicas < 0 {
        let path = FieldPath::new("spec").child("replicas");
        errors.invalid(path, replicas, "must be greater than or equal to 0");
    }
    errors
}

/// The kind of the subresource itself, for its table and its errors. It is in no registry.
pub fn kind() -> Arc<Kind> {
    static KIND: OnceLock<Arc<Kind>> = OnceLock::new();
    let columns = || {
        vec![
            Column::name(),
            Column::new("Desired", "How many there should be.").integer(),
            Column::new("Available", "How many there are.").integer(),
            Column::age(),
        ]
    };
    let make = || Arc::new(Kind::of::<Scale>().table(columns(), row).build());
    KIND.get_or_init(make).clone()
}

fn row(scale: &Scale, now: Timestamp) -> Vec<Cell> {
    vec![
        scale.metadata.name.clone().into(),
        scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0).into(),
        scale.status.as_ref().map_or(0, |s| s.replicas).into(),
        age(scale, now).into(),
    ]
}

fn fields(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|name| !name.is_empty())
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    fields(path).try_fold(object, |place, name| place.get(name))
}

/// A selector as text.
fn selector(value: &Value) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text.clone());
    }
    if let Ok(labels) = serde_json::from_value::<BTreeMap<String, String>>(value.clone()) {
        return Some(Selector::from_map(&labels).to_string());
    }
    let selector: LabelSelector = serde_json::from_value(value.clone()).ok()?;
    Some(Selector::from_label_selector(&selector).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_of_objects() {
        let paths = ScalePaths::new(".spec.replicas", ".status.replicas", Some(".spec.selector"));
        let mut deployment = json!({
            "metadata": { "name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7", "labels": {} },
            "spec": { "replicas": 3, "selector": {
                "matchLabels": { "app": "web" },
                "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["b", "a"] }],
            } },
        });
        let scale = paths.read(&deployment).expect("it has replicas");
        assert_eq!(scale["status"], json!({ "replicas": 0, "selector": "app=web,tier in (a,b)" }));
        assert_eq!((scale["spec"]["replicas"].as_i64(), scale["metadata"].get("labels")), (Some(3), None));
        paths.write(&mut deployment, 5);
        assert_eq!(deployment["spec"]["replicas"], 5);

        let controller =
            json!({ "spec": { "replicas": 0, "selector": { "app": "web" } }, "status": { "replicas": 2 } });
        assert_eq!(paths.read(&controller).expect("a scale")["status"]["selector"], "app=web");

        let custom = ScalePaths::new(".spec.size.wanted", ".status.size", Some(".status.selector"));
        let mut object = json!({ "status": { "selector": "a=b", "size": 1 } });
        assert_eq!(custom.read(&object), None);
        custom.write(&mut object, 2);
        assert_eq!(
            custom.read(&object).expect("a scale")["status"],
            json!({ "replicas": 1, "selector": "a=b" })
        );
    }

    #[test]
    fn fewer_than_none_are_too_few() {
        let scale: Scale = serde_json::from_value(json!({ "spec": { "replicas": -1 } })).expect("a scale");
        let words = "spec.replicas: Invalid value: -1: must be greater than or equal to 0";
        assert_eq!(validate(&scale).to_string(), words);
    }
}
