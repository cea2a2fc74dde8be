//! What the long-running commands share.

use std::path::Path;
use std::process::ExitCode;

use minik8s_reconcile::http::Listener;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::args::Args;

/// Worker threads of a daemon. The work is short and mostly waits, so few will do.
pub const WORKERS: usize = 2;

/// The hidden command with which containerd has a container's output written.
pub const LOG_DRIVER: &str = minik8s_runtime::containerd::log_driver::ARGUMENT;

/// Where systemd's passed-on sockets begin.
const FIRST_FD: i32 = 3;

/// Writes a container's output to its log file until the container ends.
pub fn log_driver() -> ExitCode {
    match minik8s_runtime::containerd::log_driver::run(std::env::args_os().skip(2)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::cli::note(&format!("log driver: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error: warnings, for the daemons what they do too, and more with each `-v`. `RUST_LOG` overrides. Daemons
/// also get as many open files as they may have.
pub fn init(args: &Args) {
    let level = match (args.verbose, args.command.is_daemon()) {
        (0, false) => "error",
        // kube-client calls every failed request an error, also those that are about to be tried again.
        (0, true) => "info,hyper=warn,h2=warn,tower=warn,kube_client=off",
        (1, _) => "info,minik8s=debug,minik8s_reconcile=debug,minik8s_runtime=debug,minik8s_net=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if args.command.is_daemon() {
        raise_file_limit();
    }
}

/// Allows this process as many open files as the machine does: each watch is a connection.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// A token that is cancelled by SIGTERM or SIGINT.
pub fn shutdown() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        cancel.cancel();
    });
    Ok(token)
}

/// Tells systemd that the service is ready; nothing without systemd.
pub fn ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

/// Sockets that systemd (or another parent) listens on for this process: `LISTEN_FDS`.
pub fn passed_on() -> anyhow::Result<Vec<Listener>> {
    let variable = |name: &str| std::env::var(name).ok();
    let for_us = variable("LISTEN_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let count: i32 = variable("LISTEN_FDS").filter(|_| for_us).and_then(|n| n.parse().ok()).unwrap_or(0);
    (FIRST_FD..FIRST_FD + count)
        .map(|fd| {
            let path = format!("/proc/self/fd/{fd}");
            anyhow::ensure!(Path::new(&path).exists(), "LISTEN_FDS is {count}, but {fd} is not open");
            Ok(Listener::from_std(inherit(fd))?)
        })
        .collect()
}

#[allow(unsafe_code)]
fn inherit(fd: i32) -> std::net::TcpListener {
    use std::os::fd::FromRawFd;
    // SAFETY: by the protocol of LISTEN_FDS these descriptors are this process's own, and `passed_on` is called once.
    unsafe { std::net::TcpListener::from_raw_fd(fd) }
}
