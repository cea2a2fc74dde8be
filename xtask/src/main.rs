//! `cargo xtask`: everything that is done to this project by a command.
// A program has no public API: `pub` says what a module offers to the others.
#![allow(unreachable_pub)]

mod clients;
mod cluster;
mod fuzz;
mod images;
mod packages;
mod progress;
mod test;
mod tidy;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Automation of the minik8s project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a cluster on this machine: nodes in namespaces, each with a containerd of its own.
    ClusterUp(cluster::UpArgs),
    /// Take a cluster down, leaving nothing behind.
    ClusterDown {
        /// The cluster's name.
        #[arg(long, default_value = cluster::DEFAULT_NAME)]
        name: String,
    },
    /// Have one more node join a cluster.
    ClusterAddNode {
        /// The cluster's name.
        #[arg(long, default_value = cluster::DEFAULT_NAME)]
        name: String,
    },
    /// Kill all processes of a node at once, as a power cut would.
    #[command(after_help = "Example: cargo xtask cluster-stop-node n2")]
    ClusterStopNode {
        /// The node.
        node: String,
        /// The cluster's name.
        #[arg(long, default_value = cluster::DEFAULT_NAME)]
        name: String,
    },
    /// Start a node again that does not run.
    ClusterStartNode {
        /// The node.
        node: String,
        /// The cluster's name.
        #[arg(long, default_value = cluster::DEFAULT_NAME)]
        name: String,
    },
    /// Run a command inside a node.
    #[command(after_help = "Example: cargo xtask node n1 -- ctr -n k8s.io containers ls")]
    Node {
        /// The node.
        node: String,
        /// The cluster's name.
        #[arg(long = "name", default_value = cluster::DEFAULT_NAME)]
        cluster: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Build the small images that tests and examples use, from the distribution's packages.
    Images,
    /// Load an image archive (OCI or docker) into all nodes of a cluster.
    ImageLoad {
        /// The archive.
        tar: PathBuf,
        /// The cluster's name.
        #[arg(long, default_value = cluster::DEFAULT_NAME)]
        name: String,
    },
    /// Run the tests.
    Test {
        /// Which.
        #[arg(value_enum, default_value_t = test::Suite::All)]
        suite: test::Suite,
    },
    /// Harm API servers under load, and judge what is left.
    #[command(after_help = "Example: cargo xtask robustness embedded --times 1000")]
    Robustness {
        /// Kill servers with one storage or the other, kill members of etcd, hold servers up for longer than their lease,
        /// fill the disk; all of it by default.
        #[arg(value_parser = ["embedded", "etcd", "members", "pauses", "disk"])]
        faults: Vec<String>,
        /// How many times each.
        #[arg(long, default_value_t = 100)]
        times: usize,
    },
    /// Run simulated clusters in which everything goes wrong.
    #[command(
        after_help = "Examples:\n  cargo xtask simulate --seeds 10000\n  cargo xtask simulate pods_find_nodes --seeds 100000"
    )]
    Simulate {
        /// Only those whose name contains this.
        filter: Option<String>,
        /// How many seeds of each.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
    },
    /// Search for input that breaks what must hold of all input; needs cargo-fuzz, and installs it.
    #[command(after_help = "Example: cargo xtask fuzz protobuf --minutes 30")]
    Fuzz {
        /// What to search in: a file of tests/fuzz/fuzz_targets.
        target: String,
        /// For how long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Check the architecture's rules.
    Tidy,
    /// Everything that must pass before a change lands.
    Ci,
    /// The first process of a node. Not for people.
    #[command(hide = true, name = "__init")]
    Init(cluster::InitArgs),
    /// Moves into a node's control groups, then becomes another program. Not for people.
    #[command(hide = true, name = "__enter")]
    Enter {
        /// The control group.
        #[arg(long)]
        cgroup: String,
        /// The program.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::ClusterUp(args) => cluster::up(&args),
        Command::ClusterDown { name } => cluster::down(&name),
        Command::ClusterAddNode { name } => cluster::add_node(&name),
        Command::ClusterStopNode { node, name } => cluster::stop_node(&name, &node),
        Command::ClusterStartNode { node, name } => cluster::start_node(&name, &node),
        Command::Node { node, cluster, command } => return finish(cluster::exec(&cluster, &node, &command)),
        Command::Images => images::build_all().map(drop),
        Command::ImageLoad { tar, name } => cluster::load_image(&name, &tar),
        Command::Test { suite } => test::run(suite),
        Command::Robustness { faults, times } => test::robustness(&faults, times),
        Command::Simulate { filter, seeds } => test::simulate(seeds, filter.as_deref()),
        Command::Fuzz { target, minutes } => fuzz::run(&target, minutes),
        Command::Tidy => tidy::run(),
        Command::Ci => test::ci(),
        Command::Init(args) => cluster::init(&args),
        Command::Enter { cgroup, command } => cluster::enter(&cgroup, &command),
    };
    finish(done.map(|()| ExitCode::SUCCESS))
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        progress::error(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
