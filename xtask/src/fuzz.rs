//! Fuzzing: searching for bytes that break what must hold of all.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::progress::say;
use crate::workspace::{cargo, loud, quiet, root};

/// Longer inputs find nothing that shorter ones do not.
const LONGEST: usize = 4096;
/// One input may take that long, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(25);
/// The stack of the server's threads, in KiB: what overflows it there has to overflow it here.
const STACK_KIB: usize = 2048;
/// The memory that one run may take.
const MEMORY_MIB: usize = 2048;

/// Runs the target for that long, from its seeds, from what was found before, and from the corpus of earlier runs.
pub fn run(target: &str, minutes: u64) -> anyhow::Result<()> {
    let dir = root().join("tests/fuzz");
    let source = dir.join("fuzz_targets").join(target).with_extension("rs");
    if !source.exists() {
        bail!("there is no fuzz target `{target}`; there are {}", targets()?.join(", "));
    }
    if quiet(cargo().args(["fuzz", "--version"])).is_err() {
        say("Installing cargo-fuzz");
        loud(cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    // The dependencies that are shipped are those that are searched.
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    let corpus = dir.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let known = ["seeds", "regressions"].map(|folder| dir.join(folder).join(target));
    say(&format!("Fuzzing {target} for {minutes} minutes"));
    let cargo = cargo();
    let mut fuzz = std::process::Command::new("sh");
    fuzz.current_dir(&dir).args(["-c", &format!("ulimit -s {STACK_KIB}; exec nice -n 19 \"$@\""), "sh"]);
    // Stable Rust has no sanitizers; its own checks are on.
    fuzz.arg(cargo.get_program()).args(["fuzz", "run", "--fuzz-dir", ".", "--sanitizer", "none"]);
    fuzz.args(["--debug-assertions", target]).arg(corpus).args(known.iter().filter(|k| k.exists()));
    fuzz.arg("--").arg(format!("-max_total_time={}", minutes * 60)).arg(format!("-max_len={LONGEST}"));
    fuzz.arg(format!("-timeout={}", TIMEOUT.as_secs())).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    loud(&mut fuzz).with_context(|| {
        format!("keep the input that it names in tests/fuzz/regressions/{target}, where tests replay it")
    })
}

/// The names of all targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(root().join("tests/fuzz/fuzz_targets"))? {
        names.extend(file?.path().file_stem().and_then(|s| s.to_str()).map(ToOwned::to_owned));
    }
    names.sort();
    Ok(names)
}
