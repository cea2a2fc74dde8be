//! How server-side apply treats the lists and maps of the built-in types: their `x-kubernetes-list-type`,
//! `x-kubernetes-list-map-keys` and `x-kubernetes-map-type`.
//!
//! A type stands under the last part of its OpenAPI definition's name. Lists that are not listed are atomic, maps and
//! structs granular. What strategic merge does is another table, [`crate::patch::merge_keys`]: it knows one key a list.

/// What a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Each value is there once, and may have an owner of its own.
    Set,
    /// These fields tell its items apart.
    Map(&'static [&'static str]),
}

/// What the list `field` of `type_name` is; `None` if it is atomic.
pub fn list(type_name: &str, field: &str) -> Option<ListType> {
    use ListType::{Map, Set};
    Some(match (type_name, field) {
        ("ObjectMeta", "finalizers") => Set,
        ("ObjectMeta", "ownerReferences") => Map(&["uid"]),

        ("Container" | "EphemeralContainer", "env") => Map(&["name"]),
        ("Container" | "EphemeralContainer", "ports") => Map(&["containerPort", "protocol"]),
        ("Container" | "EphemeralContainer", "volumeDevices") => Map(&["devicePath"]),
        ("Container" | "EphemeralContainer" | "ContainerStatus", "volumeMounts") => Map(&["mountPath"]),
        ("ContainerRestartRuleOnExitCodes", "values") => Set,
        ("ContainerStatus", "allocatedResourcesStatus") => Map(&["name"]),
        ("PodSpec", "containers" | "initContainers" | "ephemeralContainers" | "volumes") => Map(&["name"]),
        ("PodSpec", "imagePullSecrets" | "schedulingGates" | "resourceClaims" | "evictionResponders") => {
            Map(&["name"])
        }
        ("PodSpec", "hostAliases") => Map(&["ip"]),
        ("PodSpec", "topologySpreadConstraints") => Map(&["topologyKey", "whenUnsatisfiable"]),
        ("PodStatus", "podIPs") => Map(&["ip"]),
        ("PodStatus", "resourceClaimStatuses" | "volumeHealth") => Map(&["name"]),
        ("PodStatus", "nodeAllocatableResourceClaimStatuses") => Map(&["resourceClaimName"]),
        ("NodeAllocatableResourceClaimStatus", "containers") => Set,
        ("NodeAllocatableResourceClaimStatus", "mapping" | "overhead") => Map(&["name"]),
        ("PodVolumeHealth" | "VolumeHealthStatus", "healthConditions") => Map(&["status"]),
        ("ResourceRequirements", "claims") => Map(&["name"]),
        ("ResourceStatus", "resources") => Map(&["resourceID"]),
        ("VolumeMount", "bindMountOptions") => Set,
        ("ServiceSpec", "ports") => Map(&["port", "protocol"]),
        ("ServiceAccount", "secrets") => Map(&["name"]),
        ("NodeSpec", "podCIDRs") | ("NodePodPreemptionPolicy", "disableResizePreemption") => Set,
        ("NodeStatus", "addresses") => Map(&["type"]),

        ("PodFailurePolicyOnExitCodesRequirement", "values") => Set,
        ("UncountedTerminatedPods", "failed" | "succeeded") => Set,
        ("JobSchedulingConfiguration", "resourceClaims") => Map(&["name"]),
        ("Endpoint", "addresses") => Set,
        ("CSIDriverSpec", "volumeLifecycleModes") => Set,
        ("CSINodeSpec", "drivers") | ("CSINodeStatus", "storageHealth") => Map(&["name"]),
        ("NonResourcePolicyRule", "nonResourceURLs" | "verbs") => Set,
        ("ResourcePolicyRule", "apiGroups" | "namespaces" | "resources" | "verbs") => Set,
        ("DeviceRequestAllocationResult" | "ResourceSliceSpec", "skipNodeOperations") => Set,
        ("ResourceClaimStatus", "devices") => Map(&["device", "driver", "pool", "shareID"]),
        ("ResourceClaimStatus", "reservedFor") => Map(&["uid"]),
        ("JSONSchemaProps", "x-kubernetes-validations") => Map(&["rule"]),
        ("ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration", "webhooks") => Map(&["name"]),
        ("ValidatingWebhook" | "MutatingWebhook", "matchConditions") => Map(&["name"]),
        ("ValidatingAdmissionPolicySpec" | "MutatingAdmissionPolicySpec", "matchConditions") => {
            Map(&["name"])
        }
        ("ValidatingAdmissionPolicySpec", "variables") => Map(&["name"]),
        ("ValidatingAdmissionPolicyBindingSpec", "validationActions") => Set,

        (status, "conditions") if CONDITIONS.contains(&status) => Map(&["type"]),
        _ => return None,
    })
}

/// The types whose `conditions` are told apart by `type`.
const CONDITIONS: &[&str] = &[
    "APIServiceStatus",
    "AllocatedDeviceStatus",
    "CertificateSigningRequestStatus",
    "ComponentStatus",
    "CustomResourceDefinitionStatus",
    "DaemonSetStatus",
    "DeploymentStatus",
    "DeviceTaintRuleStatus",
    "FlowSchemaStatus",
    "HorizontalPodAutoscalerStatus",
    "JobStatus",
    "NamespaceStatus",
    "NodeStatus",
    "PersistentVolumeClaimStatus",
    "PodCertificateRequestStatus",
    "PodDisruptionBudgetStatus",
    "PodStatus",
    "PriorityLevelConfigurationStatus",
    "ReplicaSetStatus",
    "ReplicationControllerStatus",
    "ServiceCIDRStatus",
    "ServiceStatus",
    "StatefulSetStatus",
    "StorageVersionMigrationStatus",
    "ValidatingAdmissionPolicyStatus",
];

/// What a key that an item leaves out is taken for.
pub fn key_default(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}

/// Whether the type, a struct, has one owner as a whole. `name` is that of its definition.
pub fn is_atomic(name: &str) -> bool {
    // The second version of that type is granular.
    if name.ends_with(".CrossVersionObjectReference") {
        return name.ends_with(".autoscaling.v1.CrossVersionObjectReference");
    }
    matches!(
        name.rsplit('.').next().unwrap_or_default(),
        "ConfigMapKeySelector"
            | "EndpointAddress"
            | "EndpointPort"
            | "FileKeySelector"
            | "LabelSelector"
            | "LocalObjectReference"
            | "MatchResources"
            | "NamedRuleWithOperations"
            | "NodeSelector"
            | "NodeSelectorTerm"
            | "ObjectFieldSelector"
            | "ObjectReference"
            | "OwnerReference"
            | "ParamKind"
            | "ParamRef"
            | "ResourceFieldSelector"
            | "RoleRef"
            | "ScopeSelector"
            | "SecretKeySelector"
            | "SecretReference"
            | "ServiceBackendPort"
            | "Subject"
            | "TopologySelectorTerm"
            | "TypedLocalObjectReference"
            | "Variable"
    )
}

/// Whether the map or struct `field` of `type_name` has one owner as a whole, where that is not up to its own type.
pub fn is_atomic_field(type_name: &str, field: &str) -> Option<bool> {
    match (type_name, field) {
        ("PodSpec" | "Scheduling", "nodeSelector")
        | ("ReplicationControllerSpec" | "ServiceSpec", "selector") => Some(true),
        ("PersistentVolumeSpec", "claimRef") => Some(false),
        _ => None,
    }
}

/// Whether Kubernetes' own encoding of an object of nothing has the field: structs that are not behind pointers, and
/// lists that are written even if they are empty. Whoever makes an object does not own such fields as such.
pub fn is_always_there(type_name: &str, field: &str) -> bool {
    matches!(
        (type_name, field),
        ("DeploymentSpec", "strategy" | "template")
            | ("DaemonSetSpec" | "StatefulSetSpec", "updateStrategy" | "template")
            | ("ReplicaSetSpec" | "JobSpec" | "PodTemplate", "template")
            | ("CronJobSpec", "jobTemplate")
            | ("JobTemplateSpec" | "PodTemplateSpec", "metadata" | "spec")
            | ("PodSpec", "containers")
            | ("PersistentVolumeClaimSpec", "resources")
            | ("HorizontalPodAutoscalerSpec", "scaleTargetRef")
            | ("ServiceStatus" | "IngressStatus", "loadBalancer")
            | ("NodeStatus", "daemonEndpoints" | "nodeInfo")
            | ("NodeDaemonEndpoints", "kubeletEndpoint")
            | ("Event", "source")
            | ("CustomResourceDefinitionSpec", "names")
    )
}
