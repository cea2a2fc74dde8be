//! Connections to what listens inside a pod.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};

use super::Target;

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

impl Target {
    /// Connects to the port on the pod's `localhost`, and where that is the node's, on the pod's addresses.
    ///
    /// # Errors
    /// What the first address says.
    pub(super) async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let further = self.addresses.iter().filter(|_| self.netns.is_none());
        let mut first = None;
        for address in local.iter().chain(further) {
            let address = SocketAddr::new(*address, port);
            match self.connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => {
                    let said = || {
                        io::Error::new(
                            error.kind(),
                            format!("failed to connect to {address} inside the pod: {error}"),
                        )
                    };
                    first.get_or_insert_with(said);
                }
            }
        }
        Err(first.expect("there are addresses"))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match &self.netns {
            Some(netns) => socket_in(netns, address).await?,
            None => socket(address)?,
        };
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(PATIENCE, socket.connect(address)).await.map_err(late)?
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// A socket belongs to the network namespace of the thread that makes it, for good.
async fn socket_in(netns: &Path, address: SocketAddr) -> io::Result<TcpSocket> {
    let netns = File::open(netns)?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = move || {
        let made = setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // The caller may have stopped waiting.
        let _ = sender.send(made.and_then(|()| socket(address)));
    };
    // A thread of its own, which ends in the pod's namespace: none that others use may be left there.
    std::thread::Builder::new().name("port-forward".to_owned()).spawn(work)?;
    receiver.await.map_err(|_| io::Error::other("the thread died"))?
}
