//! The controllers of group `apps`, and ReplicationControllers.

use k8s_openapi::api::apps::v1::{
    DaemonSet, Deployment, ReplicaSet, RollingUpdateDaemonSet, RollingUpdateDeployment, StatefulSet,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimStatus, PodTemplate, ReplicationController};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{pod, set, volume};

/// Old ReplicaSets or revisions that are kept.
const HISTORY: i32 = 10;
/// Seconds without progress after which a rollout has failed.
const PROGRESS_S: i32 = 600;

/// Fills in a Deployment.
pub fn deployment(deployment: &mut Deployment) {
    let spec = &mut deployment.spec;
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(HISTORY);
    spec.progress_deadline_seconds.get_or_insert(PROGRESS_S);
    let strategy = spec.strategy.get_or_insert_default();
    set(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling: &mut RollingUpdateDeployment = strategy.rolling_update.get_or_insert_default();
        let quarter = || IntOrString::String("25%".to_owned());
        rolling.max_unavailable.get_or_insert_with(quarter);
        rolling.max_surge.get_or_insert_with(quarter);
    }
    pod::template(&mut spec.template);
}

/// Fills in a ReplicaSet.
pub fn replica_set(set: &mut ReplicaSet) {
    let spec = &mut set.spec;
    spec.replicas.get_or_insert(1);
    if let Some(template) = &mut spec.template {
        pod::template(template);
    }
}

/// Fills in a ReplicationController: without a selector it takes its template's labels.
pub fn replication_controller(rc: &mut ReplicationController) {
    let Some(spec) = &mut rc.spec else { return };
    spec.replicas.get_or_insert(1);
    let Some(template) = &mut spec.template else {
        return;
    };
    pod::template(template);
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
    if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
        spec.selector = labels.clone();
    }
    if rc.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
        rc.metadata.labels = labels;
    }
}

/// Fills in a StatefulSet.
pub fn stateful_set(set: &mut StatefulSet) {
    let spec = &mut set.spec;
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(HISTORY);
    super::set(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    super::set(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    super::set(&mut retention.when_deleted, "Retain");
    super::set(&mut retention.when_scaled, "Retain");
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        volume::claim(claim.spec.get_or_insert_default());
        let phase = Some("Pending".to_owned());
        claim.status = Some(PersistentVolumeClaimStatus { phase, ..Default::default() });
    }
    pod::template(&mut spec.template);
}

/// Fills in a DaemonSet.
pub fn daemon_set(set: &mut DaemonSet) {
    let spec = &mut set.spec;
    spec.revision_history_limit.get_or_insert(HISTORY);
    let strategy = spec.update_strategy.get_or_insert_default();
    super::set(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling: &mut RollingUpdateDaemonSet = strategy.rolling_update.get_or_insert_default();
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        rolling.max_surge.get_or_insert(IntOrString::Int(0));
    }
    pod::template(&mut spec.template);
}

/// Fills in a PodTemplate.
pub fn pod_template(object: &mut PodTemplate) {
    if let Some(template) = &mut object.template {
        pod::template(template);
    }
}
