//! What remains of rules in a program that was built without CEL: they are refused.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use serde_json::Value;

use super::RuleError;
use crate::crd::schema::Schema;
use crate::field::{FieldErrors, FieldPath};
use crate::unstructured::Unstructured;

/// A compiled rule, of which there are none.
#[derive(Clone, Debug)]
pub enum Rule {}

impl Rule {
    /// Refuses the rule.
    pub(in crate::crd) fn compile(rule: &ValidationRule, _: &Schema) -> Result<Self, RuleError> {
        let detail = "this server was built without support for rules".to_owned();
        Err(RuleError { field: "rule", value: rule.rule.clone().into(), detail })
    }
}

/// Runs no rules.
pub(in crate::crd) struct Evaluation;

impl Evaluation {
    pub(in crate::crd) fn new() -> Self {
        Self
    }

    pub(in crate::crd) fn root(
        &mut self,
        _: &Schema,
        _: &Unstructured,
        _: Option<&Unstructured>,
        _: &mut FieldErrors,
    ) {
    }

    pub(in crate::crd) fn value(
        &mut self,
        _: &Schema,
        _: &Value,
        _: Option<&Value>,
        _: &FieldPath,
        _: &mut FieldErrors,
    ) {
    }
}
