//! The controllers of every cluster, and its scheduler, in clusters in which everything goes wrong.
//!
//! `SIM_SEEDS=10000` runs that many seeds of each, `SIM_SEED=7` that one.

mod scheduling;

use std::io::Write;

use minik8s_reconcile::sim::Simulation;

/// Runs the seeds, and says what came of them.
fn check(simulation: &Simulation, seeds: u64) {
    let began = std::time::Instant::now();
    let summary = simulation.check(0..seeds);
    let _ = writeln!(std::io::stderr(), "{simulation:?}: {summary}, {:.1?}", began.elapsed());
    assert!(summary.distinct > summary.seeds / 2, "the workload is too regular: {summary}");
}
