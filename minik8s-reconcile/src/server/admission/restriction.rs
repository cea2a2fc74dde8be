//! NodeRestriction: nodes write what is theirs
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>).

use async_trait::async_trait;

use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;
use crate::server::node;

pub(super) struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        node::node_name(request.user()).is_some()
    }

    async fn validate(&self, request: &Request<'_>, _: &mut Notes) -> Result<(), ApiError> {
        match (request.verb(), request.object(), request.old()) {
            (Verb::Delete, _, Some(old)) => node::admit_deletion(request.scope, old),
            (Verb::Create | Verb::Update, Some(new), old) if request.kind().owns(new) => {
                node::admit(request.scope, old, new)
            }
            _ => Ok(()),
        }
    }
}
