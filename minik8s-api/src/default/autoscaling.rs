//! HorizontalPodAutoscalers.

use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler as V1;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
    ResourceMetricSource,
};

use super::set;
use crate::conversion;

/// The share of their requested cpu that pods should use, if nothing is said, in percent.
const CPU_PERCENT: i32 = 80;

/// Fills in an autoscaler: at least one pod, four fifths of the requested cpu, and doubling at most four times a
/// minute.
pub fn autoscaler(object: &mut HorizontalPodAutoscaler) {
    let spec = &mut object.spec;
    spec.min_replicas.get_or_insert(1);
    if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
        let target = MetricTarget {
            type_: "Utilization".to_owned(),
            average_utilization: Some(CPU_PERCENT),
            ..Default::default()
        };
        let resource = Some(ResourceMetricSource { name: "cpu".to_owned(), target });
        spec.metrics =
            Some(vec![MetricSpec { type_: "Resource".to_owned(), resource, ..Default::default() }]);
    }
    let Some(behavior) = &mut spec.behavior else {
        return;
    };
    let double = || HPAScalingPolicy { type_: "Percent".to_owned(), value: 100, period_seconds: 15 };
    let four = HPAScalingPolicy { type_: "Pods".to_owned(), value: 4, period_seconds: 15 };
    if behavior.scale_up.is_none() && behavior.scale_down.is_none() {
        return;
    }
    let up: &mut HPAScalingRules = behavior.scale_up.get_or_insert_default();
    up.stabilization_window_seconds.get_or_insert(0);
    set(&mut up.select_policy, "Max");
    up.policies.get_or_insert_with(|| vec![four, double()]);
    let down: &mut HPAScalingRules = behavior.scale_down.get_or_insert_default();
    set(&mut down.select_policy, "Max");
    down.policies.get_or_insert_with(|| vec![double()]);
}

/// Fills in an autoscaler of version 1. One that has other metrics, in an annotation, needs no CPU.
pub fn autoscaler_v1(object: &mut V1) {
    object.spec.min_replicas.get_or_insert(1);
    if !object.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(conversion::METRICS)) {
        object.spec.target_cpu_utilization_percentage.get_or_insert(CPU_PERCENT);
    }
}
