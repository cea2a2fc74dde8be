//! Custom resource definitions: what a CustomResourceDefinition says, made into [`Kind`](crate::Kind)s
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>).
//!
//! [`kinds`] is the way in. Below it, a [`Schema`] is compiled from the definition's OpenAPI schema; it drops fields
//! that it does not know ([`Schema::prune`]), fills in defaults ([`Schema::fill`]) and checks ([`Schema::validate`]).
//! [`definition`] checks definitions, and [`names`] decides which of them may have the names that they ask for.

mod defaults;
pub mod definition;
mod format;
mod json_path;
mod kinds;
pub mod names;
mod number;
mod prune;
mod publish;
mod rules;
mod schema;
pub mod structural;
mod validate;

pub use json_path::{JsonPath, JsonPathError};
pub use kinds::kinds;
#[cfg(feature = "cel")]
pub use rules::{Answer, Authorize, Bindings, Expression, Question, VARIABLES};
pub use rules::{Rule, RuleError};
pub use schema::Schema;

/// The most bytes of a compiled pattern: definitions and objects bring them, and each is kept or made anew.
const PROGRAM_LIMIT: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests;
