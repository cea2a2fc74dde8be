//! Match conditions: expressions that say whether a webhook or a policy is meant at all.

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use minik8s_api::crd::{Answer, Bindings, Expression, VARIABLES};
use serde_json::Value;

use super::Request;
use super::review::{Rights, own_resource};

/// Compiled conditions, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<(String, Result<Expression, String>)>);

/// The values that expressions are about.
pub(super) struct Facts {
    pub(super) request: Value,
    pub(super) object: Value,
    pub(super) old: Value,
    pub(super) namespace: Value,
    pub(super) params: Value,
}

impl Facts {
    /// Binds the variables of a request.
    pub(super) fn bind<'v>(&'v self, request: &Request<'_>) -> Bindings<'v> {
        let mut bindings = Bindings::new();
        bindings.bind("object", &self.object);
        bindings.bind("oldObject", &self.old);
        bindings.bind("request", &self.request);
        bindings.bind("namespaceObject", &self.namespace);
        bindings.bind("params", &self.params);
        let rights = Rights::of(request);
        bindings.bind_authorizer("authorizer", rights.clone());
        bindings.bind_request("authorizer.requestResource", rights, own_resource(request));
        bindings
    }
}

impl Conditions {
    pub(super) fn compile(conditions: Option<&Vec<MatchCondition>>) -> Self {
        let compiled = |c: &MatchCondition| (c.name.clone(), Expression::compile(&c.expression, VARIABLES));
        Self(conditions.into_iter().flatten().map(compiled).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them hold. One that does not is worth more than one that cannot be evaluated.
    pub(super) fn hold(&self, bindings: &mut Bindings<'_>) -> Result<bool, String> {
        let mut error = None;
        for (name, expression) in &self.0 {
            let answer = match expression {
                Ok(expression) => bindings.evaluate(expression),
                Err(why) => Err(why.clone()),
            };
            match answer {
                Ok(Answer::Bool(true)) => {}
                Ok(Answer::Bool(false)) => return Ok(false),
                Ok(_) => drop(error.get_or_insert(format!("match condition {name:?} must evaluate to bool"))),
                Err(why) => drop(error.get_or_insert(format!("match condition {name:?}: {why}"))),
            }
        }
        match error {
            Some(error) => Err(error),
            None => Ok(true),
        }
    }
}
