//! Jobs and CronJobs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobStatus};

use super::{NONE, age, columns, containers, name, row, selector, since, text, true_or_false};
use crate::kind::{Cell, Column, human_duration};

pub(crate) fn job_columns() -> Vec<Column> {
    columns![
        "Status" "What the job is doing.",
        "Completions" "How many of the wanted pods have succeeded.",
        "Duration" "How long it took, or has taken so far.",
        "Age" "How long ago the object was created.",
        "Containers" "The names of the template's containers.": wide,
        "Images" "The images of the template's containers.": wide,
        "Selector" "Which pods belong to it.": wide,
    ]
}

pub(crate) fn job(job: &Job, now: Timestamp) -> Vec<Cell> {
    let empty = JobStatus::default();
    let status = job.status.as_ref().unwrap_or(&empty);
    let spec = job.spec.as_ref();
    let succeeded = status.succeeded.unwrap_or(0);
    let completions = match spec.and_then(|s| s.completions) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match spec.and_then(|s| s.parallelism).unwrap_or(1) {
            parallel if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
            _ => format!("{succeeded}/1"),
        },
    };
    let duration = status.start_time.as_ref().map(|start| {
        let end = status.completion_time.as_ref().map_or(now, |t| t.0);
        human_duration(end.as_second() - start.0.as_second())
    });
    let [names, images] = containers(spec.map(|s| &s.template));
    row![
        name(&job.metadata),
        job_word(job, status),
        completions,
        duration.unwrap_or_default(),
        age(&job.metadata, now),
        names,
        images,
        selector(spec.and_then(|s| s.selector.as_ref())),
    ]
}

fn job_word(job: &Job, status: &JobStatus) -> &'static str {
    let holds =
        |type_: &str| status.conditions.iter().flatten().any(|c| c.type_ == type_ && c.status == "True");
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

pub(crate) fn cron_job_columns() -> Vec<Column> {
    columns![
        "Schedule" "When it runs.",
        "Timezone" "In which time zone.",
        "Suspend" "Whether it pauses.",
        "Active" "How many of its jobs run.": int,
        "Last Schedule" "How long ago it ran.",
        "Age" "How long ago the object was created.",
        "Containers" "The names of the template's containers.": wide,
        "Images" "The images of the template's containers.": wide,
        "Selector" "Which pods belong to it.": wide,
    ]
}

pub(crate) fn cron_job(cron_job: &CronJob, now: Timestamp) -> Vec<Cell> {
    let status = cron_job.status.as_ref();
    let spec = &cron_job.spec;
    let last = status.and_then(|s| s.last_schedule_time.as_ref()).map(|t| since(Some(t), now));
    let job = spec.job_template.spec.as_ref();
    let [names, images] = containers(job.map(|s| &s.template));
    row![
        name(&cron_job.metadata),
        spec.schedule.clone(),
        text(spec.time_zone.as_deref(), NONE),
        true_or_false(spec.suspend),
        status.map_or(0, |s| s.active.iter().flatten().count()),
        text(last.as_deref(), NONE),
        age(&cron_job.metadata, now),
        names,
        images,
        selector(job.and_then(|s| s.selector.as_ref())),
    ]
}
