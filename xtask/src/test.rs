//! Running the tests.

use clap::ValueEnum;

use crate::progress::say;
use crate::workspace::{cargo, loud};
use crate::{clients, packages, tidy};

/// Which tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Those that need neither root nor a network.
    Unit,
    /// Those on real nodes.
    E2e,
    /// Both.
    All,
}

/// Runs a suite.
pub fn run(suite: Suite) -> anyhow::Result<()> {
    if suite != Suite::Unit {
        // Some of the unit tests do more where these are.
        packages::ensure()?;
        clients::ensure()?;
    }
    if suite != Suite::E2e {
        say("Unit tests, doctests and examples");
        loud(cargo().args([
            "test",
            "--workspace",
            "--exclude",
            "minik8s-tests",
            "--exclude",
            "minik8s-benches",
            "--features",
            "minik8s-reconcile/sim",
        ]))?;
        for example in ["embedded", "scheduler"] {
            loud(cargo().args(["run", "--quiet", "--package", "minik8s-reconcile", "--example", example]))?;
        }
    }
    if suite != Suite::Unit {
        say("End-to-end tests on real nodes");
        loud(cargo().args(["test", "--no-fail-fast", "--package", "minik8s-tests"]))?;
    }
    Ok(())
}

/// Simulated clusters, that many seeds of each, optimised.
pub fn simulate(seeds: u64, filter: Option<&str>) -> anyhow::Result<()> {
    say(&format!("{seeds} seeds of each simulation"));
    loud(
        cargo()
            .args([
                "test",
                "--release",
                "--package",
                "minik8s-reconcile",
                "--features",
                "sim",
                "--test",
                "simulation",
            ])
            .args(["--", "--nocapture", "--test-threads", "1"])
            .args(filter)
            .env("SIM_SEEDS", seeds.to_string()),
    )
}

/// Faults under load.
pub fn robustness(faults: &[String], times: usize) -> anyhow::Result<()> {
    packages::ensure()?;
    loud(
        cargo()
            .args(["test", "--package", "minik8s-tests", "--test", "robustness", "--"])
            .args(faults)
            .args(["--times", &times.to_string()]),
    )
}

/// Everything that must pass before a change lands.
pub fn ci() -> anyhow::Result<()> {
    loud(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    loud(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))?;
    run(Suite::All)
}
