//! What can be told of a rule before it runs: that its variables, its functions and its fields exist.

use cel::Program;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::environment::{FUNCTIONS, NAMES};
use super::values::field_name;
use crate::crd::schema::{Additional, Schema, Type};

/// What is known of the value of an expression.
#[derive(Clone, Copy)]
enum Known<'a> {
    Nothing,
    /// It satisfies the schema.
    Schema(&'a Schema),
    /// It is the object as a whole, with its kind and metadata.
    Root(&'a Schema),
}

/// What is wrong with a rule about values of `schema`.
pub(super) fn program(program: &Program, schema: &Schema, optional_old: bool) -> Result<(), String> {
    let root = if schema.is_root() { Known::Root(schema) } else { Known::Schema(schema) };
    let old = if optional_old { Known::Nothing } else { root };
    let mut scope = vec![("self".to_owned(), root), ("oldSelf".to_owned(), old)];
    let mut check = Check { program, more: &[] };
    check.expression(program.expression(), &mut scope).map(drop)
}

/// What is wrong with an expression over variables of which nothing but their names is known. It may call `more`
/// functions than rules.
pub(super) fn untyped(program: &Program, variables: &[&str], more: &[&str]) -> Result<(), String> {
    let mut scope = variables.iter().map(|name| ((*name).to_owned(), Known::Nothing)).collect();
    Check { program, more }.expression(program.expression(), &mut scope).map(drop)
}

struct Check<'p> {
    program: &'p Program,
    more: &'p [&'p str],
}

type Scope<'a> = Vec<(String, Known<'a>)>;

impl Check<'_> {
    fn expression<'a>(&mut self, expression: &IdedExpr, scope: &mut Scope<'a>) -> Result<Known<'a>, String> {
        match &expression.expr {
            Expr::Ident(name) => {
                match scope.iter().rev().find(|(n, _)| n == name) {
                    Some((_, known)) => Ok(*known),
                    None if name.starts_with('@') || NAMES.contains(&name.as_str()) => Ok(Known::Nothing),
                    None => Err(self
                        .error(expression, &format!("undeclared reference to '{name}' (in container '')"))),
                }
            }
            Expr::Select(select) => {
                let operand = self.expression(&select.operand, scope)?;
                self.field(expression, operand, &select.field)
            }
            Expr::Call(call) => {
                let target = call.target.as_deref().map(|t| self.expression(t, scope)).transpose()?;
                let mut args = Vec::new();
                for arg in &call.args {
                    args.push(self.expression(arg, scope)?);
                }
                let name = call.func_name.as_str();
                let operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
                if !operator && !FUNCTIONS.contains(&name) && !self.more.contains(&name) {
                    return Err(self
                        .error(expression, &format!("undeclared reference to '{name}' (in container '')")));
                }
                Ok(match (name, args.first().copied().or(target)) {
                    ("_[_]", Some(Known::Schema(schema))) => element(schema),
                    _ => Known::Nothing,
                })
            }
            Expr::Comprehension(c) => {
                let range = self.expression(&c.iter_range, scope)?;
                let accumulator = self.expression(&c.accu_init, scope)?;
                let before = scope.len();
                scope.push((c.accu_var.clone(), accumulator));
                scope.push((c.iter_var.clone(), each(range)));
                scope.extend(c.iter_var2.clone().map(|name| (name, Known::Nothing)));
                self.expression(&c.loop_cond, scope)?;
                self.expression(&c.loop_step, scope)?;
                self.expression(&c.result, scope)?;
                scope.truncate(before);
                Ok(Known::Nothing)
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.expression(element, scope)?;
                }
                Ok(Known::Nothing)
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    self.entry(&entry.expr, scope)?;
                }
                Ok(Known::Nothing)
            }
            Expr::Struct(s) => {
                for entry in &s.entries {
                    self.entry(&entry.expr, scope)?;
                }
                Ok(Known::Nothing)
            }
            Expr::Literal(_) | Expr::Unspecified => Ok(Known::Nothing),
        }
    }

    fn entry(&mut self, entry: &EntryExpr, scope: &mut Scope<'_>) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.expression(&field.value, scope)?,
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key, scope)?;
                self.expression(&entry.value, scope)?
            }
        };
        Ok(())
    }

    fn field<'a>(&self, at: &IdedExpr, operand: Known<'a>, field: &str) -> Result<Known<'a>, String> {
        let (schema, whole) = match operand {
            Known::Nothing => return Ok(Known::Nothing),
            Known::Schema(schema) => (schema, schema.embedded),
            Known::Root(schema) => (schema, true),
        };
        if whole && matches!(field, "apiVersion" | "kind" | "metadata") {
            return Ok(Known::Nothing);
        }
        let name = field_name(field);
        match (schema.property(field).or_else(|| schema.property(&name)), &schema.additional) {
            (Some(below), _) => Ok(Known::Schema(below)),
            (None, Some(Additional::Schema(below))) => Ok(Known::Schema(below)),
            (None, Some(Additional::Any)) => Ok(Known::Nothing),
            (None, None) if schema.preserve || schema.value_type().is_none() => Ok(Known::Nothing),
            (None, None) if schema.value_type() == Some(Type::Object) => {
                Err(self.error(at, &format!("undefined field '{field}'")))
            }
            (None, None) => Err(self.error(at, "type does not support field selection")),
        }
    }

    /// The error with its place, drawn as CEL's own compiler does.
    fn error(&self, at: &IdedExpr, message: &str) -> String {
        let source = &self.program.source_info().source;
        let offset = self.program.source_info().offset_for(at.id).map_or(0, |(start, _)| start as usize);
        let before = source.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let text = source.lines().nth(line).unwrap_or_default();
        format!(
            "ERROR: <input>:{}:{}: {message}\n | {text}\n | {}^",
            line + 1,
            column + 1,
            ".".repeat(column)
        )
    }
}

/// What one finds at an index or a key.
fn element(schema: &Schema) -> Known<'_> {
    match (&schema.items, &schema.additional) {
        (Some(items), _) => Known::Schema(items),
        (None, Some(Additional::Schema(below))) => Known::Schema(below),
        _ => Known::Nothing,
    }
}

/// What a macro goes through: the elements of a list, the keys of a map.
fn each(range: Known<'_>) -> Known<'_> {
    match range {
        Known::Schema(Schema { items: Some(items), .. }) => Known::Schema(items),
        _ => Known::Nothing,
    }
}
