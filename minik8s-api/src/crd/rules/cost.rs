//! How much work a rule may be, before it is begun.
//!
//! All that takes long in CEL are its macros that go through lists and maps, one within the other. Each may take as
//! many steps as the longest list has elements, for every step of the one around it; but one that goes through part of
//! an element of another takes, over all elements, no more than all data together.

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use serde_json::Value;

/// Steps of macros in all rules of one request: some tenths of a second.
pub(super) const LIMIT: u64 = 2_000_000;

/// The macros of a rule, as they are nested.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape(Vec<Loop>);

#[derive(Clone, Debug)]
struct Loop {
    /// Whether it goes through part of what a loop around it goes through.
    inner: bool,
    /// The elements of the list it goes through, if that is written in the rule.
    literal: Option<u64>,
    body: Vec<Loop>,
}

/// How much data there is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// The elements of the longest list or map.
    longest: u64,
    /// All values.
    all: u64,
    /// The bytes of all texts.
    bytes: u64,
}

impl Size {
    pub(super) fn add(&mut self, value: &Value) {
        self.all += 1;
        match value {
            Value::Array(list) => {
                self.longest = self.longest.max(list.len() as u64);
                list.iter().for_each(|v| self.add(v));
            }
            Value::Object(map) => {
                self.longest = self.longest.max(map.len() as u64);
                map.values().for_each(|v| self.add(v));
            }
            Value::String(text) => self.bytes += text.len() as u64,
            _ => {}
        }
    }
}

impl Shape {
    pub(super) fn of(expression: &IdedExpr) -> Self {
        let mut loops = Vec::new();
        collect(expression, &mut Vec::new(), &mut loops);
        Self(loops)
    }

    /// The steps that the rule takes at most.
    pub(super) fn steps(&self, size: Size) -> u64 {
        // Looking at the value at all, and at its texts.
        let once = 1 + size.all + size.bytes / 64;
        self.0.iter().fold(once, |sum, l| sum.saturating_add(l.steps(1, size)))
    }
}

impl Loop {
    fn steps(&self, around: u64, size: Size) -> u64 {
        let own = match self.literal {
            Some(count) => around.saturating_mul(count),
            // A text may be split into as many parts as it has bytes.
            None if self.inner => around.max(size.all.saturating_add(size.bytes)),
            None => around.saturating_mul(size.longest.max(1)),
        };
        self.body.iter().fold(own, |sum, l| sum.saturating_add(l.steps(own, size)))
    }
}

fn collect(expression: &IdedExpr, variables: &mut Vec<String>, loops: &mut Vec<Loop>) {
    match &expression.expr {
        Expr::Comprehension(c) => {
            collect(&c.iter_range, variables, loops);
            collect(&c.accu_init, variables, loops);
            let inner = root(&c.iter_range).is_some_and(|name| variables.iter().any(|v| v == name));
            let literal = match &c.iter_range.expr {
                Expr::List(list) => Some(list.elements.len() as u64),
                Expr::Map(map) => Some(map.entries.len() as u64),
                _ => None,
            };
            let mut body = Vec::new();
            let before = variables.len();
            variables.push(c.iter_var.clone());
            variables.extend(c.iter_var2.clone());
            collect(&c.loop_cond, variables, &mut body);
            collect(&c.loop_step, variables, &mut body);
            variables.truncate(before);
            collect(&c.result, variables, loops);
            loops.push(Loop { inner, literal, body });
        }
        Expr::Call(call) => {
            call.target.iter().for_each(|t| collect(t, variables, loops));
            call.args.iter().for_each(|a| collect(a, variables, loops));
        }
        Expr::List(list) => list.elements.iter().for_each(|e| collect(e, variables, loops)),
        Expr::Select(select) => collect(&select.operand, variables, loops),
        Expr::Map(map) => map.entries.iter().for_each(|e| entry(&e.expr, variables, loops)),
        Expr::Struct(s) => s.entries.iter().for_each(|e| entry(&e.expr, variables, loops)),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn entry(entry: &EntryExpr, variables: &mut Vec<String>, loops: &mut Vec<Loop>) {
    match entry {
        EntryExpr::StructField(field) => collect(&field.value, variables, loops),
        EntryExpr::MapEntry(entry) => {
            collect(&entry.key, variables, loops);
            collect(&entry.value, variables, loops);
        }
    }
}

/// The variable that a selection begins with.
fn root(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) => root(&select.operand),
        Expr::Call(call) => root(call.target.as_deref().or(call.args.first())?),
        _ => None,
    }
}
