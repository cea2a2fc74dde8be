//! Port-forward: bytes between a client and a port of a pod, whatever protocol is between them.

mod dial;
mod streams;

use std::net::IpAddr;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Refusal;
use super::params::Params;
use crate::agent::PodInfo;
pub(super) use streams::{PROTOCOL, run};

/// What is read at once.
const CHUNK: usize = 32 * 1024;

/// Where what a pod says goes.
pub(super) trait Sink: Sync {
    /// Passes the bytes on; `false` when the client does not want any more.
    fn send(&self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

/// A pod whose ports can be reached.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pod: String,
    uid: String,
    /// Where `localhost` is the pod; `None`: here.
    netns: Option<PathBuf>,
    /// The pod's own, for what does not listen on `localhost`.
    addresses: Vec<IpAddr>,
}

impl Target {
    /// # Errors
    /// The pod has no network yet.
    pub(super) fn new(info: &PodInfo) -> Result<Self, Refusal> {
        let spec = info.pod.as_ref().and_then(|p| p.spec.as_ref());
        let on_host = spec.is_some_and(|s| s.host_network == Some(true));
        if info.netns.is_none() && !on_host {
            let message = format!("unable to forward port because pod {} has no network yet", info.name);
            return Err(Refusal::bad_request(message));
        }
        Ok(Self {
            pod: format!("{}_{}", info.name, info.namespace),
            uid: info.uid.clone(),
            netns: info.netns.clone().filter(|_| !on_host),
            addresses: info.addresses.clone(),
        })
    }

    /// Carries bytes between a client and the port until the pod's side ends; what the client sends may end before.
    ///
    /// # Errors
    /// Words for the client.
    pub(super) async fn forward(
        &self,
        port: u16,
        mut input: mpsc::Receiver<Bytes>,
        output: &impl Sink,
    ) -> Result<(), String> {
        let said = |error: std::io::Error| {
            format!("error forwarding port {port} to pod {}, uid {}: {error}", self.pod, self.uid)
        };
        let (mut read, mut write) = self.dial(port).await.map_err(said)?.into_split();
        let to_pod = async {
            while let Some(bytes) = input.recv().await {
                // Reading says what is wrong.
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = write.shutdown().await;
            std::future::pending::<()>().await;
        };
        let to_client = async {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(CHUNK);
                match read.read_buf(&mut buffer).await {
                    Ok(0) => return Ok(()),
                    Ok(_) if output.send(buffer.split().freeze()).await => {}
                    Ok(_) => return Ok(()),
                    // Programs end connections in this way, too.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(said(error)),
                }
            }
        };
        tokio::select! {
            () = to_pod => Ok(()),
            done = to_client => done,
        }
    }
}

/// The ports that a WebSocket client names: `ports=80&ports=443` or `ports=80,443`.
pub(super) fn ports(params: &Params) -> Result<Vec<u16>, Refusal> {
    let given: Vec<String> = [params.all("ports"), params.all("port")].concat();
    let ports = given.iter().flat_map(|list| list.split(',')).map(port);
    let ports: Vec<u16> = ports.collect::<Result<_, _>>().map_err(Refusal::bad_request)?;
    if ports.is_empty() {
        return Err(Refusal::bad_request("query parameter \"ports\" is required"));
    }
    Ok(ports)
}

/// # Errors
/// Words for the client.
fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(error) => Err(format!("unable to parse {text:?} as a port: {error}")),
    }
}

#[cfg(test)]
mod tests;
