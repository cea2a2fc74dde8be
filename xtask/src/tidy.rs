//! The rules of ARCHITECTURE.md that a program can check.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::progress::say;
use crate::workspace::{cargo, quiet, root};

/// Lines that a source file may have at most.
const LONGEST: usize = 800;
/// Names of modules that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];
/// What each crate may depend on, of this workspace.
const ARROWS: &[(&str, &[&str])] = &[
    ("minik8s-api", &[]),
    ("minik8s-reconcile", &["minik8s-api"]),
    ("minik8s-runtime", &["minik8s-api", "minik8s-reconcile"]),
    ("minik8s-net", &["minik8s-api", "minik8s-reconcile"]),
    ("minik8s-serverless", &["minik8s-api", "minik8s-reconcile"]),
    ("minik8s-mesh", &["minik8s-api", "minik8s-reconcile", "minik8s-net"]),
    ("xtask", &[]),
];
/// What the deterministic core may not use, and why.
const BANNED_IN_RECONCILE: &[(&str, &str)] = &[
    ("HashMap", "its order differs from run to run: use BTreeMap"),
    ("HashSet", "its order differs from run to run: use BTreeSet"),
    ("SystemTime", "take the time from a Clock"),
    ("sync::watch", "it wakes its receivers in random order: use Notify"),
    ("Timestamp::now()", "take the time from a Clock"),
];
/// What the types' crate may not use.
const BANNED_IN_API: &[(&str, &str)] =
    &[("std::fs", "api does no IO"), ("std::net::Tcp", "api does no IO"), ("tokio", "api is not async")];
const MAIN_LIMIT: usize = 60;

/// Checks all rules and reports all that is broken.
pub fn run() -> anyhow::Result<()> {
    let mut broken = Vec::new();
    let files = sources()?;
    for file in &files {
        check_file(file, &mut broken)?;
    }
    check_arrows(&mut broken)?;
    if !broken.is_empty() {
        bail!("tidy:\n  {}", broken.join("\n  "));
    }
    say(&format!("tidy: {} files, nothing to complain about", files.len()));
    Ok(())
}

fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let mut command = std::process::Command::new("git");
    command.current_dir(root()).args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]);
    let listed = quiet(&mut command)?;
    let names = String::from_utf8(listed.stdout)?;
    Ok(names.lines().map(PathBuf::from).filter(|f| root().join(f).exists()).collect())
}

fn check_file(file: &Path, broken: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(root().join(file)).with_context(|| file.display().to_string())?;
    let lines = text.lines().count();
    if lines > LONGEST {
        broken.push(format!("{}: {lines} lines, more than {LONGEST}: one idea per file", file.display()));
    }
    for part in file.iter().filter_map(|p| p.to_str()) {
        let name = part.trim_end_matches(".rs");
        if EMPTY_NAMES.contains(&name) {
            broken.push(format!("{}: \"{name}\" says nothing: name it after what it holds", file.display()));
        }
    }
    if file.starts_with("minik8s-bins") && file.ends_with("main.rs") && lines > MAIN_LIMIT {
        broken.push(format!("{}: {lines} lines, more than {MAIN_LIMIT}: programs are thin", file.display()));
    }
    let is_test = file.ends_with("tests.rs") || file.iter().any(|p| p == "tests" || p == "conformance.rs");
    let banned: &[(&str, &str)] = if is_test {
        &[]
    } else if file.starts_with("minik8s-reconcile/src") && !file.ends_with("clock.rs") {
        BANNED_IN_RECONCILE
    } else if file.starts_with("minik8s-api/src") {
        BANNED_IN_API
    } else {
        &[]
    };
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    for (number, line) in (1..).zip(code.lines()) {
        let line = line.split("//").next().unwrap_or_default();
        for (word, why) in banned.iter().filter(|(word, _)| line.contains(word)) {
            broken.push(format!("{}:{number}: {word}: {why}", file.display()));
        }
    }
    Ok(())
}

fn check_arrows(broken: &mut Vec<String>) -> anyhow::Result<()> {
    let output = quiet(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            if to.starts_with("minik8s-") && !allowed.contains(&to) {
                broken.push(format!("{name} depends on {to}: arrows point one way"));
            }
        }
    }
    Ok(())
}
