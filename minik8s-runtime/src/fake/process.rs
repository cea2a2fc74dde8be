//! The pipes of a [`Fake`](super::Fake)'s processes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use super::{ExecResult, Output};
use crate::runtime::{ExecSpec, RuntimeError, Streams};

/// What fits between two ends of a pipe, as on Linux.
const PIPE: usize = 64 * 1024;

/// The write end of a pipe that says when it has been closed.
struct Stdin {
    pipe: DuplexStream,
    _closed: oneshot::Sender<()>,
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The ends of a command that does what `result` says.
pub(super) fn run(spec: &ExecSpec, result: ExecResult) -> Streams {
    let ExecResult { mut stdout, stderr, echo, code } = result;
    let mut errors = None;
    if spec.tty {
        stdout.extend(stderr);
    } else {
        errors = Some(Box::new(io::Cursor::new(stderr)) as Box<dyn AsyncRead + Send + Unpin>);
    }
    let (resize, sizes) = mpsc::channel(8);
    let before = io::Cursor::new(stdout);
    let (stdin, output, closed) = if spec.stdin {
        let (near, far) = tokio::io::duplex(PIPE);
        let (sender, closed) = oneshot::channel();
        let stdin: Box<dyn AsyncWrite + Send + Unpin> = Box::new(Stdin { pipe: near, _closed: sender });
        let output: Box<dyn AsyncRead + Send + Unpin> = if echo {
            Box::new(tokio::io::AsyncReadExt::chain(before, far))
        } else {
            // Nobody reads its input: keep the pipe open, so that writing to it is no error.
            Box::new(KeepOpen { inner: before, _other: far })
        };
        (Some(stdin), output, echo.then_some(closed))
    } else {
        (None, Box::new(before) as Box<dyn AsyncRead + Send + Unpin>, None)
    };
    let exit = async move {
        let _sizes = sizes;
        if let Some(closed) = closed {
            // An error is how a dropped sender shows.
            let _ = closed.await;
        }
        Ok(code)
    };
    Streams { stdin, stdout: output, stderr: errors, resize, exit: Box::pin(exit) }
}

struct KeepOpen<R> {
    inner: R,
    _other: DuplexStream,
}

impl<R: AsyncRead + Unpin> AsyncRead for KeepOpen<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// The ends of a running container's own process, fed from `output` until that ends with the process.
pub(super) fn attach(
    tty: bool,
    stdin: bool,
    mut output: mpsc::UnboundedReceiver<(Output, Vec<u8>)>,
    code: impl Future<Output = Result<i32, RuntimeError>> + Send + 'static,
) -> Streams {
    let (mut out, stdout) = tokio::io::duplex(PIPE);
    let (mut err, stderr) = tokio::io::duplex(PIPE);
    let (resize, sizes) = mpsc::channel(8);
    let (input, typed) = tokio::io::duplex(PIPE);
    let pump = async move {
        let _held = (sizes, typed);
        while let Some((which, bytes)) = output.recv().await {
            let to = if tty || which == Output::Stdout { &mut out } else { &mut err };
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    let pump = tokio::spawn(pump);
    let exit = async move {
        // The pump ends when the process does or nobody listens any more; it cannot fail.
        let _ = pump.await;
        code.await
    };
    Streams {
        stdin: stdin.then(|| Box::new(input) as Box<dyn AsyncWrite + Send + Unpin>),
        stdout: Box::new(stdout),
        stderr: (!tty).then(|| Box::new(stderr) as Box<dyn AsyncRead + Send + Unpin>),
        resize,
        exit: Box::pin(exit),
    }
}
