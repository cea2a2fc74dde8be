//! Jobs and CronJobs.

use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};

use super::{pod, set};

/// Fills in a Job.
pub fn job(job: &mut Job) {
    let Some(spec) = &mut job.spec else { return };
    job_spec(spec);
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
    if job.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
        job.metadata.labels = labels;
    }
}

/// Fills in a CronJob and the jobs that it will make.
pub fn cron_job(cron_job: &mut CronJob) {
    let spec = &mut cron_job.spec;
    set(&mut spec.concurrency_policy, "Allow");
    spec.suspend.get_or_insert(false);
    spec.successful_jobs_history_limit.get_or_insert(3);
    spec.failed_jobs_history_limit.get_or_insert(1);
    if let Some(job) = &mut spec.job_template.spec {
        pod::template(&mut job.template);
    }
}

fn job_spec(spec: &mut JobSpec) {
    // Neither: one pod that must succeed. Only the parallelism: a work queue, which has no completions.
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    // With a limit for each index, the whole may fail as often as it likes.
    spec.backoff_limit.get_or_insert(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
    set(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let only_failed = spec.pod_failure_policy.is_some();
    set(&mut spec.pod_replacement_policy, if only_failed { "Failed" } else { "TerminatingOrFailed" });
    pod::template(&mut spec.template);
}

/// Readies a new Job, which must have its uid: unless it says otherwise, its pods are those that carry that uid.
pub fn prepare_job(job: &mut Job) {
    job.status = Some(Default::default());
    let (name, uid) = (job.metadata.name.clone().unwrap_or_default(), job.metadata.uid.clone());
    let (Some(spec), Some(uid)) = (&mut job.spec, uid) else {
        return;
    };
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if spec.manual_selector != Some(true) {
        labels.insert("controller-uid".to_owned(), uid.clone());
        labels.insert("batch.kubernetes.io/controller-uid".to_owned(), uid.clone());
        let own = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
        own.insert("batch.kubernetes.io/controller-uid".to_owned(), uid);
    }
    for key in ["job-name", "batch.kubernetes.io/job-name"] {
        labels.insert(key.to_owned(), name.clone());
    }
}
