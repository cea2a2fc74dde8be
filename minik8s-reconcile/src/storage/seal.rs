//! How values leave the memory.

use std::borrow::Cow;
use std::fmt;

use super::StorageError;

/// Makes of a value what is kept of it on a disk, and the value of that again. What is kept is bound to its key.
pub trait Seal: fmt::Debug + Send + Sync + 'static {
    /// What is kept of the value of `key`.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if the machine has no randomness.
    fn seal<'a>(&self, key: &str, value: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError>;

    /// The value of `key`, of which that is kept.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if there is no key for it, [`StorageError::Corrupt`] if it was changed.
    fn open<'a>(&self, key: &str, kept: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError>;

    /// Whether what is kept for `key` would be kept in another way now.
    fn is_stale(&self, key: &str, kept: &[u8]) -> bool;
}

/// What values begin with that some [`Seal`] has sealed, in Kubernetes' format.
pub(super) const SEALED: &[u8] = b"k8s:enc:";

/// Values are kept as they are; what was sealed is not opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Seal for Plain {
    fn seal<'a>(&self, _: &str, value: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError> {
        Ok(Cow::Borrowed(value))
    }

    fn open<'a>(&self, key: &str, kept: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError> {
        if kept.starts_with(SEALED) {
            return Err(StorageError::Unavailable(format!(
                "{key} is sealed, and there is no encryption configuration to open it with"
            )));
        }
        Ok(Cow::Borrowed(kept))
    }

    fn is_stale(&self, _: &str, _: &[u8]) -> bool {
        false
    }
}

/// What is kept is passed on as it is, sealed or not, by those who do not look into it.
#[cfg(feature = "embedded")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Untouched;

#[cfg(feature = "embedded")]
impl Seal for Untouched {
    fn seal<'a>(&self, _: &str, value: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError> {
        Ok(Cow::Borrowed(value))
    }

    fn open<'a>(&self, _: &str, kept: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError> {
        Ok(Cow::Borrowed(kept))
    }

    fn is_stale(&self, _: &str, _: &[u8]) -> bool {
        false
    }
}
