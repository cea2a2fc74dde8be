//! The commands of a user.

mod apply;
mod delete;
mod describe;
mod exec;
mod get;
mod logs;
mod manifests;
mod nodes;
mod resources;
mod session;
mod tabulate;
mod token;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::{Args, Command, Connection};
pub(crate) use session::{Session, unreachable};

/// Runs one command.
pub async fn run(connection: Connection, command: Command) -> anyhow::Result<ExitCode> {
    if let Command::Completion { shell } = command {
        clap_complete::generate(shell, &mut Args::command(), "minik8s", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    let session = Session::connect(&connection).await?;
    match command {
        Command::Apply(files) => apply::apply(&session, &files).await,
        Command::Create(files) => apply::create(&session, &files).await,
        Command::Get(get) => get::run(&session, &get).await.map(|()| ExitCode::SUCCESS),
        Command::Describe(describe) => describe::run(&session, &describe).await.map(|()| ExitCode::SUCCESS),
        Command::Delete(delete) => delete::run(&session, &delete).await,
        Command::Logs(logs) => logs::run(&session, &logs).await.map(|()| ExitCode::SUCCESS),
        Command::Exec(exec) => exec::run(&session, &exec).await,
        Command::Token(token) => token::run(&session, &token).await.map(|()| ExitCode::SUCCESS),
        Command::Version => version(&session).await.map(|()| ExitCode::SUCCESS),
        Command::Completion { .. }
        | Command::Kubeconfig(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Server(_)
        | Command::Node(_)
        | Command::Up(_) => unreachable!("run elsewhere"),
    }
}

async fn version(session: &Session) -> anyhow::Result<()> {
    print(&format!("minik8s {}\n", env!("CARGO_PKG_VERSION")))?;
    let server = session.kube().apiserver_version().await.map_err(session::unreachable)?;
    print(&format!("server  {}\n", server.git_version))
}

/// Writes to standard output. A reader that has gone away ends the program quietly, as is usual.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Writes a note to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes what went wrong to standard error.
pub fn print_error(error: &anyhow::Error) {
    let head = match error.downcast_ref::<minik8s_reconcile::ApiError>() {
        Some(api) if !api.reason().is_empty() => format!("error from server ({})", api.reason()),
        _ => "error".to_owned(),
    };
    if std::io::stderr().is_terminal() {
        note(&format!("\x1b[31m{head}:\x1b[0m {error:#}"));
    } else {
        note(&format!("{head}: {error:#}"));
    }
}
