//! Regular expressions of rules: compiled once, within bounds, and remembered.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use cel::ExecutionError;
use regex::{Regex, RegexBuilder};

use crate::crd::PROGRAM_LIMIT;

/// Patterns that are remembered; when there are more, all are forgotten.
const REMEMBERED: usize = 32;
/// Patterns that one evaluation may bring that are not remembered: compiling one takes up to some ten milliseconds.
const NEW_LIMIT: usize = 32;

static KNOWN: LazyLock<Mutex<BTreeMap<String, Regex>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// How many the evaluation that runs on this thread has had compiled.
    static COMPILED: Cell<usize> = const { Cell::new(0) };
}

/// Another evaluation begins on this thread.
pub(super) fn begin() {
    COMPILED.set(0);
}

/// The regular expression that `pattern` says.
///
/// # Errors
/// It is none, it is too large, or the evaluation has had too many others; `function` is whose pattern it is.
pub(super) fn compiled(pattern: &str, function: &str) -> Result<Regex, ExecutionError> {
    if let Some(known) = KNOWN.lock().expect("no holder panics").get(pattern) {
        return Ok(known.clone());
    }
    let count = COMPILED.get() + 1;
    if count > NEW_LIMIT {
        let message = format!("more than {NEW_LIMIT} regular expressions in one evaluation");
        return Err(ExecutionError::function_error(function, message));
    }
    COMPILED.set(count);
    let regex = RegexBuilder::new(pattern).size_limit(PROGRAM_LIMIT).build().map_err(|_| {
        ExecutionError::function_error(function, format!("{pattern:?} is no regular expression"))
    })?;
    let mut known = KNOWN.lock().expect("no holder panics");
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_brings_so_many_patterns_and_no_more() {
        begin();
        let made = (0..).map(|i| compiled(&format!("patterns{i}"), "find")).take_while(Result::is_ok).count();
        assert_eq!(made, NEW_LIMIT);
        begin();
        assert!(compiled("patterns!", "find").is_ok());
        assert!(compiled("(", "find").is_err());
        assert!(compiled("(\\pL{1000}){1000}", "find").is_err());
    }
}
