//! Group `apps`.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};

use crate::default::workload;
use crate::kind::Kind;
use crate::table::workload as table;
use crate::validate::workload as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<Deployment>()
            .table(table::deployment_columns(), table::deployment)
            .short_names(&["deploy"])
            .categories(&["all"])
            .status()
            .scale(".spec.replicas", ".status.replicas", ".spec.selector")
            .defaults(workload::deployment)
            .validate(validate::deployment)
            .validate_update(validate::deployment_update)
            .prepare_for_create(|d| d.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<ReplicaSet>()
            .table(table::replica_set_columns(), table::replica_set)
            .short_names(&["rs"])
            .categories(&["all"])
            .status()
            .scale(".spec.replicas", ".status.replicas", ".spec.selector")
            .defaults(workload::replica_set)
            .validate(validate::replica_set)
            .validate_update(validate::replica_set_update)
            .prepare_for_create(|r| r.status = Some(Default::default()))
            .selectable("status.replicas", |r| r.status.as_ref().map_or(0, |s| s.replicas).to_string())
            .schema()
            .build(),
        Kind::of::<StatefulSet>()
            .table(table::stateful_set_columns(), table::stateful_set)
            .short_names(&["sts"])
            .categories(&["all"])
            .status()
            .scale(".spec.replicas", ".status.replicas", ".spec.selector")
            .defaults(workload::stateful_set)
            .validate(validate::stateful_set)
            .validate_update(validate::stateful_set_update)
            .prepare_for_create(|s| s.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<DaemonSet>()
            .table(table::daemon_set_columns(), table::daemon_set)
            .short_names(&["ds"])
            .categories(&["all"])
            .status()
            .defaults(workload::daemon_set)
            .validate(validate::daemon_set)
            .validate_update(validate::daemon_set_update)
            .prepare_for_create(|d| d.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<ControllerRevision>().table(table::revision_columns(), table::revision).schema().build(),
    ]
}
