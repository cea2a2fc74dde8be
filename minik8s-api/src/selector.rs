//! Selectors: which objects a list, a watch, a controller or a Service means.

mod field;
mod label;
mod parse;

pub use field::{FieldOp, FieldRequirement, FieldSelector};
pub use label::{Operator, Requirement, Selector};

/// Why a selector cannot be used, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

#[cfg(test)]
mod tests;
