//! Running rules.

use cel::common::types::{CelBool, CelOptional, CelString};
use cel::common::value::Val;
use cel::{Context, Program, Value as CelValue};
use serde_json::Value;

use super::values::Header;
use super::{cost, environment, patterns, program::Rule, values};
use crate::crd::schema::{Additional, ListType, Schema};
use crate::field::{FieldErrors, FieldPath};
use crate::unstructured::Unstructured;

/// The rules of one request, and how much work they have been.
pub(in crate::crd) struct Evaluation {
    steps: u64,
}

impl Evaluation {
    /// No work yet.
    pub(in crate::crd) fn new() -> Self {
        patterns::begin();
        Self { steps: 0 }
    }

    /// Runs the rules of an object.
    pub(in crate::crd) fn root(
        &mut self,
        schema: &Schema,
        new: &Unstructured,
        old: Option<&Unstructured>,
        errors: &mut FieldErrors,
    ) {
        let path = FieldPath::root();
        if !schema.rules.is_empty() {
            let (header, old_header) = (Header::of(new), old.map(Header::of));
            let unchanged = old.is_some_and(|old| old.fields == new.fields);
            let mut size = cost::Size::default();
            new.fields.values().for_each(|v| size.add(v));
            if let Some(old) = old {
                old.fields.values().for_each(|v| size.add(v));
            }
            let bind = || header.with(new, schema);
            let bind_old = || old.zip(old_header.as_ref()).map(|(old, header)| header.with(old, schema));
            self.rules(schema, &bind, &bind_old, unchanged, "object".into(), size, &path, errors);
        }
        for (name, value) in &new.fields {
            let old = old.and_then(|old| old.fields.get(name));
            if let Some(below) = schema.properties.get(name) {
                self.value(below, value, old, &path.child(name), errors);
            }
        }
    }

    /// Runs the rules of a value and of all that is in it.
    pub(in crate::crd) fn value(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &FieldPath,
        errors: &mut FieldErrors,
    ) {
        if !schema.rules_below || self.steps > cost::LIMIT {
            return;
        }
        // A null is no value that rules were written for.
        if !schema.rules.is_empty() && !value.is_null() {
            let mut size = cost::Size::default();
            size.add(value);
            old.into_iter().for_each(|old| size.add(old));
            let bind = || values::value(value, Some(schema));
            let bind_old = || old.filter(|o| !o.is_null()).map(|old| values::value(old, Some(schema)));
            let shown = match value {
                Value::Object(_) => "object".into(),
                Value::Array(_) => "array".into(),
                scalar => scalar.clone(),
            };
            self.rules(schema, &bind, &bind_old, old == Some(value), shown, size, path, errors);
        }
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    match (schema.properties.get(name), &schema.additional) {
                        (Some(below), _) => self.value(below, value, old, &path.child(name), errors),
                        (None, Some(Additional::Schema(below))) => {
                            self.value(below, value, old, &path.key(name), errors);
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &schema.items else { return };
                let before = old.and_then(Value::as_array);
                for (i, value) in list.iter().enumerate() {
                    let old = before.and_then(|before| counterpart(schema, value, before));
                    self.value(items, value, old, &path.index(i), errors);
                }
            }
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn rules<'v>(
        &mut self,
        schema: &Schema,
        new: &dyn Fn() -> Box<dyn Val + 'v>,
        old: &dyn Fn() -> Option<Box<dyn Val + 'v>>,
        unchanged: bool,
        shown: Value,
        size: cost::Size,
        path: &FieldPath,
        errors: &mut FieldErrors,
    ) {
        // What stays as it was stays allowed, unless the rule is about staying.
        let due: Vec<_> = schema.rules.iter().filter(|rule| rule.transition || !unchanged).collect();
        if due.is_empty() {
            return;
        }
        let mut context = Context::with_env(environment::shared().clone());
        context.add_variable_as_val("self", new());
        let old = old();
        for rule in due {
            match (&old, rule.transition, rule.optional_old) {
                (None, true, false) => continue,
                (old, true, true) => {
                    let old = old.as_ref().map(|o| o.clone_as_boxed());
                    context.add_variable_as_val("oldSelf", Box::new(CelOptional::from(old)));
                }
                (Some(old), ..) => context.add_variable_as_val("oldSelf", old.clone_as_boxed()),
                (None, ..) => {}
            }
            self.steps = self.steps.saturating_add(rule.cost.steps(size));
            if self.steps > cost::LIMIT {
                let message = "validation failed due to running out of cost budget, no further validation rules \
                               will be run";
                errors.invalid(path.clone(), "", message);
                return;
            }
            if let Err(message) = run(rule, &context) {
                rule.complain(&shown, path, message, errors);
            }
        }
    }
}

/// Whether the rule holds, and what to say if it does not.
fn run(rule: &Rule, context: &Context<'_, '_>) -> Result<(), String> {
    let words = || rule.message.clone().unwrap_or_else(|| rule.text.clone());
    let held = CelValue::resolve_val(rule.program.expression(), context)
        .map(|answer| answer.as_ref().downcast_ref::<CelBool>().map(|held| *held.inner()));
    match held {
        Ok(Some(true)) => Ok(()),
        Ok(Some(false)) => {
            let made = rule.message_expression.as_ref().and_then(|program| message(program, context));
            Err(made
                .or_else(|| rule.message.clone())
                .unwrap_or_else(|| format!("failed rule: {}", rule.text)))
        }
        Ok(None) => Err(format!("the rule's answer is no bool evaluating rule: {}", words())),
        Err(error) => Err(format!("{error} evaluating rule: {}", words())),
    }
}

/// A message that was computed: one line of text.
fn message(program: &Program, context: &Context<'_, '_>) -> Option<String> {
    let answer = CelValue::resolve_val(program.expression(), context).ok()?;
    let text = answer.as_ref().downcast_ref::<CelString<'_>>()?.inner().trim().to_owned();
    (!text.is_empty() && !text.contains('\n')).then_some(text)
}

/// What `value` was before. In lists whose elements are not told apart, that cannot be said.
fn counterpart<'a>(schema: &Schema, value: &Value, before: &'a [Value]) -> Option<&'a Value> {
    match schema.list {
        ListType::Map(_) => {
            let identity = schema.identity(value)?;
            before.iter().find(|old| schema.identity(old).as_ref() == Some(&identity))
        }
        ListType::Set | ListType::Atomic => None,
    }
}
