//! What runs in the network of a pod: this test's own program, as server or client.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use minik8s_tests::{Cluster, Program};
use tokio::process::Child;

/// The first argument of a probe.
pub(super) const WORD: &str = "probe";
const PORT: u16 = 9000;
/// Connections to one server at once.
const CONNECTIONS: usize = 100;
/// Bytes there and back on each.
const TRANSFER: usize = 64 * 1024;
/// Bytes of datagrams: small, as large as a packet may be, and in several packets.
const DATAGRAMS: [usize; 3] = [32, 1472, 8000];
/// How long one answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// `serve`, or `ask ADDRESS…`.
pub(super) fn main(words: &[String]) -> ExitCode {
    let done = match words {
        [word] if word == "serve" => serve(),
        [word, addresses @ ..] if word == "ask" => addresses.iter().try_for_each(|address| ask(address)),
        _ => Err(anyhow::anyhow!("no such probe: {words:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A probe in the network of the pod with that uid, on a node.
pub(super) fn in_pod(cluster: &Cluster, node: &str, uid: &str, words: &[&str]) -> anyhow::Result<Program> {
    let own = std::env::current_exe()?;
    let own = own.to_str().context("a path in UTF-8")?;
    let namespace = format!("--net=/run/netns/{uid}");
    Ok(cluster.on(node, &[&["nsenter", &namespace, "--", own, WORD], words].concat()))
}

/// A server in the network of a pod, until the answer is dropped.
pub(super) async fn server(cluster: &Cluster, node: &str, uid: &str) -> anyhow::Result<Child> {
    use tokio::io::AsyncReadExt;
    let mut server = in_pod(cluster, node, uid, &["serve"])?.input("").start()?;
    // It says when it listens.
    let mut said = [0; 6];
    let out = server.stdout.as_mut().context("its output")?;
    tokio::time::timeout(PATIENCE, out.read_exact(&mut said)).await??;
    ensure!(said == *b"ready\n", "the server says {said:?}");
    Ok(server)
}

/// Gives back what it is sent, by TCP and by UDP, until its input ends.
fn serve() -> anyhow::Result<()> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let (tcp, udp) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                std::io::copy(&mut from, &mut to)
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], from);
        }
    });
    std::io::stdout().write_all(b"ready\n")?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Asks one server in all ways.
fn ask(address: &str) -> anyhow::Result<()> {
    let address: IpAddr = address.parse().with_context(|| format!("{address:?} is no address"))?;
    let server = SocketAddr::new(address, PORT);
    let talks: Vec<_> = (0..CONNECTIONS).map(|n| std::thread::spawn(move || talk(server, n))).collect();
    for talk in talks {
        let done = talk.join().map_err(|_| anyhow::anyhow!("a connection panicked"))?;
        done.with_context(|| format!("TCP to {server}"))?;
    }
    for length in DATAGRAMS {
        echo(server, length).with_context(|| format!("a datagram of {length} bytes to {server}"))?;
    }
    Ok(())
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + seed * 7) % 251).unwrap_or(0)).collect()
}

fn talk(server: SocketAddr, number: usize) -> anyhow::Result<()> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent = bytes(TRANSFER, number);
    let mut got = Vec::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let sending = scope.spawn(|| {
            (&stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        (&stream).read_to_end(&mut got)?;
        sending.join().map_err(|_| anyhow::anyhow!("sending panicked"))??;
        Ok(())
    })?;
    ensure!(got == sent, "sent {} bytes and got {} others", sent.len(), got.len());
    Ok(())
}

fn echo(server: SocketAddr, length: usize) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (sent, mut got) = (bytes(length, 1), vec![0; 65536]);
    let deadline = Instant::now() + PATIENCE;
    // Datagrams may be lost.
    while Instant::now() < deadline {
        socket.send(&sent)?;
        match socket.recv(&mut got) {
            Ok(back) => {
                ensure!(got[..back] == sent, "{back} bytes came back, or others");
                return Ok(());
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("nothing came back")
}
