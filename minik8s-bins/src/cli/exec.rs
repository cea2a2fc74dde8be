//! `exec`.

use std::io::IsTerminal;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;

use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, TerminalSize};
use nix::sys::termios::{self, SetArg, Termios};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use super::logs::{api_error, pod_name};
use super::note;
use super::session::Session;
use crate::args::Exec;

pub async fn run(session: &Session, exec: &Exec) -> anyhow::Result<ExitCode> {
    let pods: Api<Pod> = Api::namespaced(session.kube().clone(), session.namespace());
    let tty = exec.tty && std::io::stdin().is_terminal();
    if exec.tty && !tty {
        note("no terminal here: going on without -t");
    }
    let mut params = AttachParams::default().stdin(exec.stdin).stdout(true).stderr(!tty).tty(tty);
    params.container.clone_from(&exec.container);
    let mut process = pods.exec(pod_name(&exec.pod), &exec.command, &params).await.map_err(api_error)?;
    let _raw = if tty { Some(RawMode::enter()?) } else { None };
    if let Some(mut stdin) = process.stdin() {
        tokio::spawn(async move {
            // Ends with the input, or with the process.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    if let Some(mut sizes) = process.terminal_size() {
        let mut changes = signal(SignalKind::window_change())?;
        tokio::spawn(async move {
            loop {
                if let Some(size) = terminal_size()
                    && sizes.send(size).await.is_err()
                {
                    return;
                }
                changes.recv().await;
            }
        });
    }
    let stdout = process.stdout().map(|mut from| {
        tokio::spawn(async move {
            tokio::io::copy(&mut from, &mut tokio::io::stdout()).await?;
            tokio::io::stdout().flush().await
        })
    });
    let stderr = process.stderr().map(|mut from| {
        tokio::spawn(async move {
            tokio::io::copy(&mut from, &mut tokio::io::stderr()).await?;
            tokio::io::stderr().flush().await
        })
    });
    let status = process.take_status();
    for copy in [stdout, stderr].into_iter().flatten() {
        copy.await??;
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    exit_code(status)
}

/// The command's own exit code.
fn exit_code(status: Option<Status>) -> anyhow::Result<ExitCode> {
    let Some(status) = status else { anyhow::bail!("the connection ended before the command did") };
    if status.status.as_deref() == Some("Success") {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
    let code: Option<u8> = causes
        .filter(|c| c.reason.as_deref() == Some("ExitCode"))
        .find_map(|c| c.message.as_ref()?.parse().ok());
    match code {
        Some(code) => Ok(ExitCode::from(code)),
        None => anyhow::bail!("{}", status.message.unwrap_or_else(|| "the command failed".to_owned())),
    }
}

fn stdin() -> BorrowedFd<'static> {
    // Standard input stays open as long as the program runs.
    use std::os::fd::AsFd;
    static STDIN: std::sync::OnceLock<std::io::Stdin> = std::sync::OnceLock::new();
    STDIN.get_or_init(std::io::stdin).as_fd()
}

fn terminal_size() -> Option<TerminalSize> {
    let (width, height) = terminal_size::terminal_size_of(stdin())?;
    Some(TerminalSize { width: width.0, height: height.0 })
}

/// The terminal passes every key on, until this is dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> anyhow::Result<Self> {
        let before = termios::tcgetattr(stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(stdin(), SetArg::TCSANOW, &self.0);
    }
}
