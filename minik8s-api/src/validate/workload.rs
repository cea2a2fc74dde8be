//! Controllers of pods.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{IMMUTABLE, label_selector, not_negative, one_of, pod, required};
use crate::field::{FieldErrors, FieldPath};
use crate::meta;
use crate::selector::Selector;

/// What is wrong with a Deployment.
pub fn deployment(deployment: &Deployment) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &deployment.spec);
    not_negative(&mut errors, path.child("replicas"), spec.replicas);
    not_negative(&mut errors, path.child("minReadySeconds"), spec.min_ready_seconds);
    not_negative(&mut errors, path.child("revisionHistoryLimit"), spec.revision_history_limit);
    selector(&mut errors, &path, Some(&spec.selector), Some(&spec.template), "deployment");
    template(&mut errors, &path, &spec.template, &["Always"]);
    if let Some(seconds) = spec.progress_deadline_seconds {
        let path = path.child("progressDeadlineSeconds");
        not_negative(&mut errors, path.clone(), Some(seconds));
        if seconds <= spec.min_ready_seconds.unwrap_or(0) {
            errors.invalid(path, seconds, "must be greater than minReadySeconds");
        }
    }
    if let Some(strategy) = &spec.strategy {
        let path = path.child("strategy");
        one_of(&mut errors, path.child("type"), strategy.type_.as_deref(), &["Recreate", "RollingUpdate"]);
        let rolling = path.child("rollingUpdate");
        match (strategy.type_.as_deref(), &strategy.rolling_update) {
            (Some("Recreate"), Some(_)) => {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.forbidden(rolling, detail);
            }
            (_, Some(update)) => {
                rolling_update(&mut errors, &rolling, &update.max_unavailable, &update.max_surge);
            }
            _ => {}
        }
    }
    errors
}

/// What is wrong with a change of a Deployment.
pub fn deployment_update(new: &Deployment, old: &Deployment) -> FieldErrors {
    selector_update(&new.spec.selector, &old.spec.selector)
}

/// What is wrong with a ReplicaSet.
pub fn replica_set(set: &ReplicaSet) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &set.spec);
    not_negative(&mut errors, path.child("replicas"), spec.replicas);
    not_negative(&mut errors, path.child("minReadySeconds"), spec.min_ready_seconds);
    selector(&mut errors, &path, Some(&spec.selector), spec.template.as_ref(), "replicaset");
    match &spec.template {
        Some(given) => template(&mut errors, &path, given, &["Always"]),
        None => errors.required(path.child("template"), ""),
    }
    errors
}

/// What is wrong with a change of a ReplicaSet.
pub fn replica_set_update(new: &ReplicaSet, old: &ReplicaSet) -> FieldErrors {
    selector_update(&new.spec.selector, &old.spec.selector)
}

/// What is wrong with a ReplicationController.
pub fn replication_controller(rc: &ReplicationController) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let Some(spec) = &rc.spec else {
        errors.required(path.child("selector"), "");
        return errors;
    };
    not_negative(&mut errors, path.child("replicas"), spec.replicas);
    not_negative(&mut errors, path.child("minReadySeconds"), spec.min_ready_seconds);
    match (&spec.selector, &spec.template) {
        (Some(labels), Some(given)) if !labels.is_empty() => {
            let as_selector = LabelSelector { match_labels: Some(labels.clone()), match_expressions: None };
            selector(&mut errors, &path, Some(&as_selector), Some(given), "replicationcontroller");
            template(&mut errors, &path, given, &["Always"]);
        }
        (_, None) => errors.required(path.child("template"), ""),
        _ => errors.required(path.child("selector"), ""),
    }
    errors
}

/// What is wrong with a DaemonSet.
pub fn daemon_set(set: &DaemonSet) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &set.spec);
    not_negative(&mut errors, path.child("minReadySeconds"), spec.min_ready_seconds);
    not_negative(&mut errors, path.child("revisionHistoryLimit"), spec.revision_history_limit);
    selector(&mut errors, &path, Some(&spec.selector), Some(&spec.template), "daemonset");
    template(&mut errors, &path, &spec.template, &["Always"]);
    if let Some(strategy) = &spec.update_strategy {
        let path = path.child("updateStrategy");
        one_of(&mut errors, path.child("type"), strategy.type_.as_deref(), &["OnDelete", "RollingUpdate"]);
        if let Some(update) = &strategy.rolling_update {
            let path = path.child("rollingUpdate");
            rolling_update(&mut errors, &path, &update.max_unavailable, &update.max_surge);
        }
    }
    errors
}

/// What is wrong with a change of a DaemonSet.
pub fn daemon_set_update(new: &DaemonSet, old: &DaemonSet) -> FieldErrors {
    selector_update(&new.spec.selector, &old.spec.selector)
}

/// What is wrong with a StatefulSet.
pub fn stateful_set(set: &StatefulSet) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &set.spec);
    not_negative(&mut errors, path.child("replicas"), spec.replicas);
    not_negative(&mut errors, path.child("minReadySeconds"), spec.min_ready_seconds);
    not_negative(&mut errors, path.child("revisionHistoryLimit"), spec.revision_history_limit);
    if let Some(ordinals) = &spec.ordinals {
        not_negative(&mut errors, path.child("ordinals").child("start"), ordinals.start);
    }
    let policy = spec.pod_management_policy.as_deref();
    one_of(&mut errors, path.child("podManagementPolicy"), policy, &["OrderedReady", "Parallel"]);
    if let Some(strategy) = &spec.update_strategy {
        let path = path.child("updateStrategy");
        one_of(&mut errors, path.child("type"), strategy.type_.as_deref(), &["OnDelete", "RollingUpdate"]);
        let partition = strategy.rolling_update.as_ref().and_then(|r| r.partition);
        not_negative(&mut errors, path.child("rollingUpdate").child("partition"), partition);
    }
    selector(&mut errors, &path, Some(&spec.selector), Some(&spec.template), "statefulset");
    // The claims become volumes of the same names.
    let mut with_claims = spec.template.clone();
    if let Some(pod) = &mut with_claims.spec {
        let volumes = pod.volumes.get_or_insert_default();
        for claim in spec.volume_claim_templates.iter().flatten() {
            let name = claim.metadata.name.clone().unwrap_or_default();
            volumes.retain(|v| v.name != name);
            volumes.push(k8s_openapi::api::core::v1::Volume {
                name,
                empty_dir: Some(Default::default()),
                ..Default::default()
            });
        }
    }
    template(&mut errors, &path, &with_claims, &["Always"]);
    errors
}

/// What is wrong with a change of a StatefulSet.
pub fn stateful_set_update(new: &StatefulSet, old: &StatefulSet) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut unchanged = new.spec.clone();
    let before = &old.spec;
    unchanged.replicas = before.replicas;
    unchanged.ordinals.clone_from(&before.ordinals);
    unchanged.template.clone_from(&before.template);
    unchanged.update_strategy.clone_from(&before.update_strategy);
    unchanged.revision_history_limit = before.revision_history_limit;
    unchanged.min_ready_seconds = before.min_ready_seconds;
    unchanged
        .persistent_volume_claim_retention_policy
        .clone_from(&before.persistent_volume_claim_retention_policy);
    if unchanged != *before {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.forbidden(FieldPath::new("spec"), detail);
    }
    errors
}

/// What is wrong with a Job.
pub fn job(job: &Job) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    match &job.spec {
        Some(spec) => {
            job_spec(&mut errors, &path, spec);
            if let Some(given) = &spec.selector {
                selector(&mut errors, &path, Some(given), Some(&spec.template), "job");
            }
        }
        None => errors.required(path.child("template"), ""),
    }
    errors
}

/// What is wrong with a change of a Job.
pub fn job_update(new: &Job, old: &Job) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return errors;
    };
    // An indexed job may grow and shrink together with its parallelism.
    let elastic = new.completion_mode.as_deref() == Some("Indexed") && new.completions == new.parallelism;
    if new.completions != old.completions && !elastic {
        errors.invalid(path.child("completions"), new.completions, IMMUTABLE);
    }
    if new.selector != old.selector {
        errors.invalid(path.child("selector"), &new.selector, IMMUTABLE);
    }
    // While it is suspended, where its pods will run may still change.
    let mut unchanged = new.template.clone();
    if old.suspend == Some(true)
        && let (Some(new), Some(old)) = (&mut unchanged.spec, &old.template.spec)
    {
        new.node_selector.clone_from(&old.node_selector);
        new.affinity.clone_from(&old.affinity);
        new.tolerations.clone_from(&old.tolerations);
        new.scheduling_gates.clone_from(&old.scheduling_gates);
    }
    if unchanged != old.template {
        errors.invalid(path.child("template"), &new.template, IMMUTABLE);
    }
    if new.completion_mode != old.completion_mode {
        errors.invalid(path.child("completionMode"), &new.completion_mode, IMMUTABLE);
    }
    errors
}

fn job_spec(errors: &mut FieldErrors, path: &FieldPath, spec: &JobSpec) {
    not_negative(errors, path.child("parallelism"), spec.parallelism);
    not_negative(errors, path.child("completions"), spec.completions);
    not_negative(errors, path.child("activeDeadlineSeconds"), spec.active_deadline_seconds);
    not_negative(errors, path.child("backoffLimit"), spec.backoff_limit);
    not_negative(errors, path.child("backoffLimitPerIndex"), spec.backoff_limit_per_index);
    not_negative(errors, path.child("ttlSecondsAfterFinished"), spec.ttl_seconds_after_finished);
    if let Some(mode) = spec.completion_mode.as_deref() {
        let supported = ["Indexed", "NonIndexed"];
        one_of(errors, path.child("completionMode"), Some(mode), &supported);
        if mode == "Indexed" && spec.completions.is_none() {
            errors.required(path.child("completions"), "when completion mode is Indexed");
        }
    }
    template(errors, path, &spec.template, &["Never", "OnFailure"]);
}

/// What is wrong with a CronJob. Its name leaves room for what is appended to those of its jobs.
pub fn cron_job(cron_job: &CronJob) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, spec) = (FieldPath::new("spec"), &cron_job.spec);
    if let Some(name) = cron_job.metadata.name.as_deref().filter(|n| n.len() > 52) {
        let path = FieldPath::new("metadata").child("name");
        errors.invalid(path, name, "must be no more than 52 characters");
    }
    if let Some(schedule) = required(&mut errors, path.child("schedule"), Some(&spec.schedule))
        && let Some(wrong) = schedule_form(schedule)
    {
        errors.invalid(path.child("schedule"), schedule, wrong);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    let policy = spec.concurrency_policy.as_deref();
    one_of(&mut errors, path.child("concurrencyPolicy"), policy, &policies);
    not_negative(&mut errors, path.child("startingDeadlineSeconds"), spec.starting_deadline_seconds);
    let (successes, failures) = (spec.successful_jobs_history_limit, spec.failed_jobs_history_limit);
    not_negative(&mut errors, path.child("successfulJobsHistoryLimit"), successes);
    not_negative(&mut errors, path.child("failedJobsHistoryLimit"), failures);
    let path = path.child("jobTemplate").child("spec");
    match &spec.job_template.spec {
        Some(spec) => job_spec(&mut errors, &path, spec),
        None => errors.required(path.child("template"), ""),
    }
    errors
}

/// What is plainly wrong with the form of a schedule; what its numbers mean is the controller's matter.
fn schedule_form(schedule: &str) -> Option<String> {
    if schedule.contains("TZ=") {
        return Some("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    if schedule.starts_with('@') {
        let known = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
        let known = known.contains(&schedule) || schedule.starts_with("@every ");
        return (!known).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<_> = schedule.split_whitespace().collect();
    let found = fields.len();
    (found != 5).then(|| format!("expected exactly 5 fields, found {found}: [{}]", fields.join(" ")))
}

fn selector(
    errors: &mut FieldErrors,
    path: &FieldPath,
    selector: Option<&LabelSelector>,
    template: Option<&PodTemplateSpec>,
    kind: &str,
) {
    let path_of_selector = path.child("selector");
    let Some(selector) = selector else {
        return errors.required(path_of_selector, "");
    };
    let before = errors.0.len();
    label_selector::check(errors, &path_of_selector, selector);
    if errors.0.len() > before {
        return;
    }
    match Selector::from_label_selector(selector) {
        Err(error) => errors.invalid(path_of_selector, selector, error.to_string()),
        Ok(parsed) if parsed.is_everything() => {
            let detail = format!("empty selector is invalid for {kind}");
            errors.invalid(path_of_selector, selector, detail);
        }
        Ok(parsed) => {
            let labels = template.and_then(|t| t.metadata.as_ref()?.labels.clone()).unwrap_or_default();
            if !parsed.matches(&labels) {
                let path = path.child("template").child("metadata").child("labels");
                errors.invalid(path, labels, "`selector` does not match template `labels`");
            }
        }
    }
}

fn selector_update(new: &LabelSelector, old: &LabelSelector) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new != old {
        errors.invalid(FieldPath::new("spec").child("selector"), new, IMMUTABLE);
    }
    errors
}

fn template(errors: &mut FieldErrors, path: &FieldPath, template: &PodTemplateSpec, policies: &[&str]) {
    let path = path.child("template");
    if let Some(metadata) = &template.metadata {
        if let Some(labels) = &metadata.labels {
            errors.extend(meta::labels(labels, &path.child("metadata").child("labels")));
        }
        if let Some(annotations) = &metadata.annotations {
            errors.extend(meta::annotations(annotations, &path.child("metadata").child("annotations")));
        }
    }
    let path = path.child("spec");
    let Some(spec) = &template.spec else {
        return errors.required(path.child("containers"), "");
    };
    pod::spec(errors, &path, spec);
    if let Some(policy) = spec.restart_policy.as_deref().filter(|p| !policies.contains(p)) {
        errors.not_supported(path.child("restartPolicy"), policy, policies);
    }
    if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        errors
            .forbidden(path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
    if policies == ["Always"] && spec.active_deadline_seconds.is_some() {
        let detail = "activeDeadlineSeconds is not supported in a template of pods that are restarted";
        errors.forbidden(path.child("activeDeadlineSeconds"), detail);
    }
}

/// The number that a count or a share stands for; 1 for a text that is no share.
pub(super) fn count_or_percent(errors: &mut FieldErrors, path: &FieldPath, value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(n) => {
            not_negative(errors, path.clone(), Some(*n));
            (*n).into()
        }
        IntOrString::String(s) => match s.strip_suffix('%').and_then(|p| p.parse::<u16>().ok()) {
            Some(percent) => percent.into(),
            None => {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
                              or '93%', regex used for validation is '[0-9]+%')";
                errors.invalid(path.clone(), s, detail);
                1
            }
        },
    }
}

fn rolling_update(
    errors: &mut FieldErrors,
    path: &FieldPath,
    max_unavailable: &Option<IntOrString>,
    max_surge: &Option<IntOrString>,
) {
    let mut share = |field: &str, value: &Option<IntOrString>| match value {
        None => 0,
        Some(value) => count_or_percent(errors, &path.child(field), value),
    };
    let (unavailable, surge) = (share("maxUnavailable", max_unavailable), share("maxSurge", max_surge));
    if unavailable == 0 && surge == 0 {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.invalid(path.child("maxUnavailable"), max_unavailable, detail);
    }
    if matches!(max_unavailable, Some(IntOrString::String(_))) && unavailable > 100 {
        errors.invalid(path.child("maxUnavailable"), max_unavailable, "must not be greater than 100%");
    }
}

#[cfg(test)]
mod tests;
