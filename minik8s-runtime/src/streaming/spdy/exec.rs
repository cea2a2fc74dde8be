//! Exec and attach over SPDY: one stream for each of a process's, and one for how it ended.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::connection::{Output, Stream};
use crate::runtime::{Result as RuntimeResult, Streams};
use crate::streaming::params::Params;
use crate::streaming::session::{self, Client, Message, StatusForm, TerminalSizes};

/// The versions, to be offered by their names. The fifth differs from the fourth on WebSocket only.
pub(in crate::streaming) const PROTOCOLS: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];

/// How long a client may take to open its streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that wait in each direction.
const QUEUE: usize = 16;

/// The streams of a session.
#[derive(Default)]
struct Parts {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Parts {
    /// Where the stream belongs; `None` for one of no known type.
    fn place(&mut self, stream: &Stream) -> Option<&mut Option<Stream>> {
        Some(match stream.headers.get("streamType")? {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }

    /// Waits for the streams that the request speaks of.
    async fn collect(protocol: &str, params: &Params, opened: &mut mpsc::Receiver<Stream>) -> Self {
        let tty = params.flag("tty");
        let mut parts = Self::default();
        let complete = |parts: &Self| {
            parts.error.is_some()
                && (parts.stdin.is_some() || !params.flag("stdin"))
                && (parts.stdout.is_some() || !params.flag("stdout"))
                && (parts.stderr.is_some() || tty || !params.flag("stderr"))
                && (parts.resize.is_some() || !tty || protocol == "v2.channel.k8s.io")
        };
        while !complete(&parts) {
            let Some(stream) = opened.recv().await else { break };
            match parts.place(&stream) {
                // One that is refused is reset as it is dropped.
                Some(Some(_)) | None => tracing::debug!(id = stream.id, "an unexpected stream was opened"),
                Some(free) => *free = Some(stream),
            }
        }
        parts
    }
}

/// Runs a session on the streams of a connection.
pub(in crate::streaming) async fn exec(
    protocol: &str,
    params: &Params,
    start: impl Future<Output = RuntimeResult<Streams>>,
    mut opened: mpsc::Receiver<Stream>,
) {
    let collected = tokio::time::timeout(PATIENCE, Parts::collect(protocol, params, &mut opened)).await;
    let Ok(Parts { error: Some(error), stdin, stdout, stderr, resize }) = collected else {
        tracing::debug!("a streaming client did not open its streams");
        return;
    };
    let form = match protocol {
        "v5.channel.k8s.io" | "v4.channel.k8s.io" => StatusForm::Json,
        _ => StatusForm::Text,
    };
    let (out, mut messages) = mpsc::channel(QUEUE);
    let (sizes, sizes_out) = mpsc::channel(QUEUE);
    // The server says nothing on these two, and their halves stay open until the end.
    let (stdin, _stdin) = split(stdin);
    let (mut resize, _resize) = split(resize);
    let session = session::run(start, Client { stdin, resize: sizes_out, out });
    let resizes = async {
        let mut decoder = TerminalSizes::default();
        while let Some(bytes) = resize.recv().await {
            for size in decoder.push(&bytes) {
                let _ = sizes.send(size).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let (stdout, stderr) = (stdout.map(|s| s.output), stderr.map(|s| s.output));
    let answer = async {
        while let Some(message) = messages.recv().await {
            // Output that the client does not want, or no longer, is dropped.
            match message {
                Message::Stdout(bytes) => drop(send(stdout.as_ref(), bytes).await),
                Message::Stderr(bytes) => drop(send(stderr.as_ref(), bytes).await),
                Message::Status(status) => return Some(status),
            }
        }
        None
    };
    let status = tokio::select! {
        biased;
        (status, ()) = async { tokio::join!(answer, session) } => status,
        () = resizes => None,
    };
    for output in [stdout, stderr].into_iter().flatten() {
        output.finish().await;
    }
    if let Some(status) = status {
        error.output.send(form.payload(&status)).await;
    }
    error.output.finish().await;
}

async fn send(output: Option<&Output>, bytes: Bytes) -> bool {
    match output {
        Some(output) => output.send(bytes).await,
        None => false,
    }
}

/// What a stream receives (nothing at all if there is none), and its other half.
fn split(stream: Option<Stream>) -> (mpsc::Receiver<Bytes>, Option<Output>) {
    match stream {
        Some(stream) => (stream.input, Some(stream.output)),
        None => (mpsc::channel(1).1, None),
    }
}

#[cfg(test)]
mod tests;
