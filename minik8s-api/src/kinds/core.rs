//! The core group.

use k8s_openapi::api::core::v1::{
    Binding, ConfigMap, Endpoints, Event, LimitRange, Namespace, NamespaceSpec, NamespaceStatus, Node,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus, Pod,
    PodTemplate, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount, ServiceStatus,
};

use crate::default::{self, service, small, workload};
use crate::kind::Kind;
use crate::object::Object;
use crate::table;
use crate::validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        pod(),
        Kind::of::<Binding>().not_stored().schema().build(),
        Kind::of::<Namespace>()
            .table(table::small::namespace_columns(), table::small::namespace)
            .short_names(&["ns"])
            .status()
            .generation(false)
            .subresources(&["finalize"])
            .returns_deleted()
            .defaults(small::namespace)
            .validate(validate::data::namespace)
            .prepare_for_create(|namespace| {
                namespace.status =
                    Some(NamespaceStatus { phase: Some("Active".to_owned()), conditions: None });
                namespace.spec = Some(NamespaceSpec { finalizers: Some(vec!["kubernetes".to_owned()]) });
            })
            .selectable("status.phase", |n| {
                n.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default()
            })
            .schema()
            .build(),
        // A node agent registers its node together with its status.
        Kind::of::<Node>()
            .table(table::node::columns(), table::node::row)
            .short_names(&["no"])
            .validate(validate::data::node)
            .validate_update(validate::data::node_update)
            .status()
            .generation(false)
            .subresources(&["proxy"])
            .selectable("spec.unschedulable", |n| {
                n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false).to_string()
            })
            .schema()
            .build(),
        Kind::of::<ConfigMap>()
            .table(table::small::config_map_columns(), table::small::config_map)
            .short_names(&["cm"])
            .validate(validate::data::config_map)
            .validate_update(validate::data::config_map_update)
            .schema()
            .build(),
        Kind::of::<Secret>()
            .table(table::small::secret_columns(), table::small::secret)
            .defaults(small::secret)
            .validate(validate::data::secret)
            .validate_update(validate::data::secret_update)
            .selectable("type", |s| s.type_.clone().unwrap_or_default())
            .schema()
            .build(),
        Kind::of::<Service>()
            .table(table::network::service_columns(), table::network::service)
            .short_names(&["svc"])
            .categories(&["all"])
            .status()
            .generation(false)
            .subresources(&["proxy"])
            .returns_deleted()
            .defaults(service::service)
            .validate(validate::service::validate)
            .validate_update(validate::service::validate_update)
            .prepare_for_create(|s| {
                s.status = Some(ServiceStatus { load_balancer: Some(Default::default()), conditions: None });
            })
            .selectable("spec.clusterIP", |s| {
                s.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap_or_default()
            })
            .selectable("spec.type", |s| s.spec.as_ref().and_then(|s| s.type_.clone()).unwrap_or_default())
            .schema()
            .build(),
        Kind::of::<ServiceAccount>()
            .table(table::small::service_account_columns(), table::small::service_account)
            .short_names(&["sa"])
            .subresources(&["token"])
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<Endpoints>()
            .defaults(default::network::endpoints)
            .table(table::network::endpoints_columns(), table::network::endpoints)
            .short_names(&["ep"])
            .schema()
            .build(),
        event(),
        Kind::of::<PersistentVolume>()
            .defaults(default::storage::volume)
            .table(table::storage::volume_columns(), table::storage::volume)
            .short_names(&["pv"])
            .status()
            .generation(false)
            .returns_deleted()
            .prepare_for_create(|pv| {
                let phase = Some("Pending".to_owned());
                pv.status = Some(PersistentVolumeStatus { phase, ..Default::default() });
            })
            .schema()
            .build(),
        Kind::of::<PersistentVolumeClaim>()
            .defaults(default::storage::claim)
            .validate(validate::cluster::claim)
            .validate_update(validate::cluster::claim_update)
            .table(table::storage::claim_columns(), table::storage::claim)
            .short_names(&["pvc"])
            .status()
            .generation(false)
            .returns_deleted()
            .prepare_for_create(|claim| {
                let phase = Some("Pending".to_owned());
                claim.status = Some(PersistentVolumeClaimStatus { phase, ..Default::default() });
            })
            .schema()
            .build(),
        Kind::of::<ReplicationController>()
            .table(table::workload::replica_set_columns(), table::workload::replication_controller)
            .short_names(&["rc"])
            .categories(&["all"])
            .status()
            .scale(".spec.replicas", ".status.replicas", ".spec.selector")
            .defaults(workload::replication_controller)
            .validate(validate::workload::replication_controller)
            .prepare_for_create(|rc| rc.status = Some(Default::default()))
            .selectable("status.replicas", |rc| rc.status.as_ref().map_or(0, |s| s.replicas).to_string())
            .schema()
            .build(),
        Kind::of::<PodTemplate>()
            .table(table::small::pod_template_columns(), table::small::pod_template)
            .defaults(workload::pod_template)
            .returns_deleted()
            .schema()
            .build(),
        Kind::of::<LimitRange>()
            .table(table::small::limit_range_columns(), table::small::limit_range)
            .short_names(&["limits"])
            .defaults(default::limits::limit_range)
            .validate(validate::limits::limit_range)
            .schema()
            .build(),
        Kind::of::<ResourceQuota>()
            .table(table::small::quota_columns(), table::small::quota)
            .short_names(&["quota"])
            .status()
            .generation(false)
            .returns_deleted()
            .validate(validate::limits::quota)
            .validate_update(validate::limits::quota_update)
            .prepare_for_create(|q| q.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}

fn pod() -> Kind {
    Kind::of::<Pod>()
        .table(table::pod::columns(), table::pod::row)
        .short_names(&["po"])
        .categories(&["all"])
        .status()
        .subresources(&[
            "attach",
            "binding",
            "ephemeralcontainers",
            "eviction",
            "exec",
            "log",
            "portforward",
            "proxy",
            "resize",
        ])
        .returns_deleted()
        .graceful(pod_grace)
        .defaults(default::pod::pod)
        .validate(validate::pod::validate)
        .validate_update(validate::pod::validate_update)
        .prepare_for_create(default::pod::prepare_for_create)
        .selectable("spec.nodeName", |p| spec(p, |s| s.node_name.as_deref()))
        .selectable("spec.restartPolicy", |p| spec(p, |s| s.restart_policy.as_deref()))
        .selectable("spec.schedulerName", |p| spec(p, |s| s.scheduler_name.as_deref()))
        .selectable("spec.serviceAccountName", |p| spec(p, |s| s.service_account_name.as_deref()))
        .selectable("spec.hostNetwork", |p| {
            p.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false).to_string()
        })
        .selectable("status.phase", |p| p.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default())
        .selectable("status.podIP", |p| p.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default())
        .selectable("status.nominatedNodeName", |p| {
            p.status.as_ref().and_then(|s| s.nominated_node_name.clone()).unwrap_or_default()
        })
        .schema()
        .build()
}

fn spec(pod: &Pod, field: impl Fn(&k8s_openapi::api::core::v1::PodSpec) -> Option<&str>) -> String {
    pod.spec.as_ref().and_then(field).unwrap_or_default().to_owned()
}

/// A pod that no node runs, or that has ended, goes at once.
fn pod_grace(object: &dyn Object) -> i64 {
    let Some(pod) = object.downcast_ref::<Pod>() else {
        return 0;
    };
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let spec = pod.spec.as_ref();
    let scheduled = spec.and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    if !scheduled || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(default::pod::GRACE_PERIOD_S).max(0)
}

fn event() -> Kind {
    type Reference = k8s_openapi::api::core::v1::ObjectReference;
    fn involved(event: &Event, field: fn(&Reference) -> &Option<String>) -> String {
        field(&event.involved_object).clone().unwrap_or_default()
    }
    Kind::of::<Event>()
        .table(table::event::columns(), table::event::row)
        .short_names(&["ev"])
        .selectable("involvedObject.kind", |e| involved(e, |o| &o.kind))
        .selectable("involvedObject.namespace", |e| involved(e, |o| &o.namespace))
        .selectable("involvedObject.name", |e| involved(e, |o| &o.name))
        .selectable("involvedObject.uid", |e| involved(e, |o| &o.uid))
        .selectable("involvedObject.apiVersion", |e| involved(e, |o| &o.api_version))
        .selectable("involvedObject.resourceVersion", |e| involved(e, |o| &o.resource_version))
        .selectable("involvedObject.fieldPath", |e| involved(e, |o| &o.field_path))
        .selectable("reason", |e| e.reason.clone().unwrap_or_default())
        .selectable("reportingComponent", |e| e.reporting_component.clone().unwrap_or_default())
        .selectable("source", |e| {
            let source = e.source.as_ref().and_then(|s| s.component.clone()).filter(|c| !c.is_empty());
            source.or_else(|| e.reporting_component.clone()).unwrap_or_default()
        })
        .selectable("type", |e| e.type_.clone().unwrap_or_default())
        .schema()
        .build()
}
