//! Containers and images by containerd's native API.
//!
//! A container is an ordinary task of containerd: it does not notice when the agent is killed, and an agent that starts
//! again finds it by its labels. What containerd does not keep (when a container started, how it ended, the FIFOs and
//! the socket of its log driver) is in a folder of its own below [`Config::state_dir`].
//!
//! Numbers come from the control groups themselves ([`crate::cgroup`]): that takes microseconds, where asking containerd
//! takes a call through the container's shim.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::cgroup::Cgroups;
use crate::runtime::{Result, RuntimeError};
use crate::spec::CapabilitySet;

mod content;
mod cri;
mod events;
mod folder;
mod images;
mod import;
mod lifecycle;
mod locks;
pub mod log_driver;
mod manifest;
mod node;
mod record;
pub mod reference;
mod rootfs;
mod rpc;
mod streams;
mod task;
mod unpack;

use rpc::Rpc;

/// How to use a containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// containerd's namespace for our containers. Images can be pulled only in `k8s.io`, which is the default.
    pub namespace: String,
    /// What makes the filesystems of containers. Default: `overlayfs`.
    pub snapshotter: String,
    /// Where we keep what containerd does not: it must survive a restart of the node.
    pub state_dir: PathBuf,
    /// The program that hands over to [`log_driver::run`] when its first argument is [`log_driver::ARGUMENT`]. An
    /// absolute path.
    pub log_program: PathBuf,
}

impl Config {
    /// The defaults, with these two paths.
    pub fn new(state_dir: impl Into<PathBuf>, log_program: impl Into<PathBuf>) -> Self {
        Self {
            namespace: "k8s.io".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            state_dir: state_dir.into(),
            log_program: log_program.into(),
        }
    }
}

/// A connection to containerd: a [`ContainerRuntime`](crate::ContainerRuntime) and an
/// [`ImageStore`](crate::ImageStore). Dropping it ends nothing but the connection.
#[derive(Debug)]
pub struct Containerd {
    inner: Arc<Inner>,
    watcher: JoinHandle<()>,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// What all parts share.
#[derive(Debug)]
pub(crate) struct Inner {
    rpc: Rpc,
    config: Config,
    cgroups: Cgroups,
    capabilities: CapabilitySet,
    seccomp: bool,
    min_oom_score_adj: i32,
    boot: String,
    hub: events::Hub,
    deleting: locks::Locks,
    known: images::Known,
}

impl Containerd {
    /// Connects to containerd's socket, clears away what removed containers left behind, and begins to follow events.
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] if nobody answers there; [`RuntimeError::Other`] if this node lacks something.
    pub async fn connect(socket: impl Into<PathBuf>, config: Config) -> Result<Self> {
        let socket = socket.into();
        let unavailable = |error: &dyn std::fmt::Display| {
            RuntimeError::Unavailable(format!("containerd at {}: {error}", socket.display()))
        };
        let channel = containerd_client::connect(&socket).await.map_err(|error| unavailable(&error))?;
        let rpc = Rpc::new(channel, &config.namespace)?;
        rpc.ensure_namespace().await?;
        let lacking = |error: std::io::Error| RuntimeError::Other(format!("this node: {error}"));
        std::fs::create_dir_all(&config.state_dir).map_err(lacking)?;
        let (capabilities, seccomp) = node::abilities().map_err(lacking)?;
        let min_oom_score_adj = node::min_oom_score_adj(capabilities).map_err(lacking)?;
        if min_oom_score_adj > -1000 {
            tracing::warn!(min_oom_score_adj, "this node does not allow lower values of oom_score_adj");
        }
        let inner = Arc::new(Inner {
            rpc,
            config,
            cgroups: Cgroups::detect().map_err(lacking)?,
            capabilities,
            seccomp,
            min_oom_score_adj,
            boot: node::boot_id().map_err(lacking)?,
            hub: events::Hub::default(),
            deleting: locks::Locks::default(),
            known: images::Known::default(),
        });
        inner.sweep().await?;
        let watcher = tokio::spawn(events::watch(inner.clone()));
        Ok(Self { inner, watcher })
    }

    /// The control groups of this node, for limits of whole pods.
    pub fn cgroups(&self) -> &Cgroups {
        &self.inner.cgroups
    }
}

impl Inner {
    /// Removes the folders of containers that are gone, and those of execs: who ran them is gone too.
    async fn sweep(&self) -> Result<()> {
        let folders = folder::Folder::containers(&self.config.state_dir)
            .map_err(|error| RuntimeError::Other(format!("{}: {error}", self.config.state_dir.display())))?;
        let present: BTreeSet<String> = self.records().await?.into_iter().map(|record| record.id).collect();
        for id in folders.into_iter().filter(|id| !present.contains(id)) {
            if let Err(error) = self.folder(&id).remove() {
                tracing::warn!(container = %id, %error, "what it left behind was not removed");
            }
        }
        match std::fs::remove_dir_all(self.config.state_dir.join("exec")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "what earlier execs left behind was not removed");
            }
            _ => {}
        }
        Ok(())
    }
}
