//! Group `minik8s.io`: what we add to Kubernetes.

use crate::kind::Kind;

pub(super) fn kinds() -> Vec<Kind> {
    vec![]
}
