//! A process and a client, whatever protocol is between them.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::runtime::{Result, Streams};

/// What a process's output is read in.
const CHUNK: usize = 16 * 1024;
/// Children of an ended process may hold its output open; nobody waits for them longer than this.
const DRAIN: Duration = Duration::from_secs(2);

/// What goes to the client.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How it ended: the last message.
    Status(Status),
}

/// The client's side.
pub(super) struct Client {
    /// Its input; ends when the client closes it.
    pub(super) stdin: mpsc::Receiver<Bytes>,
    /// Sizes of its terminal: columns, rows.
    pub(super) resize: mpsc::Receiver<(u16, u16)>,
    /// What it is told.
    pub(super) out: mpsc::Sender<Message>,
}

/// Starts the process and carries bytes until it has ended or the client is gone.
pub(super) async fn run(start: impl Future<Output = Result<Streams>>, client: Client) {
    let Client { mut stdin, mut resize, out } = client;
    let streams = match start.await {
        Ok(streams) => streams,
        Err(error) => {
            // Nobody is left to be told if this fails.
            let _ = out.send(Message::Status(failure(&error.to_string()))).await;
            return;
        }
    };
    let Streams { stdin: mut input, stdout, stderr, resize: sizes, exit } = streams;
    let feed = async {
        while let Some(bytes) = stdin.recv().await {
            let Some(input) = &mut input else { continue };
            if input.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The process sees the end of its input.
        if let Some(mut input) = input.take() {
            let _ = input.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let resizes = async {
        while let Some(size) = resize.recv().await {
            let _ = sizes.send(size).await;
        }
        std::future::pending::<()>().await;
    };
    let stdout = copy(stdout, &out, Message::Stdout);
    let stderr = async {
        if let Some(stderr) = stderr {
            copy(stderr, &out, Message::Stderr).await;
        }
    };
    let output = async { tokio::join!(stdout, stderr) };
    let ended = async {
        let mut output = std::pin::pin!(output);
        let mut exit = exit;
        tokio::select! {
            biased;
            code = &mut exit => {
                let _ = tokio::time::timeout(DRAIN, output).await;
                code
            }
            _ = &mut output => exit.await,
        }
    };
    let code = tokio::select! {
        biased;
        () = feed => return,
        () = resizes => return,
        () = out.closed() => return,
        code = ended => code,
    };
    let status = match code {
        Ok(0) => Status { status: Some("Success".to_owned()), ..Status::default() },
        Ok(code) => exited(code),
        Err(error) => failure(&error.to_string()),
    };
    let _ = out.send(Message::Status(status)).await;
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    out: &mpsc::Sender<Message>,
    message: impl Fn(Bytes) -> Message,
) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if out.send(message(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
            return;
        }
    }
}

/// The status of a command that ended with a code other than 0.
pub(super) fn exited(code: i32) -> Status {
    let message = format!("command terminated with non-zero exit code: exit status {code}");
    Status {
        status: Some("Failure".to_owned()),
        reason: Some("NonZeroExitCode".to_owned()),
        details: Some(StatusDetails {
            causes: Some(vec![StatusCause {
                reason: Some("ExitCode".to_owned()),
                message: Some(code.to_string()),
                field: None,
            }]),
            ..StatusDetails::default()
        }),
        message: Some(message),
        ..Status::default()
    }
}

/// The status of a command that did not run.
pub(super) fn failure(message: &str) -> Status {
    Status {
        status: Some("Failure".to_owned()),
        reason: Some("InternalError".to_owned()),
        code: Some(500),
        message: Some(message.to_owned()),
        ..Status::default()
    }
}
