//! What is wrong with a manifest, and where.

use std::fmt;

/// Why one document of a manifest cannot be used. `Display` says where first, in the form that editors follow:
/// `pod.yaml:12:3: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// Where the manifest comes from.
    pub source: String,
    /// Which document of it, beginning with 0.
    pub index: usize,
    /// The line of the source, beginning with 1.
    pub line: usize,
    /// The column, beginning with 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, index, line, column, message, hint } = self;
        write!(f, "{source}:{line}:{column}: document {}: {message}", index + 1)?;
        if let Some(hint) = hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

/// Everything that is wrong with a manifest, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<ManifestError>);

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestErrors {}
