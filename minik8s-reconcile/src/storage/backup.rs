//! Backups: all objects at one revision, in one file that carries checksums and says where it ends.
//!
//! A backup is taken of any storage, while it is in use. What it does not hold is what is not an object: the cluster's
//! certificates and keys.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::embedded::{self, Contents, Kept};
use super::mvcc::{Retention, State};
use super::seal::{Seal, Untouched};
use super::{Page, StorageError};

/// Revisions by which a restored storage is ahead of its backup. Whoever has seen what came after the backup, and asks
/// for what comes after that, is told to begin anew instead of being told nothing.
const AHEAD: u64 = 1_000_000_000;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The revision that it shows.
    pub revision: u64,
    /// How many objects there are.
    pub objects: usize,
}

/// The bytes of a backup of `page`, which must be of everything ([`super::Query::default`]).
/// Values are in it as `seal` keeps them; to look whether a backup is whole, and to restore it, takes no keys.
///
/// Items are errors if a value cannot be sealed.
pub fn chunks(
    page: Page,
    seal: Arc<dyn Seal>,
) -> impl Iterator<Item = Result<Vec<u8>, StorageError>> + Send + 'static {
    let records = page.items.into_iter().map(|(key, value)| Kept { key, value, removed: false });
    let mut contents =
        Contents { revision: page.revision, forgotten: Vec::new(), records: records.collect(), seal };
    contents.sort();
    contents.into_chunks()
}

/// Looks whether a backup is whole. `name` is what errors call it.
///
/// # Errors
/// [`StorageError::Corrupt`] if it is not, [`StorageError::Unavailable`] if it cannot be read.
pub fn verify(from: impl Read, name: &str) -> Result<Summary, StorageError> {
    read(from, name).map(|state| summary(&state))
}

/// Makes the directory `dir`, which must be empty or not there, a storage that holds what the backup does.
///
/// # Errors
/// [`StorageError::Corrupt`] if the backup is not whole, [`StorageError::Unavailable`] if there is a storage already or
/// one of them cannot be used. Nothing has been done then.
pub fn restore(from: impl Read, name: &str, dir: &Path) -> Result<Summary, StorageError> {
    let state = read(from, name)?;
    let found = summary(&state);
    let mut contents = state.contents();
    contents.sort();
    contents.revision += AHEAD;
    contents.forgotten = vec![(String::new(), contents.revision)];
    embedded::establish(dir, contents)?;
    Ok(found)
}

/// Writes a backup of what can be read of a damaged storage that is not in use, and says what cannot.
///
/// # Errors
/// [`StorageError::Unavailable`] if a process uses the storage, or the backup cannot be written.
pub fn salvage(dir: &Path, mut out: impl Write) -> Result<(Summary, Vec<String>), StorageError> {
    let (state, lost) = embedded::salvage(dir)?;
    let page = state.list(&super::Query::default())?;
    // What is sealed was never opened.
    for chunk in chunks(page, Arc::new(Untouched)) {
        out.write_all(&chunk?).map_err(|e| embedded::failed("cannot write the backup", &e))?;
    }
    Ok((summary(&state), lost))
}

/// Keeps servers off the storage in `dir` until the answer is dropped.
///
/// # Errors
/// [`StorageError::Unavailable`] if a process uses it; the message says which.
pub fn lock(dir: &Path) -> Result<std::fs::File, StorageError> {
    embedded::lock(dir)
}

fn read(from: impl Read, name: &str) -> Result<State, StorageError> {
    let mut state = State::new(Retention { changes: 0 });
    embedded::read_snapshot(from, &name, &mut state)?;
    Ok(state)
}

fn summary(state: &State) -> Summary {
    Summary { revision: state.revision(), objects: state.len() }
}
