//! A rule, compiled.

use std::sync::Arc;

use cel::Program;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use serde_json::Value;

use super::{RuleError, check, cost, environment};
use crate::crd::json_path::JsonPath;
use crate::crd::schema::Schema;
use crate::field::{FieldErrors, FieldPath};

/// A compiled rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) text: String,
    pub(super) program: Arc<Program>,
    pub(super) cost: cost::Shape,
    /// Whether it is about changes.
    pub(super) transition: bool,
    /// Whether `oldSelf` is an optional value, and the rule is run without one too.
    pub(super) optional_old: bool,
    pub(super) message: Option<String>,
    pub(super) message_expression: Option<Arc<Program>>,
    reason: Reason,
    /// The field that is complained about, below the value.
    field: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Invalid,
    Forbidden,
    Required,
    Duplicate,
}

impl Rule {
    /// Compiles a rule about values of `schema`.
    ///
    /// # Errors
    /// It is no CEL, it speaks of fields, variables or functions that do not exist, or its path leads nowhere.
    pub(in crate::crd) fn compile(rule: &ValidationRule, schema: &Schema) -> Result<Self, RuleError> {
        let optional_old = rule.optional_old_self.unwrap_or(false);
        let program = program("rule", &rule.rule, schema, optional_old)?;
        let transition = program.references().has_variable("oldSelf");
        if optional_old && !transition {
            let detail = "may not be set to true if oldSelf is not used in rule".to_owned();
            return Err(RuleError { field: "optionalOldSelf", value: true.into(), detail });
        }
        let message = rule.message.as_deref().map(str::trim).filter(|m| !m.is_empty());
        if message.is_none() && rule.message.is_some() {
            let detail = "message must be non-empty if specified".to_owned();
            return Err(RuleError { field: "message", value: rule.message.clone().into(), detail });
        }
        let expression = rule.message_expression.as_deref().filter(|e| !e.is_empty());
        let message_expression = match expression {
            Some(text) => Some(self::program("messageExpression", text, schema, optional_old)?),
            None => None,
        };
        let reason = match rule.reason.as_deref() {
            None | Some("" | "FieldValueInvalid") => Reason::Invalid,
            Some("FieldValueForbidden") => Reason::Forbidden,
            Some("FieldValueRequired") => Reason::Required,
            Some("FieldValueDuplicate") => Reason::Duplicate,
            Some(other) => {
                let detail = "supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \
                              \"FieldValueInvalid\", \"FieldValueRequired\"";
                return Err(RuleError { field: "reason", value: other.into(), detail: detail.to_owned() });
            }
        };
        Ok(Self {
            text: rule.rule.trim().to_owned(),
            cost: cost::Shape::of(program.expression()),
            transition,
            optional_old,
            message: message.map(ToOwned::to_owned),
            message_expression: message_expression.map(Arc::new),
            reason,
            field: field(rule.field_path.as_deref().unwrap_or_default(), schema)?,
            program: Arc::new(program),
        })
    }

    /// Notes that the rule does not hold for the value at `path`, which is `shown`.
    pub(super) fn complain(
        &self,
        shown: &Value,
        path: &FieldPath,
        message: String,
        errors: &mut FieldErrors,
    ) {
        let path = self.field.iter().fold(path.clone(), |path, name| path.child(name));
        match self.reason {
            Reason::Invalid => errors.invalid(path, shown, message),
            Reason::Forbidden => errors.forbidden(path, message),
            Reason::Required => errors.required(path, message),
            Reason::Duplicate => errors.duplicate(path, shown),
        }
    }
}

fn program(
    field: &'static str,
    text: &str,
    schema: &Schema,
    optional_old: bool,
) -> Result<Program, RuleError> {
    let wrong = |detail: String| RuleError { field, value: Value::from(text), detail };
    if text.trim().is_empty() {
        return Err(wrong(format!("{field} is not specified")));
    }
    let program =
        environment::shared().compile(text).map_err(|e| wrong(format!("compilation failed: {e}")))?;
    check::program(&program, schema, optional_old).map_err(|e| wrong(format!("compilation failed: {e}")))?;
    Ok(program)
}

/// The names on the way to the field that a rule complains about.
fn field(path: &str, schema: &Schema) -> Result<Vec<String>, RuleError> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let wrong =
        |detail: &str| RuleError { field: "fieldPath", value: path.into(), detail: detail.to_owned() };
    let parsed: JsonPath = path.parse().map_err(|_| wrong("must be a valid path"))?;
    let names = parsed.fields().ok_or_else(|| wrong("must lead through fields only"))?;
    let end = names.iter().try_fold(schema, |schema, name| schema.property(name));
    end.ok_or_else(|| wrong("does not refer to a valid field"))?;
    Ok(names.into_iter().map(ToOwned::to_owned).collect())
}
