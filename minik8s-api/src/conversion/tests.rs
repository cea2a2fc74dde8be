use k8s_openapi::api::autoscaling::{v1, v2};
use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};

use super::*;

#[test]
fn an_autoscaler_keeps_everything_in_version_1() {
    let full = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"mine": "x"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 9,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60, "policies": [
                {"type": "Pods", "value": 1, "periodSeconds": 15},
            ]}},
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
                {"type": "Object", "object": {
                    "describedObject": {"kind": "Ingress", "name": "main"}, "metric": {"name": "hits"},
                    "target": {"type": "Value", "value": "10k"},
                }},
                {"type": "External", "external": {
                    "metric": {"name": "queue", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "30"},
                }},
            ],
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 3,
            "conditions": [{"type": "AbleToScale", "status": "True"}],
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "40m"}}},
                {"type": "Pods", "pods": {"metric": {"name": "rps"}, "current": {"averageValue": "900"}}},
            ],
        },
    });
    let whole: v2::HorizontalPodAutoscaler = serde_json::from_value(full.clone()).unwrap();
    let old = from_v2(&whole);
    assert_eq!(old.spec.target_cpu_utilization_percentage, Some(50));
    assert_eq!(old.status.as_ref().and_then(|s| s.current_cpu_utilization_percentage), Some(40));
    let notes = old.metadata.annotations.clone().unwrap();
    assert_eq!(
        notes["autoscaling.alpha.kubernetes.io/behavior"],
        r#"{"ScaleDown":{"Policies":[{"PeriodSeconds":15,"Type":"Pods","Value":1}],"StabilizationWindowSeconds":60}}"#
    );
    let metrics: Value = serde_json::from_str(&notes["autoscaling.alpha.kubernetes.io/metrics"]).unwrap();
    assert_eq!(
        metrics[0],
        json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}})
    );
    assert_eq!(
        metrics[2],
        json!({"type": "Object", "object": {
            "target": {"kind": "Ingress", "name": "main"}, "metricName": "hits", "targetValue": "10k",
        }})
    );
    assert_eq!(serde_json::to_value(to_v2(&old)).unwrap(), full);
}

#[test]
fn an_old_autoscaler_has_one_metric() {
    let old: v1::HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3,
                 "targetCPUUtilizationPercentage": 80},
    }))
    .unwrap();
    let new = to_v2(&old);
    let metrics = serde_json::to_value(&new.spec.metrics).unwrap();
    let target = json!({"type": "Utilization", "averageUtilization": 80});
    assert_eq!(metrics, json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    assert_eq!(from_v2(&new), old);
}

#[test]
fn events_say_the_same_in_both_groups() {
    let core: CoreEvent = serde_json::from_value(json!({
        "metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"kind": "Pod", "name": "p"},
        "message": "hello", "reason": "Started", "type": "Normal", "count": 3,
        "source": {"component": "agent"}, "reportingComponent": "agent", "reportingInstance": "n1",
        "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T00:00:05Z",
        "eventTime": "2024-01-01T00:00:00.000000Z",
        "series": {"count": 3, "lastObservedTime": "2024-01-01T00:00:05.000000Z"},
    }))
    .unwrap();
    let new: Event = from_core(&core);
    assert_eq!((new.note.as_deref(), new.deprecated_count), (Some("hello"), Some(3)));
    assert_eq!(new.regarding.as_ref().and_then(|r| r.name.as_deref()), Some("p"));
    assert_eq!(to_core(&new), core);
}
