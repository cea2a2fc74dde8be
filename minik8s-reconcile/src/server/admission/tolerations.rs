//! DefaultTolerationSeconds: pods stay for some time on a node that is not ready or cannot be reached
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#defaulttolerationseconds>).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};

use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const EFFECT: &str = "NoExecute";

/// How long pods that do not say so themselves stay on a node that is down, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TolerationSeconds {
    /// On a node that says that it is not ready (300).
    pub not_ready: u32,
    /// On a node that does not answer (300).
    pub unreachable: u32,
}

impl Default for TolerationSeconds {
    fn default() -> Self {
        Self { not_ready: 300, unreachable: 300 }
    }
}

pub(super) struct DefaultTolerationSeconds(pub(super) TolerationSeconds);

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
        Ok(pod.and_then(|p| p.spec.as_mut()).is_some_and(|spec| add(spec, self.0)))
    }
}

/// Adds what the pod says nothing of, and says whether that was something.
fn add(spec: &mut PodSpec, stay: TolerationSeconds) -> bool {
    let mut added = false;
    for (taint, seconds) in TAINTS.into_iter().zip([stay.not_ready, stay.unreachable]) {
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
                toleration_seconds: Some(seconds.into()),
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
            let stay = TolerationSeconds { not_ready: 30, unreachable: 30 };
            assert_eq!(add(&mut spec, stay), !expected.is_empty());
            let added: Vec<_> = spec.tolerations.iter().flatten().skip(before).collect();
            assert_eq!(added.iter().map(|t| t.key.as_deref().unwrap()).collect::<Vec<_>>(), expected);
            assert!(added.iter().all(|t| t.toleration_seconds == Some(30)));
        }
    }
}
