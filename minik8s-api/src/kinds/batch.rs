//! Group `batch`.

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::default::batch;
use crate::kind::Kind;
use crate::table::batch as table;
use crate::validate::workload as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<Job>()
            .table(table::job_columns(), table::job)
            .categories(&["all"])
            .status()
            .defaults(batch::job)
            .validate(validate::job)
            .validate_update(validate::job_update)
            .prepare_for_create(batch::prepare_job)
            .selectable("status.successful", |j| {
                j.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0).to_string()
            })
            .schema()
            .build(),
        Kind::of::<CronJob>()
            .table(table::cron_job_columns(), table::cron_job)
            .short_names(&["cj"])
            .categories(&["all"])
            .status()
            .defaults(batch::cron_job)
            .validate(validate::cron_job)
            .prepare_for_create(|c| c.status = Some(Default::default()))
            .schema()
            .build(),
    ]
}
