//! LimitRanger: what containers, pods and claims of a namespace have at least, at most, and if they do not say
//! (<https://kubernetes.io/docs/concepts/policy/limit-range/>).

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};

use super::amounts::{Amounts, RawAmounts};
use super::known::Known;
use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;

/// Where it is noted what has been filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger(pub(super) Arc<Known>);

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        let resized = request.verb() == Verb::Update && request.subresource() == "resize";
        let limited = match request.kind().kind.as_ref() {
            "Pod" => request.verb() == Verb::Create && request.is("", "Pod") || resized,
            "PersistentVolumeClaim" => {
                matches!(request.verb(), Verb::Create | Verb::Update)
                    && request.is("", "PersistentVolumeClaim")
            }
            _ => false,
        };
        limited && self.0.limits.any(request.namespace().unwrap_or_default())
    }

    async fn mutate(&self, request: &mut Request<'_>, _: &mut Notes) -> Result<bool, ApiError> {
        if request.verb() != Verb::Create {
            return Ok(false);
        }
        let ranges = self.0.limits.of(request.namespace().unwrap_or_default());
        let Some(pod) = request.object_mut().and_then(|o| o.downcast_mut::<Pod>()) else { return Ok(false) };
        let mut changed = false;
        for range in ranges.iter().flat_map(|r| r.values()) {
            changed |= fill_in(pod, range);
        }
        Ok(changed)
    }

    async fn validate(&self, request: &Request<'_>, _: &mut Notes) -> Result<(), ApiError> {
        let ranges = self.0.limits.of(request.namespace().unwrap_or_default());
        let Some(object) = request.object() else { return Ok(()) };
        for range in ranges.iter().flat_map(|r| r.values()) {
            let wrong = if let Some(pod) = object.downcast_ref::<Pod>() {
                check_pod(pod, range)
            } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
                check_claim(claim, range)
            } else {
                Vec::new()
            };
            match wrong.as_slice() {
                [] => {}
                [one] => return Err(request.forbidden(one)),
                many => return Err(request.forbidden(format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn items<'a>(range: &'a LimitRange, type_: &'a str) -> impl Iterator<Item = &'a LimitRangeItem> {
    let limits = range.spec.iter().flat_map(|s| &s.limits);
    limits.filter(move |item| item.type_ == type_)
}

/// Gives containers what they do not say, and says so in an annotation.
fn fill_in(pod: &mut Pod, range: &LimitRange) -> bool {
    let Some(spec) = &mut pod.spec else { return false };
    let (mut limits, mut requests) = (RawAmounts::new(), RawAmounts::new());
    for item in items(range, "Container") {
        limits.extend(item.default.clone().unwrap_or_default());
        requests.extend(item.default_request.clone().unwrap_or_default());
    }
    let mut done = Vec::new();
    let inits = spec.init_containers.iter_mut().flatten().map(|c| ("init container", c));
    let containers = spec.containers.iter_mut().map(|c| ("container", c));
    // The order in which Kubernetes lists them.
    let mut all: Vec<(&str, &mut Container)> = containers.collect();
    all.extend(inits);
    for (what, container) in all {
        let name = container.name.clone();
        let resources = container.resources.get_or_insert_default();
        for (word, given, defaults) in
            [("request", &mut resources.requests, &requests), ("limit", &mut resources.limits, &limits)]
        {
            let missing: Vec<_> = defaults
                .iter()
                .filter(|(resource, _)| !given.as_ref().is_some_and(|g| g.contains_key(*resource)))
                .collect();
            if !missing.is_empty() {
                let names: Vec<&str> = missing.iter().map(|(resource, _)| resource.as_str()).collect();
                done.push(format!("{} {word} for {what} {name}", names.join(", ")));
                let given = given.get_or_insert_default();
                given.extend(missing.into_iter().map(|(r, q)| (r.clone(), q.clone())));
            }
        }
    }
    if done.is_empty() {
        return false;
    }
    let words = format!("LimitRanger plugin set: {}", done.join("; "));
    pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), words);
    true
}

/// What stands against the pod.
fn check_pod(pod: &Pod, range: &LimitRange) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(spec) = &pod.spec else { return wrong };
    for item in range.spec.iter().flat_map(|s| &s.limits) {
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let resources = container.resources.as_ref();
                    let requests = Amounts::of(resources.and_then(|r| r.requests.as_ref()));
                    let limits = Amounts::of(resources.and_then(|r| r.limits.as_ref()));
                    check(item, &requests, &limits, &mut wrong);
                }
            }
            "Pod" => check(item, &Amounts::requests(spec), &Amounts::limits(spec), &mut wrong),
            _ => {}
        }
    }
    wrong
}

/// What stands against requests and limits.
fn check(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    let type_ = &item.type_;
    for (resource, least) in &Amounts::of(item.min.as_ref()).0 {
        let rule = format!("minimum {resource} usage per {type_} is {least}");
        match (requests.get(resource), limits.get(resource)) {
            (None, _) => wrong.push(format!("{rule}.  No request is specified")),
            (Some(request), _) if request < *least => {
                wrong.push(format!("{rule}, but request is {request}"));
            }
            (_, Some(limit)) if limit < *least => wrong.push(format!("{rule}, but limit is {limit}")),
            _ => {}
        }
    }
    for (resource, most) in &Amounts::of(item.max.as_ref()).0 {
        let rule = format!("maximum {resource} usage per {type_} is {most}");
        match (requests.get(resource), limits.get(resource)) {
            (_, None) => wrong.push(format!("{rule}.  No limit is specified")),
            (_, Some(limit)) if limit > *most => wrong.push(format!("{rule}, but limit is {limit}")),
            (Some(request), _) if request > *most => wrong.push(format!("{rule}, but request is {request}")),
            _ => {}
        }
    }
    for (resource, ratio) in &Amounts::of(item.max_limit_request_ratio.as_ref()).0 {
        let rule = format!("{resource} max limit to request ratio per {type_} is {ratio}");
        let some = |amounts: &Amounts| amounts.get(resource).filter(|a| !a.is_zero());
        match (some(requests), some(limits)) {
            (None, _) => wrong.push(format!("{rule}, but no request is specified or request is 0")),
            (_, None) => wrong.push(format!("{rule}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let given = limit.milli_value() as f64 / request.milli_value() as f64;
                if given > ratio.milli_value() as f64 / 1000.0 {
                    wrong.push(format!("{rule}, but provided ratio is {given:.6}"));
                }
            }
        }
    }
}

/// What stands against the claim.
fn check_claim(claim: &PersistentVolumeClaim, range: &LimitRange) -> Vec<String> {
    let mut wrong = Vec::new();
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let requests = Amounts::of(resources.and_then(|r| r.requests.as_ref()));
    for item in items(range, "PersistentVolumeClaim") {
        let type_ = &item.type_;
        for (resource, least) in &Amounts::of(item.min.as_ref()).0 {
            let rule = format!("minimum {resource} usage per {type_} is {least}");
            match requests.get(resource) {
                None => wrong.push(format!("{rule}.  No request is specified")),
                Some(request) if request < *least => {
                    wrong.push(format!("{rule}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
        for (resource, most) in &Amounts::of(item.max.as_ref()).0 {
            let rule = format!("maximum {resource} usage per {type_} is {most}");
            match requests.get(resource) {
                None => wrong.push(format!("{rule}.  No request is specified")),
                Some(request) if request > *most => wrong.push(format!("{rule}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn range(limits: Value) -> LimitRange {
        serde_json::from_value(json!({ "spec": { "limits": limits } })).unwrap()
    }

    fn pod(resources: &[Value]) -> Pod {
        let each = resources.iter().enumerate();
        let containers: Vec<_> =
            each.map(|(i, r)| json!({ "name": format!("c{i}"), "resources": r })).collect();
        serde_json::from_value(json!({ "spec": { "containers": containers } })).unwrap()
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let range = range(json!([{ "type": "Container",
            "default": { "cpu": "500m", "memory": "1Gi" }, "defaultRequest": { "cpu": "100m" } }]));
        let mut pod = pod(&[json!({}), json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "1" } })]);
        assert!(fill_in(&mut pod, &range));
        let spec = serde_json::to_value(&pod.spec).unwrap();
        let expected = json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "500m", "memory": "1Gi" } });
        assert_eq!(spec["containers"][0]["resources"], expected);
        let expected = json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "1", "memory": "1Gi" } });
        assert_eq!(spec["containers"][1]["resources"], expected);
        assert_eq!(
            pod.metadata.annotations.as_ref().unwrap()[ANNOTATION],
            "LimitRanger plugin set: cpu request for container c0; cpu, memory limit for container c0; memory limit \
             for container c1"
        );
        assert!(!fill_in(&mut pod, &range), "it is full");
    }

    #[test]
    fn what_is_too_little_or_too_much_is_refused() {
        let one = |type_: &str, rest: Value| {
            let mut item = json!({ "type": type_ });
            item.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            range(json!([item]))
        };
        let asks = |cpu: &str, limit: &str| json!({ "requests": { "cpu": cpu }, "limits": { "cpu": limit } });
        let cases: [(LimitRange, Vec<Value>, &[&str]); 9] = [
            (one("Container", json!({ "max": { "cpu": "2" } })), vec![asks("1", "2")], &[]),
            (
                one("Container", json!({ "max": { "cpu": "2" } })),
                vec![asks("1", "3")],
                &["maximum cpu usage per Container is 2, but limit is 3"],
            ),
            (
                one("Container", json!({ "max": { "cpu": "2" } })),
                vec![json!({})],
                &["maximum cpu usage per Container is 2.  No limit is specified"],
            ),
            (
                one("Container", json!({ "min": { "cpu": "100m" } })),
                vec![asks("50m", "1")],
                &["minimum cpu usage per Container is 100m, but request is 50m"],
            ),
            (
                one("Container", json!({ "min": { "memory": "1Mi" } })),
                vec![asks("1", "1")],
                &["minimum memory usage per Container is 1Mi.  No request is specified"],
            ),
            (
                one("Container", json!({ "maxLimitRequestRatio": { "cpu": "4" } })),
                vec![asks("100m", "500m"), asks("100m", "400m")],
                &["cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000"],
            ),
            (
                one("Pod", json!({ "max": { "cpu": "2" } })),
                vec![asks("1", "1500m"), asks("1", "1")],
                &["maximum cpu usage per Pod is 2, but limit is 2500m"],
            ),
            (one("Pod", json!({ "max": { "cpu": "2" } })), vec![asks("1", "1"), asks("1", "1")], &[]),
            (
                one("Container", json!({ "max": { "cpu": "1" }, "min": { "cpu": "1" } })),
                vec![asks("500m", "2")],
                &[
                    "minimum cpu usage per Container is 1, but request is 500m",
                    "maximum cpu usage per Container is 1, but limit is 2",
                ],
            ),
        ];
        for (range, resources, expected) in cases {
            assert_eq!(check_pod(&pod(&resources), &range), expected, "{resources:?}");
        }
    }

    #[test]
    fn claims_are_limited() {
        let range = range(json!([{ "type": "PersistentVolumeClaim",
            "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" } }]));
        for (size, expected) in [
            ("1Gi", None),
            ("2Gi", None),
            ("512Mi", Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi")),
            ("3Gi", Some("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")),
        ] {
            let claim = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
            let wrong = check_claim(&serde_json::from_value(claim).unwrap(), &range);
            assert_eq!(wrong.first().map(String::as_str), expected);
        }
    }
}
