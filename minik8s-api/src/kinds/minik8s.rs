//! Group `minik8s.io`: what we add to Kubernetes.

use crate::kind::Kind;
use crate::minik8s_io::dns;

pub(super) fn kinds() -> Vec<Kind> {
    vec![dns::kind()]
}
