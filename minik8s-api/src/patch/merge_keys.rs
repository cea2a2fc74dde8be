//! How strategic merge treats the lists and maps of the built-in types: the `patchStrategy` and `patchMergeKey` of
//! each field that has one, and the types on the way to such fields.
//!
//! A type stands under the last part of its OpenAPI definition's name: `PodSpec` for `io.k8s.api.core.v1.PodSpec`.
//! Types and fields that are not listed need nothing special: their maps merge and their lists are replaced.

/// What strategic merge must know of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// What becomes of the value that is there.
    pub strategy: Strategy,
    /// The type of the field, of its elements if it is a list; empty where nothing below it is special.
    pub type_name: &'static str,
}

/// What becomes of the value that is there when a patch holds the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Maps merge and lists are replaced.
    Default,
    /// Lists merge by this field of their elements; by the elements themselves where it is empty.
    Merge(&'static str),
    /// As `Merge`, and clients send `$retainKeys` in elements, whose fields exclude each other.
    MergeRetainKeys(&'static str),
    /// Maps merge, and clients send `$retainKeys`.
    RetainKeys,
    /// It goes, even if it is a map.
    Replace,
}

impl Strategy {
    /// The field that tells the elements of a merged list apart, empty for scalars; `None` if lists are replaced.
    pub fn merge_key(self) -> Option<&'static str> {
        match self {
            Self::Merge(key) | Self::MergeRetainKeys(key) => Some(key),
            Self::Default | Self::RetainKeys | Self::Replace => None,
        }
    }

    /// The `x-kubernetes-patch-strategy` of the field, if it has one.
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Merge(_) => Some("merge"),
            Self::MergeRetainKeys(_) => Some("merge,retainKeys"),
            Self::RetainKeys => Some("retainKeys"),
            Self::Replace => Some("replace"),
        }
    }
}

/// The field `name` of the type `parent`, if there is something special about it or below it.
pub fn field(parent: &str, name: &str) -> Option<Field> {
    let (strategy, type_name) = match (parent, name) {
        ("", _) => return None,
        (_, "metadata") => (Strategy::Default, "ObjectMeta"),
        ("ObjectMeta", "finalizers") => (Strategy::Merge(""), ""),
        ("ObjectMeta", "ownerReferences") => (Strategy::Merge("uid"), ""),

        ("PodSpec", "containers" | "initContainers") => (Strategy::Merge("name"), "Container"),
        ("PodSpec", "ephemeralContainers") => (Strategy::Merge("name"), "EphemeralContainer"),
        ("PodSpec", "volumes") => (Strategy::MergeRetainKeys("name"), "Volume"),
        ("PodSpec", "resourceClaims") => (Strategy::MergeRetainKeys("name"), ""),
        ("PodSpec", "imagePullSecrets" | "schedulingGates") => (Strategy::Merge("name"), ""),
        ("PodSpec", "hostAliases") => (Strategy::Merge("ip"), ""),
        ("PodSpec", "topologySpreadConstraints") => (Strategy::Merge("topologyKey"), ""),
        ("Container" | "EphemeralContainer", "env") => (Strategy::Merge("name"), ""),
        ("Container" | "EphemeralContainer", "ports") => (Strategy::Merge("containerPort"), ""),
        ("Container" | "EphemeralContainer" | "ContainerStatus", "volumeMounts") => {
            (Strategy::Merge("mountPath"), "")
        }
        ("Container" | "EphemeralContainer", "volumeDevices") => (Strategy::Merge("devicePath"), ""),
        ("ContainerStatus", "allocatedResourcesStatus") => (Strategy::Merge("name"), ""),
        ("PodStatus", "podIPs" | "hostIPs") => (Strategy::Merge("ip"), ""),
        ("PodStatus", "resourceClaimStatuses") => (Strategy::MergeRetainKeys("name"), ""),
        ("NodeSpec", "podCIDRs") => (Strategy::Merge(""), ""),
        ("NodeStatus", "addresses") => (Strategy::Merge("type"), ""),
        ("ServiceSpec", "ports") => (Strategy::Merge("port"), ""),
        ("ServiceAccount", "secrets") => (Strategy::Merge("name"), ""),
        ("DeploymentSpec", "strategy") => (Strategy::RetainKeys, ""),
        ("PodDisruptionBudgetSpec", "selector") => (Strategy::Replace, ""),
        ("CSINodeSpec", "drivers") => (Strategy::Merge("name"), ""),
        ("ResourceClaimStatus", "reservedFor") => (Strategy::Merge("uid"), ""),
        ("JSONSchemaProps", "x-kubernetes-validations") => (Strategy::Merge("rule"), ""),
        ("ValidatingWebhookConfiguration", "webhooks") => (Strategy::Merge("name"), "ValidatingWebhook"),
        ("MutatingWebhookConfiguration", "webhooks") => (Strategy::Merge("name"), "MutatingWebhook"),
        ("ValidatingWebhook" | "MutatingWebhook", "matchConditions") => (Strategy::Merge("name"), ""),
        ("ValidatingAdmissionPolicySpec" | "MutatingAdmissionPolicySpec", "matchConditions") => {
            (Strategy::Merge("name"), "")
        }
        ("ValidatingAdmissionPolicySpec", "variables") => (Strategy::Merge("name"), ""),
        (status, "conditions") if CONDITIONS.contains(&status) => (Strategy::Merge("type"), ""),

        _ => {
            let edge = EDGES.iter().find(|(from, field, _)| *from == parent && *field == name)?;
            (Strategy::Default, edge.2)
        }
    };
    Some(Field { strategy, type_name })
}

/// The types whose `conditions` merge by `type`. In the others, such as `IngressStatus`, they are replaced.
const CONDITIONS: [&str; 18] = [
    "APIServiceStatus",
    "ComponentStatus",
    "DaemonSetStatus",
    "DeploymentStatus",
    "FlowSchemaStatus",
    "HorizontalPodAutoscalerStatus",
    "JobStatus",
    "NamespaceStatus",
    "NodeStatus",
    "PersistentVolumeClaimStatus",
    "PodDisruptionBudgetStatus",
    "PodStatus",
    "PriorityLevelConfigurationStatus",
    "ReplicaSetStatus",
    "ReplicationControllerStatus",
    "ServiceCIDRStatus",
    "ServiceStatus",
    "StatefulSetStatus",
];

/// The ways from kinds to types with special fields: (type, field, type of the field).
const EDGES: &[(&str, &str, &str)] = &[
    ("APIService", "status", "APIServiceStatus"),
    ("CSINode", "spec", "CSINodeSpec"),
    ("CronJob", "spec", "CronJobSpec"),
    ("CronJobSpec", "jobTemplate", "JobTemplateSpec"),
    ("DaemonSet", "spec", "DaemonSetSpec"),
    ("DaemonSet", "status", "DaemonSetStatus"),
    ("DaemonSetSpec", "template", "PodTemplateSpec"),
    ("Deployment", "spec", "DeploymentSpec"),
    ("Deployment", "status", "DeploymentStatus"),
    ("DeploymentSpec", "template", "PodTemplateSpec"),
    ("EphemeralVolumeSource", "volumeClaimTemplate", "PersistentVolumeClaimTemplate"),
    ("FlowSchema", "status", "FlowSchemaStatus"),
    ("HorizontalPodAutoscaler", "status", "HorizontalPodAutoscalerStatus"),
    ("Job", "spec", "JobSpec"),
    ("Job", "status", "JobStatus"),
    ("JobSpec", "template", "PodTemplateSpec"),
    ("JobTemplateSpec", "spec", "JobSpec"),
    ("MutatingAdmissionPolicy", "spec", "MutatingAdmissionPolicySpec"),
    ("Namespace", "status", "NamespaceStatus"),
    ("Node", "spec", "NodeSpec"),
    ("Node", "status", "NodeStatus"),
    ("PersistentVolumeClaim", "status", "PersistentVolumeClaimStatus"),
    ("Pod", "spec", "PodSpec"),
    ("Pod", "status", "PodStatus"),
    ("PodDisruptionBudget", "spec", "PodDisruptionBudgetSpec"),
    ("PodDisruptionBudget", "status", "PodDisruptionBudgetStatus"),
    ("PodTemplate", "template", "PodTemplateSpec"),
    ("PodTemplateSpec", "spec", "PodSpec"),
    ("PriorityLevelConfiguration", "status", "PriorityLevelConfigurationStatus"),
    ("ReplicaSet", "spec", "ReplicaSetSpec"),
    ("ReplicaSet", "status", "ReplicaSetStatus"),
    ("ReplicaSetSpec", "template", "PodTemplateSpec"),
    ("ReplicationController", "spec", "ReplicationControllerSpec"),
    ("ReplicationController", "status", "ReplicationControllerStatus"),
    ("ReplicationControllerSpec", "template", "PodTemplateSpec"),
    ("ResourceClaim", "status", "ResourceClaimStatus"),
    ("Service", "spec", "ServiceSpec"),
    ("Service", "status", "ServiceStatus"),
    ("ServiceCIDR", "status", "ServiceCIDRStatus"),
    ("StatefulSet", "spec", "StatefulSetSpec"),
    ("StatefulSet", "status", "StatefulSetStatus"),
    ("StatefulSetSpec", "template", "PodTemplateSpec"),
    ("ValidatingAdmissionPolicy", "spec", "ValidatingAdmissionPolicySpec"),
    ("Volume", "ephemeral", "EphemeralVolumeSource"),
];

/// Whether `group` is one of Kubernetes' own, whose types this table knows.
pub fn is_built_in(group: &str) -> bool {
    matches!(
        group,
        "" | "apps"
            | "batch"
            | "autoscaling"
            | "policy"
            | "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "apiregistration.k8s.io"
            | "authentication.k8s.io"
            | "authorization.k8s.io"
            | "certificates.k8s.io"
            | "coordination.k8s.io"
            | "discovery.k8s.io"
            | "events.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "networking.k8s.io"
            | "node.k8s.io"
            | "rbac.authorization.k8s.io"
            | "resource.k8s.io"
            | "scheduling.k8s.io"
            | "storage.k8s.io"
    )
}
