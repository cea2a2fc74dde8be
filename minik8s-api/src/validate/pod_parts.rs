//! What may be changed of a pod that exists, through subresources of its own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::default::pod::qos_class;
use crate::field::{FieldErrors, FieldPath};

/// The annotation of pods that show what a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

/// What is wrong with a change of a pod's ephemeral containers: there may be more of them, and no fewer or others
/// (<https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/>).
pub fn ephemeral_containers(new: &Pod, old: &Pod) -> FieldErrors {
    let mut errors = super::pod::validate(new);
    let path = FieldPath::new("spec").child("ephemeralContainers");
    if is_static(old) {
        errors.forbidden(path.clone(), "static pods do not support ephemeral containers");
    }
    let of = |pod: &Pod| {
        pod.spec.iter().flat_map(|s| s.ephemeral_containers.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    let now = of(new);
    for before in of(old) {
        let name = &before.name;
        match now.iter().find(|c| c.name == *name) {
            None => errors.forbidden(
                path.clone(),
                format!("existing ephemeral containers {name:?} may not be removed"),
            ),
            Some(after) if *after != before => errors.forbidden(
                path.clone(),
                format!("existing ephemeral containers {name:?} may not be changed"),
            ),
            Some(_) => {}
        }
    }
    errors
}

/// `old`, with what a resize may change as it is in `new`: the resources of containers, and of the pod as a whole.
pub fn resized(old: &PodSpec, new: &PodSpec) -> PodSpec {
    fn take(to: &mut [Container], from: &[Container]) {
        for container in to {
            if let Some(wanted) = from.iter().find(|c| c.name == container.name) {
                container.resources.clone_from(&wanted.resources);
                container.resize_policy.clone_from(&wanted.resize_policy);
            }
        }
    }
    let mut spec = old.clone();
    take(&mut spec.containers, &new.containers);
    take(
        spec.init_containers.as_deref_mut().unwrap_or_default(),
        new.init_containers.as_deref().unwrap_or_default(),
    );
    spec.resources.clone_from(&new.resources);
    spec
}

/// What is wrong with a change of a pod's resources
/// (<https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/>).
pub fn resize(new: &Pod, old: &Pod) -> FieldErrors {
    let mut errors = super::pod::validate(new);
    let path = FieldPath::new("spec");
    let (Some(new), Some(before)) = (&new.spec, &old.spec) else { return errors };
    if is_static(old) {
        let path = FieldPath::new("metadata").child("annotations").key(MIRROR);
        errors.forbidden(path, "static pods cannot be resized");
    }
    if before.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(path.clone(), "windows pods cannot be resized");
    }
    if qos_class(new) != qos_class(before) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(path.clone(), qos_class(new), detail);
    }
    for (field, now, then) in [
        ("containers", Some(&new.containers), Some(&before.containers)),
        ("initContainers", new.init_containers.as_ref(), before.init_containers.as_ref()),
    ] {
        for (i, (now, then)) in now.into_iter().flatten().zip(then.into_iter().flatten()).enumerate() {
            let path = path.child(field).index(i);
            container(&mut errors, &path, now, then, field == "initContainers");
        }
    }
    amounts(&mut errors, &path.child("resources"), new.resources.as_ref(), before.resources.as_ref());
    errors
}

fn container(errors: &mut FieldErrors, path: &FieldPath, new: &Container, old: &Container, init: bool) {
    if new.resize_policy != old.resize_policy {
        errors.forbidden(path.child("resizePolicy"), "may not be changed by a resize");
    }
    let stays = old.restart_policy.as_deref() == Some("Always");
    if init && !stays && new.resources != old.resources {
        errors.forbidden(path.child("resources"), "resources of non-sidecar init containers are immutable");
        return;
    }
    amounts(errors, &path.child("resources"), new.resources.as_ref(), old.resources.as_ref());
}

fn amounts(
    errors: &mut FieldErrors,
    path: &FieldPath,
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
) {
    type List<'a> = Option<&'a BTreeMap<String, ApiQuantity>>;
    let lists: [(&str, List<'_>, List<'_>); 2] = [
        ("requests", new.and_then(|r| r.requests.as_ref()), old.and_then(|r| r.requests.as_ref())),
        ("limits", new.and_then(|r| r.limits.as_ref()), old.and_then(|r| r.limits.as_ref())),
    ];
    let claims = |r: Option<&ResourceRequirements>| r.and_then(|r| r.claims.clone()).unwrap_or_default();
    let mut mutable = claims(new) == claims(old);
    for (field, new, old) in lists {
        let path = path.child(field);
        let get = |list: List<'_>, name: &str| list.and_then(|l| l.get(name)).cloned();
        let names = new.into_iter().flatten().chain(old.into_iter().flatten()).map(|(name, _)| name);
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            match name.as_str() {
                "cpu" | "memory" => {
                    if get(new, name).is_none() {
                        let detail = format!("resource {field} cannot be removed");
                        errors.forbidden(path.key(name), detail);
                    }
                }
                _ => mutable &= get(new, name) == get(old, name),
            }
        }
    }
    if !mutable {
        errors.forbidden(path.clone(), "only cpu and memory resources are mutable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let plain = json!({ "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "containers": [{ "name": "a", "image": "a", "imagePullPolicy": "Always",
                "terminationMessagePolicy": "File" }] });
        let spec = crate::patch::merge::apply(&plain, &spec);
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn sized(resources: Value) -> Pod {
        pod(json!({ "containers": [{ "name": "a", "image": "a", "imagePullPolicy": "Always",
            "terminationMessagePolicy": "File", "resources": resources }] }))
    }

    #[test]
    fn ephemeral_containers_are_added_and_stay() {
        let debug = |names: &[&str], image: &str| {
            let list: Vec<_> = names
                .iter()
                .map(|n| {
                    json!({ "name": n, "image": image, "imagePullPolicy": "Always",
                    "terminationMessagePolicy": "File" })
                })
                .collect();
            pod(json!({ "ephemeralContainers": list }))
        };
        let cases = [
            (debug(&["x"], "i"), debug(&[], "i"), ""),
            (debug(&["x", "y"], "i"), debug(&["x"], "i"), ""),
            (
                debug(&["y"], "i"),
                debug(&["x"], "i"),
                "existing ephemeral containers \"x\" may not be removed",
            ),
            (
                debug(&["x"], "j"),
                debug(&["x"], "i"),
                "existing ephemeral containers \"x\" may not be changed",
            ),
        ];
        for (new, old, expected) in cases {
            let errors = ephemeral_containers(&new, &old).to_string();
            assert!(
                if expected.is_empty() { errors == "[]" } else { errors.ends_with(expected) },
                "{errors}"
            );
        }
    }

    #[test]
    fn only_cpu_and_memory_are_resized_and_the_class_stays() {
        let asks = |cpu: &str| json!({ "requests": { "cpu": cpu } });
        let cases = [
            (asks("2"), asks("1"), ""),
            (json!({ "requests": { "cpu": "1", "memory": "1Gi" } }), asks("1"), ""),
            (json!({}), asks("1"), "requests[cpu]: Forbidden: resource requests cannot be removed"),
            (
                json!({ "requests": { "cpu": "500m" }, "limits": { "cpu": "1", "memory": "1Gi" } }),
                json!({ "requests": { "cpu": "500m" }, "limits": { "cpu": "1" } }),
                "",
            ),
            (
                json!({ "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "cpu": "1", "memory": "1Gi" } }),
                asks("1"),
                "Pod QOS Class may not change as a result of resizing",
            ),
            (
                json!({ "requests": { "cpu": "1", "ephemeral-storage": "1Gi" } }),
                asks("1"),
                "only cpu and memory resources are mutable",
            ),
        ];
        for (new, old, expected) in cases {
            let errors = resize(&sized(new), &sized(old)).to_string();
            assert!(if expected.is_empty() { errors == "[]" } else { errors.contains(expected) }, "{errors}");
        }
        let (old, mut new) = (sized(asks("1")).spec.unwrap(), sized(asks("2")).spec.unwrap());
        new.containers[0].image = Some("other".to_owned());
        let spec = resized(&old, &new);
        assert_eq!(spec.containers[0].image.as_deref(), Some("a"));
        assert_eq!(spec.containers[0].resources, new.containers[0].resources);
    }
}
