//! Priority: the name of a class becomes the number that it stands for
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::known::Known;
use super::{Admission, Notes, Request, Verb};
use crate::client::Client;
use crate::error::ApiError;

/// What pods without a class and a cluster without a default have.
const PREEMPTS: &str = "PreemptLowerPriority";

pub(super) struct Priority(pub(super) Arc<Known>);

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        match request.verb() {
            Verb::Create => request.is("", "Pod") || request.is("scheduling.k8s.io", "PriorityClass"),
            Verb::Update => request.is("scheduling.k8s.io", "PriorityClass"),
            Verb::Delete | Verb::Connect => false,
        }
    }

    async fn mutate(&self, request: &mut Request<'_>, _: &mut Notes) -> Result<bool, ApiError> {
        let classes = self.0.priorities.all();
        let none = BTreeMap::new();
        let classes = classes.as_deref().unwrap_or(&none);
        let Some(pod) = request.object_mut().and_then(|o| o.downcast_mut::<Pod>()) else { return Ok(false) };
        let Some(spec) = &mut pod.spec else { return Ok(false) };
        match assign(spec, classes) {
            Ok(()) => Ok(true),
            Err(why) => Err(request.forbidden(why)),
        }
    }

    async fn validate(&self, request: &Request<'_>, _: &mut Notes) -> Result<(), ApiError> {
        let Some(class) = request.object().and_then(|o| o.downcast_ref::<PriorityClass>()) else {
            return Ok(());
        };
        let own = class.metadata.name.as_deref();
        let classes = self.0.priorities.all();
        let others = classes.iter().flat_map(|c| c.values()).filter(|c| c.metadata.name.as_deref() != own);
        match others.into_iter().find(|c| c.global_default == Some(true)) {
            Some(other) if class.global_default == Some(true) => Err(request.forbidden(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.metadata.name.as_deref().unwrap_or_default()
            ))),
            _ => Ok(()),
        }
    }
}

/// Gives a pod its priority.
fn assign(spec: &mut PodSpec, classes: &BTreeMap<String, Arc<PriorityClass>>) -> Result<(), String> {
    let named = spec.priority_class_name.as_deref().filter(|n| !n.is_empty());
    let (priority, policy) = match named {
        Some(name) => {
            let class =
                classes.get(name).ok_or_else(|| format!("no PriorityClass with name {name} was found"))?;
            (class.value.unwrap_or(0), class.preemption_policy.clone())
        }
        None => match default(classes) {
            Some((name, class)) => {
                spec.priority_class_name = Some(name.to_owned());
                (class.value.unwrap_or(0), class.preemption_policy.clone())
            }
            None => (0, None),
        },
    };
    // Who copies a pod copies this too; but nobody makes up a number.
    if let Some(given) = spec.priority.filter(|p| *p != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        ));
    }
    let policy = policy.unwrap_or_else(|| PREEMPTS.to_owned());
    if let Some(given) = spec.preemption_policy.as_deref().filter(|p| *p != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.priority = Some(priority);
    spec.preemption_policy = Some(policy);
    Ok(())
}

/// The class of pods that name none: of several, the lowest.
fn default(classes: &BTreeMap<String, Arc<PriorityClass>>) -> Option<(&str, &PriorityClass)> {
    let marked = classes.iter().filter(|(_, c)| c.global_default == Some(true));
    marked.min_by_key(|(_, c)| c.value.unwrap_or(0)).map(|(name, class)| (name.as_str(), &**class))
}

/// Makes the classes that every cluster has.
pub(in crate::server) async fn bootstrap(client: &Client) -> Result<(), ApiError> {
    let own = [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ];
    for (name, value, description) in own {
        let class = PriorityClass {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            value: Some(value),
            description: Some(description.to_owned()),
            ..PriorityClass::default()
        };
        match client.all::<PriorityClass>().create(&class).await {
            Ok(_) => {}
            Err(e) if e.is_already_exists() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(value: i32, default: bool, policy: &str) -> Arc<PriorityClass> {
        Arc::new(PriorityClass {
            value: Some(value),
            global_default: Some(default),
            preemption_policy: Some(policy.to_owned()),
            ..PriorityClass::default()
        })
    }

    #[test]
    fn a_class_is_a_number() {
        let named = |name: &str| PodSpec { priority_class_name: Some(name.to_owned()), ..PodSpec::default() };
        let numbered = |n: i32| PodSpec { priority: Some(n), ..named("high") };
        let with_default: BTreeMap<_, _> = [
            ("high".to_owned(), class(1000, false, "Never")),
            ("usual".to_owned(), class(10, true, PREEMPTS)),
            ("also-usual".to_owned(), class(20, true, PREEMPTS)),
        ]
        .into();
        let without: BTreeMap<_, _> = [("high".to_owned(), class(1000, false, "Never"))].into();
        let wrong = "the integer value of priority (7) must not be provided in pod spec; priority admission \
                     controller computed 1000 from the given PriorityClass name";
        let cases = [
            (named("high"), &with_default, Ok(("high", 1000, "Never"))),
            (PodSpec::default(), &with_default, Ok(("usual", 10, PREEMPTS))),
            (PodSpec::default(), &without, Ok(("", 0, PREEMPTS))),
            (named("low"), &with_default, Err("no PriorityClass with name low was found")),
            (numbered(1000), &with_default, Ok(("high", 1000, "Never"))),
            (numbered(7), &with_default, Err(wrong)),
        ];
        for (mut spec, classes, expected) in cases {
            let got = assign(&mut spec, classes);
            let got = got.as_ref().map(|()| {
                let name = spec.priority_class_name.as_deref().unwrap_or_default();
                (name, spec.priority.unwrap(), spec.preemption_policy.as_deref().unwrap())
            });
            assert_eq!(got.map_err(String::as_str), expected);
        }
    }
}
