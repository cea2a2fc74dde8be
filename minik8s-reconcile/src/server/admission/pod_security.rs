//! PodSecurity: what pods of a namespace may do to the machine that they run on, by the namespace's labels
//! (<https://kubernetes.io/docs/concepts/security/pod-security-admission/>).

mod baseline;
mod level;
mod restricted;
mod words;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::Object;

use self::level::{Policies, Policy};
use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;

pub(super) struct PodSecurity;

/// The subresources of pods through which nothing is changed that matters here.
const HARMLESS: [&str; 8] =
    ["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"];

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        let kind = request.kind();
        let written = matches!(request.verb(), Verb::Create | Verb::Update);
        written
            && match (kind.group.as_ref(), kind.kind.as_ref()) {
                ("", "Pod") => !HARMLESS.contains(&request.subresource()),
                ("", "Namespace" | "PodTemplate" | "ReplicationController")
                | ("apps", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
                | ("batch", "Job" | "CronJob") => request.subresource().is_empty(),
                _ => false,
            }
    }

    async fn validate(&self, request: &Request<'_>, notes: &mut Notes) -> Result<(), ApiError> {
        let Some(object) = request.object() else { return Ok(()) };
        if let Some(namespace) = object.downcast_ref::<Namespace>() {
            return labels(request, namespace);
        }
        let Some(namespace) = request.namespace_object().await? else { return Ok(()) };
        let (policies, errors) = Policies::of(namespace.metadata.labels.as_ref());
        if policies.are_privileged() {
            return Ok(());
        }
        if !errors.is_empty() {
            let words: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
            notes.annotate("pod-security.kubernetes.io/error", words.join(", "));
        }
        if let Some(pod) = object.downcast_ref::<Pod>() {
            // What was let in before the rules were made stays, as long as nothing is changed that matters.
            if let Some(old) = request.old().and_then(|o| o.downcast_ref::<Pod>())
                && !matters(old, pod)
            {
                return Ok(());
            }
            let Some(spec) = &pod.spec else { return Ok(()) };
            return decide(request, &policies, true, &pod.metadata, spec, notes);
        }
        match template(object) {
            Some((metadata, spec)) => decide(request, &policies, false, metadata, spec, notes),
            None => Ok(()),
        }
    }
}

/// Judges a pod, or one that is only described.
fn decide(
    request: &Request<'_>,
    policies: &Policies,
    is_pod: bool,
    metadata: &ObjectMeta,
    spec: &PodSpec,
    notes: &mut Notes,
) -> Result<(), ApiError> {
    if is_pod {
        let policy = policies.enforce;
        notes.annotate("pod-security.kubernetes.io/enforce-policy", policy.to_string());
        if let Some(words) = violations(policy, metadata, spec) {
            return Err(request.forbidden(format!("violates PodSecurity \"{policy}\": {words}")));
        }
    }
    let would = |policy: Policy| {
        let words = violations(policy, metadata, spec)?;
        Some(format!("would violate PodSecurity \"{policy}\": {words}"))
    };
    if let Some(words) = would(policies.audit) {
        notes.annotate("pod-security.kubernetes.io/audit-violations", words);
    }
    if let Some(words) = would(policies.warn) {
        notes.warn(words);
    }
    Ok(())
}

/// What of a pod the policy does not allow, in words.
fn violations(policy: Policy, metadata: &ObjectMeta, spec: &PodSpec) -> Option<String> {
    let found = policy.check(metadata, spec);
    let words: Vec<String> = found
        .into_iter()
        .map(|v| if v.detail.is_empty() { v.reason } else { format!("{} ({})", v.reason, v.detail) })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Labels that are wrong are refused where they are new.
fn labels(request: &Request<'_>, namespace: &Namespace) -> Result<(), ApiError> {
    let (_, errors) = Policies::of(namespace.metadata.labels.as_ref());
    let old = request.old().and_then(|o| o.downcast_ref::<Namespace>());
    let changed = old.is_none_or(|old| {
        level::LABELS.iter().any(|label| {
            let of = |n: &Namespace| n.metadata.labels.as_ref().and_then(|l| l.get(*label)).cloned();
            of(old) != of(namespace)
        })
    });
    if errors.is_empty() || !changed {
        return Ok(());
    }
    Err(ApiError::invalid(request.kind(), request.name(), &errors))
}

/// Whether a change of a pod is about something that the rules are about.
fn matters(old: &Pod, new: &Pod) -> bool {
    // All that can be changed of a running pod besides its images.
    const IGNORED: [&str; 3] = ["image", "resources", "resizePolicy"];
    let seen = |pod: &Pod| {
        let mut spec = serde_json::to_value(&pod.spec).unwrap_or_default();
        for field in ["activeDeadlineSeconds", "nodeName", "schedulingGates", "tolerations", "resources"] {
            spec.as_object_mut().map(|spec| spec.remove(field));
        }
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            let containers = spec.get_mut(list).and_then(serde_json::Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                IGNORED.iter().for_each(|field| drop(container.as_object_mut().map(|c| c.remove(*field))));
            }
        }
        let annotations = pod.metadata.annotations.iter().flatten();
        let profiles: Vec<_> = annotations
            .filter(|(key, _)| words::is_about_profiles(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        (spec, profiles)
    };
    seen(old) != seen(new)
}

/// The pods that an object is about to make.
fn template(object: &dyn Object) -> Option<(&ObjectMeta, &PodSpec)> {
    fn parts(template: &PodTemplateSpec) -> Option<(&ObjectMeta, &PodSpec)> {
        static NONE: std::sync::LazyLock<ObjectMeta> = std::sync::LazyLock::new(ObjectMeta::default);
        Some((template.metadata.as_ref().unwrap_or(&NONE), template.spec.as_ref()?))
    }
    if let Some(of) = object.downcast_ref::<Deployment>() {
        return parts(&of.spec.template);
    }
    if let Some(of) = object.downcast_ref::<ReplicaSet>() {
        return parts(of.spec.template.as_ref()?);
    }
    if let Some(of) = object.downcast_ref::<StatefulSet>() {
        return parts(&of.spec.template);
    }
    if let Some(of) = object.downcast_ref::<DaemonSet>() {
        return parts(&of.spec.template);
    }
    if let Some(of) = object.downcast_ref::<Job>() {
        return parts(&of.spec.as_ref()?.template);
    }
    if let Some(of) = object.downcast_ref::<CronJob>() {
        return parts(&of.spec.job_template.spec.as_ref()?.template);
    }
    if let Some(of) = object.downcast_ref::<ReplicationController>() {
        return parts(of.spec.as_ref()?.template.as_ref()?);
    }
    parts(object.downcast_ref::<PodTemplate>()?.template.as_ref()?)
}

#[cfg(test)]
mod tests;
