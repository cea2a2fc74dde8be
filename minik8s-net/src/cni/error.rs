//! How plugins say what is wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The numbers of errors, as the specification gives them.
pub mod code {
    /// A version that is not spoken.
    pub const VERSION: u32 = 1;
    /// A field that is not supported.
    pub const UNSUPPORTED: u32 = 2;
    /// An environment variable that is missing or wrong.
    pub const ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// What was read cannot be understood.
    pub const DECODING: u32 = 6;
    /// The network's configuration is wrong.
    pub const CONFIG: u32 = 7;
    /// Later it may work.
    pub const LATER: u32 = 11;
    /// No container can be added.
    pub const UNAVAILABLE: u32 = 50;
    /// The container is not as it was made.
    pub const CHANGED: u32 = 100;
    /// No address is free.
    pub const EXHAUSTED: u32 = 101;
    /// The network could not be changed.
    pub const FAILED: u32 = 102;
}

/// What a plugin writes where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniError {
    /// The version of the configuration, as far as it is known.
    #[serde(default)]
    pub cni_version: String,
    /// One of [`code`].
    pub code: u32,
    /// In short.
    pub msg: String,
    /// At length; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error with that number.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        let cni_version = super::VERSIONS[super::VERSIONS.len() - 1].to_owned();
        Self { cni_version, code, msg: msg.into(), details: String::new() }
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CNI error {})", self.msg, self.code)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

impl std::error::Error for CniError {}

impl From<crate::Error> for CniError {
    fn from(error: crate::Error) -> Self {
        let code = match &error {
            crate::Error::Exhausted(_) => code::EXHAUSTED,
            crate::Error::Io { .. } => code::IO,
            _ => code::FAILED,
        };
        Self::new(code, error.to_string())
    }
}
