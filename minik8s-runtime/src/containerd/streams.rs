//! The ends of processes: execs, and containers' own.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest,
    WaitRequest,
};
use oci_spec::runtime::{Process, Spec};
use prost_types::Any;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tonic::Code;

use super::folder::Folder;
use super::record::Stdin;
use super::rpc::{failed, unique};
use super::{Inner, log_driver};
use crate::runtime::{ContainerEvent, ContainerState, ExecSpec, Result, RuntimeError, Streams};
use crate::spec;

/// The name by which containerd knows an OCI process.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// How long a log driver may take to open a file.
const REOPEN: Duration = Duration::from_secs(5);

/// How often, and how far apart, a process's input is tried.
const STDIN_TRIES: u32 = 1000;
const STDIN_RETRY: Duration = Duration::from_millis(5);

/// How much output waits for a reader who is behind.
const PIPE: usize = 64 * 1024;

impl Inner {
    /// Runs another process in a container. It is killed if nobody waits for its end any more.
    pub(super) async fn run_exec(self: &Arc<Self>, id: &str, exec: &ExecSpec) -> Result<Streams> {
        let record = self.must_have(id).await?;
        let refused = |error: &dyn std::fmt::Display| RuntimeError::StartContainer(error.to_string());
        let oci: Spec = serde_json::from_slice(&record.spec).map_err(|error| refused(&error))?;
        let container = oci.process().clone().unwrap_or_default();
        let process = spec::render_exec(&container, exec).map_err(|error| refused(&error))?;

        let exec_id = unique("exec");
        let folder = Folder::of_exec(&self.config.state_dir, &exec_id);
        let running = Exec { inner: self.clone(), id: id.to_owned(), exec_id, folder };
        let started = match running.start(exec, &process).await {
            Ok(outputs) => {
                let ended = || outputs.wait.is_finished();
                let stdin = running.stdin(exec.stdin, !exec.tty, ended).await;
                stdin.map(|stdin| (outputs, stdin))
            }
            Err(error) => Err(error),
        };
        let (outputs, stdin) = match started {
            Ok(ends) => ends,
            Err(error) => {
                running.kill().await;
                running.clean_up().await;
                return Err(error);
            }
        };
        let resize = running.resizer();
        let (ended, exit) = oneshot::channel();
        tokio::spawn(running.keep(outputs.wait, ended));
        let exit = async { exit.await.unwrap_or_else(|_| Err(lost())) };
        Ok(Streams {
            stdin,
            stdout: Box::new(outputs.stdout),
            stderr: outputs.stderr.map(|stderr| Box::new(stderr) as Box<dyn AsyncRead + Send + Unpin>),
            resize,
            exit: Box::pin(exit),
        })
    }

    /// Connects to a container's own process, through its log driver.
    pub(super) async fn connect_streams(self: &Arc<Self>, id: &str) -> Result<Streams> {
        let record = self.must_have(id).await?;
        // Follow first, so that its end cannot be missed.
        let mut events = self.hub.follow();
        let socket = self.log_socket(id).await?;
        let (stdout, stderr) = split_output(socket);
        let own =
            Exec { inner: self.clone(), id: id.to_owned(), exec_id: String::new(), folder: self.folder(id) };
        // A terminal has no end of input: it is typed.
        let close = record.stdin == Stdin::Once && !record.terminal;
        let stdin = own.stdin(record.stdin != Stdin::None, close, || false).await?;
        let resize = own.resizer();
        let (inner, id) = (self.clone(), id.to_owned());
        let exit = async move {
            loop {
                let task = inner.task(&id).await?;
                let container = inner.container(inner.must_have(&id).await?, task.as_ref());
                if let ContainerState::Exited(exit) = container.state {
                    return Ok(exit.code);
                }
                loop {
                    match events.recv().await {
                        Some(ContainerEvent::Exited { id: other, exit }) if other == id => {
                            return Ok(exit.code);
                        }
                        Some(ContainerEvent::Exited { .. }) => {}
                        Some(ContainerEvent::Resync) => break,
                        None => return Err(lost()),
                    }
                }
            }
        };
        Ok(Streams {
            stdin,
            stdout: Box::new(stdout),
            stderr: (!record.terminal).then(|| Box::new(stderr) as Box<dyn AsyncRead + Send + Unpin>),
            resize,
            exit: Box::pin(exit),
        })
    }

    /// Has the log driver of a running container open its file anew.
    pub(super) async fn reopen_log_file(&self, id: &str) -> Result<()> {
        let mut socket = self.log_socket(id).await?;
        let asked = async {
            socket.write_all(&[log_driver::REOPEN]).await?;
            // Output of the container comes on the same way.
            while let Some((stream, _)) = frame(&mut socket).await? {
                if stream == 0 {
                    return Ok(());
                }
            }
            Err(io::ErrorKind::UnexpectedEof.into())
        };
        let answer: io::Result<()> =
            tokio::time::timeout(REOPEN, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        answer.map_err(|error| RuntimeError::Other(format!("reopen the log of container {id}: {error}")))
    }

    async fn log_socket(&self, id: &str) -> Result<UnixStream> {
        let not_running = || RuntimeError::NotFound(format!("running process of container {id}"));
        let folder = File::open(self.folder(id).path()).map_err(|_| not_running())?;
        let path = log_driver::short_path(&folder, log_driver::ATTACH);
        UnixStream::connect(path).await.map_err(|_| not_running())
    }
}

/// A process in a container; with an empty id its own one.
struct Exec {
    inner: Arc<Inner>,
    id: String,
    exec_id: String,
    folder: Folder,
}

struct Outputs {
    stdout: pipe::Receiver,
    stderr: Option<pipe::Receiver>,
    wait: Wait,
}

type Wait = tokio::task::JoinHandle<Result<i32>>;

impl Exec {
    async fn start(&self, exec: &ExecSpec, process: &Process) -> Result<Outputs> {
        let broken =
            |error: io::Error| RuntimeError::Other(format!("exec in container {}: {error}", self.id));
        let fifo = |name: &str| self.folder.make_fifo(name).map(|path| path.to_string_lossy().into_owned());
        let mut request = ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            terminal: exec.tty,
            ..ExecProcessRequest::default()
        };
        self.folder.create().map_err(broken)?;
        request.stdout = fifo(log_driver::STDOUT).map_err(broken)?;
        // Our ends are open before the shim looks for them. Nothing is read before it has opened its own: until then
        // there would seem to be nothing left to read.
        let stdout = self.folder.open_to_read(log_driver::STDOUT).map_err(broken)?;
        let mut stderr = None;
        if !exec.tty {
            request.stderr = fifo(log_driver::STDERR).map_err(broken)?;
            stderr = Some(self.folder.open_to_read(log_driver::STDERR).map_err(broken)?);
        }
        if exec.stdin {
            request.stdin = fifo(log_driver::STDIN).map_err(broken)?;
        }
        let json = serde_json::to_vec(process).map_err(|error| broken(error.into()))?;
        request.spec = Some(Any { type_url: PROCESS_TYPE.to_owned(), value: json });
        self.inner.rpc.tasks().exec(request).await.map_err(|status| self.failure(&status))?;
        let wait = self.wait();
        let request = StartRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        if let Err(status) = self.inner.rpc.tasks().start(request).await {
            wait.abort();
            return Err(self.failure(&status));
        }
        let receiver = |file: File| pipe::Receiver::from_file(file).map_err(broken);
        Ok(Outputs { stdout: receiver(stdout)?, stderr: stderr.map(receiver).transpose()?, wait })
    }

    fn failure(&self, status: &tonic::Status) -> RuntimeError {
        match status.code() {
            Code::NotFound => RuntimeError::NotFound(format!("running process of container {}", self.id)),
            Code::Unavailable => failed("exec", status),
            _ => RuntimeError::StartContainer(status.message().to_owned()),
        }
    }

    fn wait(&self) -> Wait {
        let mut tasks = self.inner.rpc.tasks();
        let request = WaitRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        tokio::spawn(async move {
            let answer = tasks.wait(request).await.map_err(|status| failed("wait for exec", &status))?;
            Ok(answer.into_inner().exit_status.cast_signed())
        })
    }

    /// The process's input; `close`: it sees the end of it when the returned writer is dropped.
    async fn stdin(
        &self,
        wanted: bool,
        close: bool,
        ended: impl Fn() -> bool,
    ) -> Result<Option<Box<dyn AsyncWrite + Send + Unpin>>> {
        if !wanted {
            return Ok(None);
        }
        let broken =
            |error: io::Error| RuntimeError::Other(format!("stdin of container {}: {error}", self.id));
        // The shim opens its end some time after it has said that the process runs, and closes it with the process.
        let mut tries = 0;
        let file = loop {
            match self.folder.open_to_write(log_driver::STDIN).map_err(broken)? {
                Some(file) => break file,
                None if ended() || tries == STDIN_TRIES => return Ok(Some(Box::new(tokio::io::sink()))),
                None => {
                    tries += 1;
                    tokio::time::sleep(STDIN_RETRY).await;
                }
            }
        };
        let pipe = pipe::Sender::from_file(file).map_err(broken)?;
        let mut tasks = self.inner.rpc.tasks();
        let request =
            CloseIoRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone(), stdin: true };
        let closer: Option<Closer> = close.then(|| {
            Box::new(move || {
                Handle::current().spawn(async move {
                    // The process may have ended, and all is closed.
                    if let Err(status) = tasks.close_io(request).await {
                        tracing::debug!(%status, "the input of a process was not closed");
                    }
                });
            }) as Closer
        });
        Ok(Some(Box::new(StdinPipe { pipe: Some(pipe), closer, runtime: Handle::current() })))
    }

    fn resizer(&self) -> mpsc::Sender<(u16, u16)> {
        let (sender, mut sizes) = mpsc::channel::<(u16, u16)>(8);
        let mut tasks = self.inner.rpc.tasks();
        let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
        tokio::spawn(async move {
            while let Some((width, height)) = sizes.recv().await {
                let request = ResizePtyRequest {
                    container_id: container_id.clone(),
                    exec_id: exec_id.clone(),
                    width: width.into(),
                    height: height.into(),
                };
                if let Err(status) = tasks.resize_pty(request).await {
                    tracing::debug!(container = %container_id, %status, "a terminal was not resized");
                }
            }
        });
        sender
    }

    /// Waits for its end, tells it, and leaves nothing behind.
    async fn keep(self, mut wait: Wait, mut ended: oneshot::Sender<Result<i32>>) {
        let code = tokio::select! {
            biased;
            code = &mut wait => Some(code),
            // Nobody waits for it any more.
            () = ended.closed() => None,
        };
        match code {
            Some(code) => {
                let _ = ended.send(code.unwrap_or_else(|_| Err(lost())));
            }
            None => {
                self.kill().await;
                let _ = wait.await;
            }
        }
        self.clean_up().await;
    }

    /// Kills it, if it has not ended.
    async fn kill(&self) {
        let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
        let request = KillRequest { container_id, exec_id, signal: 9, all: false };
        match self.inner.rpc.tasks().kill(request).await {
            Err(status) if status.code() != Code::NotFound => {
                tracing::debug!(container = %self.id, %status, "an exec was not killed");
            }
            _ => {}
        }
    }

    async fn clean_up(&self) {
        let request = DeleteProcessRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        match self.inner.rpc.tasks().delete_process(request).await {
            Err(status) if status.code() != Code::NotFound => {
                tracing::debug!(container = %self.id, %status, "an ended exec was not deleted");
            }
            _ => {}
        }
        if let Err(error) = self.folder.remove() {
            tracing::warn!(container = %self.id, %error, "the folder of an exec was not removed");
        }
    }
}

fn lost() -> RuntimeError {
    RuntimeError::Unavailable("the connection to containerd was closed".to_owned())
}

type Closer = Box<dyn FnOnce() + Send>;

/// A process's input. The shim holds it open as well, so that closing it takes a word to the shim too.
struct StdinPipe {
    pipe: Option<pipe::Sender>,
    closer: Option<Closer>,
    runtime: Handle,
}

impl StdinPipe {
    fn close(&mut self) {
        self.pipe = None;
        if let Some(close) = self.closer.take() {
            let _in_runtime = self.runtime.enter();
            close();
        }
    }

    fn open(&mut self) -> io::Result<Pin<&mut pipe::Sender>> {
        self.pipe.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for StdinPipe {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncWrite for StdinPipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.open() {
            Ok(pipe) => pipe.poll_write(cx, bytes),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

/// One frame from a log driver; `None` at its end.
async fn frame(socket: &mut UnixStream) -> io::Result<Option<(u8, Vec<u8>)>> {
    let stream = match socket.read_u8().await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; socket.read_u32().await? as usize];
    socket.read_exact(&mut bytes).await?;
    Ok(Some((stream, bytes)))
}

/// Parts the two outputs that come over one socket. A reader of one who does not read the other holds up both, as with
/// two pipes of a process.
fn split_output(mut socket: UnixStream) -> (Output, Output) {
    let (mut out, stdout) = tokio::io::duplex(PIPE);
    let (mut err, stderr) = tokio::io::duplex(PIPE);
    let pump = tokio::spawn(async move {
        while let Ok(Some((stream, bytes))) = frame(&mut socket).await {
            let to = if stream == 2 { &mut err } else { &mut out };
            // A reader that has gone does not want the rest.
            let _ = to.write_all(&bytes).await;
        }
    });
    let pump = Arc::new(Pump(pump));
    (Output { pipe: stdout, _pump: pump.clone() }, Output { pipe: stderr, _pump: pump })
}

/// Ends when nobody reads any more.
struct Pump(tokio::task::JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Output {
    pipe: tokio::io::DuplexStream,
    _pump: Arc<Pump>,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}
