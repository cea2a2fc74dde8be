//! DefaultTolerationSeconds: pods stay for five minutes on a node that is not ready or cannot be reached
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#defaulttolerationseconds>).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};

use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const EFFECT: &str = "NoExecute";

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.verb() == Verb::Create && request.is("", "Pod")
    }

    async fn mutate(&self, request: &mut Request<'_>, _: &mut Notes) -> Result<bool, ApiError> {
        let pod = request.object_mut().and_then(|o| o.downcast_mut::<Pod>());
        Ok(pod.and_then(|p| p.spec.as_mut()).is_some_and(add))
    }
}

/// Adds what the pod says nothing of, and says whether that was something.
fn add(spec: &mut PodSpec) -> bool {
    let mut added = false;
    for taint in TAINTS {
        let says = |t: &Toleration| {
            let empty = |field: &Option<String>| field.as_deref().unwrap_or_default().is_empty();
            (empty(&t.key) || t.key.as_deref() == Some(taint))
                && (empty(&t.effect) || t.effect.as_deref() == Some(EFFECT))
        };
        if !spec.tolerations.iter().flatten().any(says) {
            spec.tolerations.get_or_insert_default().push(Toleration {
                key: Some(taint.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(EFFECT.to_owned()),
                toleration_seconds: Some(SECONDS),
                value: None,
            });
            added = true;
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_says_stays() {
        let toleration = |key: &str, effect: &str| Toleration {
            key: Some(key.to_owned()).filter(|k| !k.is_empty()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()).filter(|e| !e.is_empty()),
            ..Toleration::default()
        };
        let cases: [(Vec<Toleration>, &[&str]); 6] = [
            (vec![], &TAINTS),
            (vec![toleration("", "")], &[]),
            (vec![toleration("", EFFECT)], &[]),
            (vec![toleration(TAINTS[0], "")], &TAINTS[1..]),
            (vec![toleration(TAINTS[1], EFFECT)], &TAINTS[..1]),
            (vec![toleration("mine", EFFECT), toleration(TAINTS[0], "NoSchedule")], &TAINTS),
        ];
        for (given, expected) in cases {
            let before = given.len();
            let mut spec = PodSpec { tolerations: Some(given), ..PodSpec::default() };
            assert_eq!(add(&mut spec), !expected.is_empty());
            let added: Vec<_> = spec.tolerations.iter().flatten().skip(before).collect();
            assert_eq!(added.iter().map(|t| t.key.as_deref().unwrap()).collect::<Vec<_>>(), expected);
            assert!(added.iter().all(|t| t.toleration_seconds == Some(SECONDS)));
        }
    }
}
