//! A process and a client, whatever protocol is between them.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::{Result, Streams};

/// What a process's output is read in.
const CHUNK: usize = 16 * 1024;
/// Children of an ended process may hold its output open; nobody waits for more of it longer than this.
const DRAIN: Duration = Duration::from_secs(2);

/// What goes to the client.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How it ended: the last message.
    Status(Box<Status>),
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
            let _ = out.send(Message::Status(Box::new(failure(&error.to_string())))).await;
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
    let has_ended = CancellationToken::new();
    let stdout = copy(stdout, &out, &has_ended, Message::Stdout);
    let stderr = async {
        if let Some(stderr) = stderr {
            copy(stderr, &out, &has_ended, Message::Stderr).await;
        }
    };
    let exit = async {
        let code = exit.await;
        has_ended.cancel();
        code
    };
    let ended = async { tokio::join!(exit, stdout, stderr).0 };
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
    let _ = out.send(Message::Status(Box::new(status))).await;
}

/// Passes output on until it ends, or until nobody but the ended process's children can add to it.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    out: &mpsc::Sender<Message>,
    has_ended: &CancellationToken,
    message: impl Fn(Bytes) -> Message,
) {
    let mut buffer = vec![0; CHUNK];
    // Only waiting for output counts: a client may take its time to read what there is.
    let mut patience = DRAIN;
    loop {
        let since = has_ended.is_cancelled().then(Instant::now);
        let impatient = async {
            has_ended.cancelled().await;
            tokio::time::sleep(patience).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            () = impatient => return,
        };
        patience = patience.saturating_sub(since.map_or(Duration::ZERO, |since| since.elapsed()));
        let Ok(length @ 1..) = read else { return };
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

/// How a client is told how the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusForm {
    /// As an API object: since version 4 of the protocols.
    Json,
    /// As an error's text, or nothing.
    Text,
}

impl StatusForm {
    pub(super) fn payload(self, status: &Status) -> Bytes {
        match self {
            Self::Json => serde_json::to_vec(status).unwrap_or_default().into(),
            Self::Text if status.status.as_deref() == Some("Success") => Bytes::new(),
            Self::Text => status.message.clone().unwrap_or_default().into(),
        }
    }
}

/// Reads sizes of a terminal, columns and rows: `{"Width":80,"Height":24}`, one after the other.
#[derive(Debug, Default)]
pub(super) struct TerminalSizes(Vec<u8>);

impl TerminalSizes {
    /// The longest text that can still become a size.
    const LIMIT: usize = 1024;

    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<(u16, u16)> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Size {
            width: u16,
            height: u16,
        }
        self.0.extend_from_slice(bytes);
        let mut objects = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
        let sizes = objects.by_ref().map_while(Result::ok).map(|s| (s.width, s.height)).collect();
        let read = objects.byte_offset();
        self.0.drain(..read);
        if self.0.len() > Self::LIMIT {
            self.0.clear();
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sizes_may_come_in_pieces() {
        let mut sizes = TerminalSizes::default();
        assert_eq!(sizes.push(br#"{"Width":80,"Hei"#), []);
        assert_eq!(sizes.push(b"ght\":24}\n{\"Width\":1,\"Height\":2}\n"), [(80, 24), (1, 2)]);
        assert_eq!(sizes.push(br#"{"Width":3,"Height":4}"#), [(3, 4)]);
    }

    #[test]
    fn how_it_ended_is_told_in_two_ways() {
        let code = |payload: Bytes| serde_json::from_slice::<Status>(&payload).unwrap();
        assert_eq!(code(StatusForm::Json.payload(&exited(3))), exited(3));
        let text = StatusForm::Text.payload(&exited(3));
        assert_eq!(&text[..], b"command terminated with non-zero exit code: exit status 3");
        let well = Status { status: Some("Success".to_owned()), ..Status::default() };
        assert_eq!(StatusForm::Text.payload(&well), Bytes::new());
    }
}
