//! The languages of patches. Each is a pure function from a document and a patch to a new document.

pub mod apply;
pub mod json;
pub mod merge;
pub mod merge_keys;
pub mod strategic;

/// Why a patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// It is no patch of that language.
    #[error("{0}")]
    Malformed(String),
    /// It cannot be applied to this document.
    #[error("{0}")]
    DoesNotApply(String),
    /// The kind cannot be patched in that language.
    #[error("{0}")]
    Unsupported(String),
    /// It has too many operations.
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    /// The HTTP status that says so.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::DoesNotApply(_) => 422,
            Self::Unsupported(_) => 415,
            Self::TooLarge(_) => 413,
        }
    }
}
