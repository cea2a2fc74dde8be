//! The process between a container's output and its log file.
//!
//! There is one for each container, started by containerd's shim (or, for a container that has standard input but no
//! terminal, by the agent: there the shim only offers FIFOs). It outlives the agent, writes the log in CRI format, and
//! copies the output to whoever is attached. It is a few hundred kilobytes of blocking code: a node has many.
//!
//! Its one argument is the container's folder, where it finds
//! - `log`, a symbolic link to the log file;
//! - `stdout` and `stderr`, the FIFOs, if the shim has not given it pipes;
//! - `attach`, the socket that it makes. A client that connects gets frames: a byte for the stream (1 or 2), four bytes
//!   for the length (big endian), the bytes. A client that sends [`REOPEN`] has the log file opened anew and
//!   gets an empty frame of stream 0 when that is done. One that does not keep up is cut off: output waits for nobody.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{setsockopt, sockopt};

mod format;
#[cfg(test)]
mod tests;

use format::Lines;

/// The word by which a program hands over to [`run`]: `PROGRAM log-driver FOLDER`.
pub const ARGUMENT: &str = "log-driver";

/// What a client of the socket sends to have the log file opened anew.
pub const REOPEN: u8 = b'R';

/// The names in a container's folder.
pub(crate) const LOG: &str = "log";
pub(crate) const STDIN: &str = "stdin";
pub(crate) const STDOUT: &str = "stdout";
pub(crate) const STDERR: &str = "stderr";
pub(crate) const ATTACH: &str = "attach";

/// How much unread output a client may leave lying before it is cut off.
const CLIENT_BUFFER: usize = 256 * 1024;

/// Copies a container's output until it ends. `arguments` are those after [`ARGUMENT`]: the container's folder.
///
/// # Errors
/// If the arguments, the folder or its files are not as they must be. Once it runs it does not fail: output that cannot
/// be written is dropped, since a container must not stand still because a disk is full.
pub fn run<I: IntoIterator<Item = S>, S: Into<PathBuf>>(arguments: I) -> io::Result<()> {
    let mut arguments = arguments.into_iter();
    let (Some(folder), None) = (arguments.next().map(Into::into), arguments.next()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "want one argument: the container's folder"));
    };
    // Signals come as input, so that one that ends us cannot lose what is still in the pipes.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGUSR1);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;

    // The socket comes first: who sees the other end of our inputs open may connect.
    let mut driver = Driver::new(&folder)?;
    let inputs = Inputs::open(&folder)?;
    inputs.ready()?;
    driver.copy(inputs, &signals)
}

/// Where the output comes from.
struct Inputs {
    stdout: File,
    stderr: File,
    from_shim: bool,
}

impl Inputs {
    /// The FIFOs of the folder, or the pipes that the shim gives us as descriptors 3 and 4.
    fn open(folder: &Path) -> io::Result<Self> {
        let open =
            |path: &Path| OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        match open(&folder.join(STDOUT)) {
            Ok(stdout) => Ok(Self { stdout, stderr: open(&folder.join(STDERR))?, from_shim: false }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let inherited = |number: i32| open(Path::new(&format!("/proc/self/fd/{number}")));
                Ok(Self { stdout: inherited(3)?, stderr: inherited(4)?, from_shim: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the shim, which waits at the other end of descriptor 5, that the container may start.
    fn ready(&self) -> io::Result<()> {
        if self.from_shim {
            OpenOptions::new().write(true).open("/proc/self/fd/5")?.write_all(&[0])?;
        }
        Ok(())
    }
}

struct Driver {
    log: Log,
    listener: UnixListener,
    clients: Vec<UnixStream>,
    outputs: [Lines; 2],
    buffer: Box<[u8]>,
    text: Vec<u8>,
}

impl Driver {
    fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            log: Log::open(folder.join(LOG))?,
            listener: listen(folder)?,
            clients: Vec::new(),
            outputs: [Lines::new("stdout"), Lines::new("stderr")],
            buffer: vec![0; format::MAX_LINE].into(),
            text: Vec::new(),
        })
    }

    fn copy(&mut self, inputs: Inputs, signals: &SignalFd) -> io::Result<()> {
        let from_shim = inputs.from_shim;
        let mut inputs = [Some(inputs.stdout), Some(inputs.stderr)];
        // Told to end: take what there is, and do not wait for more.
        let mut ending = false;
        while inputs.iter().any(Option::is_some) {
            let mut sources: Vec<(Source, PollFd<'_>)> = Vec::with_capacity(4 + self.clients.len());
            let readable = PollFlags::POLLIN;
            for (at, input) in inputs.iter().enumerate() {
                sources.extend(
                    input.as_ref().map(|file| (Source::Output(at), PollFd::new(file.as_fd(), readable))),
                );
            }
            if !ending {
                sources.push((Source::Signals, PollFd::new(signals.as_fd(), readable)));
                sources.push((Source::Listener, PollFd::new(self.listener.as_fd(), readable)));
                for (at, client) in self.clients.iter().enumerate() {
                    sources.push((Source::Client(at), PollFd::new(client.as_fd(), readable)));
                }
            }
            let ready = wait(&mut sources, ending)?;
            if ending && ready.is_empty() {
                break;
            }
            // Clients from the last to the first, so that removing one leaves the numbers of the others alone.
            for source in ready.into_iter().rev() {
                match source {
                    Source::Output(at) => {
                        if !self.read(at, &mut inputs[at]) {
                            inputs[at] = None;
                            // The shim keeps its pipes open as long as the container lives, and forgets to close
                            // the second one of a terminal.
                            ending |= from_shim && at == 0;
                        }
                    }
                    Source::Signals => ending |= self.signalled(signals),
                    Source::Listener => self.accept(),
                    Source::Client(at) => self.hear(at),
                }
            }
        }
        for lines in &mut self.outputs {
            lines.finish(&now(), &mut self.text);
        }
        self.log.write(&mut self.text);
        Ok(())
    }

    /// Copies one buffer of output. Says whether there may be more.
    fn read(&mut self, at: usize, input: &mut Option<File>) -> bool {
        let Some(file) = input else { return false };
        let count = match file.read(&mut self.buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        let bytes = &self.buffer[..count];
        self.outputs[at].push(bytes, &now(), &mut self.text);
        self.log.write(&mut self.text);
        if !self.clients.is_empty() {
            let stream = if at == 0 { 1 } else { 2 };
            self.clients.retain_mut(|client| send(client, stream, bytes).is_ok());
        }
        true
    }

    /// Takes the signals in. Says whether we are to end.
    fn signalled(&mut self, signals: &SignalFd) -> bool {
        let mut ending = false;
        while let Ok(Some(signal)) = signals.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGUSR1) => self.log.reopen(),
                _ => ending = true,
            }
        }
        ending
    }

    fn accept(&mut self) {
        while let Ok((client, _)) = self.listener.accept() {
            let prepared = client.set_nonblocking(true).is_ok()
                && setsockopt(&client, sockopt::SndBuf, &CLIENT_BUFFER).is_ok();
            if prepared {
                self.clients.push(client);
            }
        }
    }

    /// A client says something, or has gone.
    fn hear(&mut self, at: usize) {
        let mut word = [0];
        let stays = match self.clients[at].read(&mut word) {
            Ok(0) => false,
            Ok(_) if word[0] == REOPEN => {
                self.log.reopen();
                send(&mut self.clients[at], 0, &[]).is_ok()
            }
            Ok(_) => true,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        if !stays {
            self.clients.remove(at);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Output(usize),
    Signals,
    Listener,
    Client(usize),
}

/// The sources that have something to say (or have ended), in their order; none at once when `ending`.
fn wait(sources: &mut [(Source, PollFd<'_>)], ending: bool) -> io::Result<Vec<Source>> {
    let timeout = if ending { PollTimeout::ZERO } else { PollTimeout::NONE };
    let mut fds: Vec<PollFd<'_>> = sources.iter().map(|(_, fd)| fd.clone()).collect();
    loop {
        match poll(&mut fds, timeout) {
            Ok(_) => break,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let ready = sources.iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(true));
    Ok(ready.map(|((source, _), _)| *source).collect())
}

/// One frame, whole or not at all.
fn send(client: &mut UnixStream, stream: u8, bytes: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.push(stream);
    frame.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(bytes);
    match client.write(&frame)? {
        written if written == frame.len() => Ok(()),
        _ => Err(io::Error::new(ErrorKind::WouldBlock, "the client does not keep up")),
    }
}

/// The socket of this folder. Its path may be longer than an address can be, so it goes through the folder's descriptor.
fn listen(folder: &Path) -> io::Result<UnixListener> {
    let path = folder.join(ATTACH);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let dir = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(folder)?;
    let listener = UnixListener::bind(short_path(&dir, ATTACH))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A path to a file of an open folder that is short enough for a socket's address.
pub(crate) fn short_path(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// The log file behind a symbolic link.
struct Log {
    link: PathBuf,
    file: File,
    inode: (u64, u64),
}

impl Log {
    fn open(link: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&link)?;
        let inode = inode(&file.metadata()?);
        Ok(Self { link, file, inode })
    }

    fn reopen(&mut self) {
        // Where that fails, the old file is better than none.
        if let Ok(new) = Self::open(self.link.clone()) {
            *self = new;
        }
    }

    /// Writes and empties `text`. Somebody may have moved the file away without a word.
    fn write(&mut self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let current = fs::metadata(&self.link).ok();
        if current.as_ref().map(inode) != Some(self.inode) {
            self.reopen();
        }
        // A full disk loses output; a container that stands still would be worse.
        let _ = self.file.write_all(text);
        text.clear();
        text.shrink_to(2 * format::MAX_LINE);
    }
}

fn inode(meta: &fs::Metadata) -> (u64, u64) {
    (meta.st_dev(), meta.st_ino())
}
