//! `minik8s`: the server, the node agent and the command line of a small Kubernetes, in one program.
#![allow(unreachable_pub)] // A program has no public API: `pub` says what a module offers to the others.

mod args;
mod audit;
mod backup;
mod cli;
mod daemon;
mod identity;
mod limits;
mod network;
mod node;
mod outages;
mod server;
mod storage;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    // The log driver is started by containerd for every container: it must stay small, and knows no flags.
    if std::env::args_os().nth(1).is_some_and(|a| a == daemon::LOG_DRIVER) {
        return daemon::log_driver();
    }
    let args = Args::parse();
    daemon::init(&args);
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            cli::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    let threads = if args.command.is_daemon() { daemon::WORKERS } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let done = |()| ExitCode::SUCCESS;
    let result = runtime.block_on(async {
        match args.command {
            Command::Server(server) => server::run(server).await.map(done),
            Command::Node(node) => node::run(node).await.map(done),
            Command::Up(up) => up::run(up).await.map(done),
            Command::Backup(backup) => backup::run(&args.connection, &backup).await.map(done),
            Command::Restore(restore) => backup::restore(&restore).map(done),
            Command::Kubeconfig(kubeconfig) => identity::run(&kubeconfig).map(done),
            command => cli::run(args.connection, command).await,
        }
    });
    // A read of standard input that nobody waits for must not keep the program.
    runtime.shutdown_background();
    result
}
