//! Taints and tolerations (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>).

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The first taint that keeps a pod with these tolerations away.
pub(super) fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let mut hard = taints.iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// How many taints would rather keep such a pod away.
pub(super) fn disliked(taints: &[Taint], tolerations: &[Toleration]) -> usize {
    let soft = taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint))).count()
}

/// Whether a cordoned node will do.
pub(super) fn tolerates_cordon(tolerations: &[Toleration]) -> bool {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    tolerations.iter().any(|t| tolerates(t, &cordon))
}

/// `key: value`, as messages show a taint.
pub(super) fn words(taint: &Taint) -> String {
    format!("{}: {}", taint.key, taint.value.as_deref().unwrap_or_default())
}

/// Whether the toleration is one of that taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.as_deref().filter(|t| !t.is_empty()).map(ToOwned::to_owned);
    if set(&toleration.effect).is_some_and(|e| e != taint.effect) {
        return false;
    }
    let exists = toleration.operator.as_deref() == Some("Exists");
    match set(&toleration.key) {
        None => exists,
        Some(key) if key != taint.key => false,
        Some(_) => exists || set(&toleration.value) == set(&taint.value),
    }
}
