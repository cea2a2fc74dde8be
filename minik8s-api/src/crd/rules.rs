//! Validation rules in CEL: `x-kubernetes-validations`
//! (<https://kubernetes.io/docs/reference/using-api/cel/>).
//!
//! A rule is compiled when its definition is made, and run on every value that it is about. It sees the value as
//! `self`; one that mentions `oldSelf` is about changes, and is run only where there is a value before.

#[cfg(feature = "cel")]
mod access;
#[cfg(feature = "cel")]
mod check;
#[cfg(feature = "cel")]
mod cost;
#[cfg(feature = "cel")]
mod environment;
#[cfg(feature = "cel")]
mod evaluate;
#[cfg(feature = "cel")]
mod expression;
#[cfg(feature = "cel")]
mod lists;
#[cfg(feature = "cel")]
mod network;
#[cfg(feature = "cel")]
mod patterns;
#[cfg(feature = "cel")]
mod program;
#[cfg(feature = "cel")]
mod quantities;
#[cfg(feature = "cel")]
mod text;
#[cfg(feature = "cel")]
mod values;
#[cfg(not(feature = "cel"))]
mod without;

#[cfg(feature = "cel")]
pub use access::{Authorize, Question};
#[cfg(feature = "cel")]
pub(super) use evaluate::Evaluation;
#[cfg(feature = "cel")]
pub use expression::{Answer, Bindings, Expression, VARIABLES};
#[cfg(feature = "cel")]
pub use program::Rule;
use serde_json::Value;
#[cfg(not(feature = "cel"))]
pub(super) use without::Evaluation;
#[cfg(not(feature = "cel"))]
pub use without::Rule;

/// Why a rule does not compile.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct RuleError {
    /// The field of the rule that is at fault: `rule`, `messageExpression` or `fieldPath`.
    pub field: &'static str,
    /// What it holds.
    pub value: Value,
    /// What is wrong with it.
    pub detail: String,
}

#[cfg(all(test, feature = "cel"))]
mod tests;
