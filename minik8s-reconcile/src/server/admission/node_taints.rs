//! TaintNodesByCondition: a new node takes no pods before its agent has said that it is ready
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#taintnodesbycondition>).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};

use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.verb() == Verb::Create && request.is("", "Node")
    }

    async fn mutate(&self, request: &mut Request<'_>, _: &mut Notes) -> Result<bool, ApiError> {
        let node = request.object_mut().and_then(|o| o.downcast_mut::<Node>());
        Ok(node.is_some_and(|n| add(n.spec.get_or_insert_default())))
    }
}

/// Adds the taint, and says whether it was not there.
fn add(spec: &mut NodeSpec) -> bool {
    let taints = spec.taints.get_or_insert_default();
    let new = !taints.iter().any(|t| t.key == NOT_READY && t.effect == EFFECT);
    if new {
        taints.push(Taint { key: NOT_READY.to_owned(), effect: EFFECT.to_owned(), ..Taint::default() });
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tainted_once_and_keeps_its_own() {
        let own = Taint { key: "gpu".to_owned(), effect: EFFECT.to_owned(), ..Taint::default() };
        let mut spec = NodeSpec { taints: Some(vec![own]), ..NodeSpec::default() };
        assert!(add(&mut spec));
        assert!(!add(&mut spec));
        let keys: Vec<_> = spec.taints.iter().flatten().map(|t| t.key.as_str()).collect();
        assert_eq!(keys, ["gpu", NOT_READY]);
    }
}
