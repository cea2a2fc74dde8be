//! The network of one node's pods, made by plugins of others.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::chain::{Attach, Chain};
use super::error::{CniError, code};
use crate::bridge::Attachment;
use crate::rtnl::Rtnl;
use crate::{Error, netns};

/// The pod's interface.
const INTERFACE: &str = "eth0";

/// A pod to be put on the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What plugins are told that declare to be capable of it, such as `portMappings`.
    pub capabilities: Map<String, Value>,
}

/// How a network of plugins is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainConfig {
    /// Where its configuration is. Looked at anew for every pod.
    pub conf_dir: PathBuf,
    /// Where the programs are. Default: [`super::chain::BIN_DIRS`].
    pub bin_dirs: Vec<PathBuf>,
    /// Where is noted who is on it. Must survive a restart.
    pub state_dir: PathBuf,
    /// Where namespaces are named. Default: `/run/netns`.
    pub netns_dir: PathBuf,
}

impl ChainConfig {
    /// The defaults, with these directories.
    pub fn new(conf_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        let (conf_dir, state_dir) = (conf_dir.into(), state_dir.into());
        Self { conf_dir, bin_dirs: Vec::new(), state_dir, netns_dir: netns::DEFAULT_DIR.into() }
    }
}

/// A pod that is on the network, or was about to be: with what it was put there, it is taken off again, whatever the
/// configuration is by then.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    chain: Chain,
    attach: Attach,
    /// What the plugins made; none while they are at it.
    result: Option<Value>,
}

/// The network of one node's pods, made by plugins. Its methods may be called at the same time for different pods.
#[derive(Clone, Debug)]
pub struct ChainNetwork {
    config: ChainConfig,
}

impl ChainNetwork {
    /// Of the network namespace that the process is in.
    ///
    /// # Errors
    /// The state directory cannot be made.
    pub fn open(config: ChainConfig) -> Result<Self, CniError> {
        fs::create_dir_all(&config.state_dir).map_err(|error| Error::at(&config.state_dir, error))?;
        Ok(Self { config })
    }

    /// Whether pods can be attached; the error says what is missing.
    ///
    /// # Errors
    /// There is no configuration, it is wrong, or programs are missing.
    pub fn ready(&self) -> Result<(), CniError> {
        let missing = self.chain()?.missing();
        if missing.is_empty() {
            return Ok(());
        }
        Err(CniError::new(code::UNAVAILABLE, format!("CNI plugins are missing: {}", missing.join(", "))))
    }

    fn chain(&self) -> Result<Chain, CniError> {
        let dir = &self.config.conf_dir;
        Chain::load(dir, &self.config.bin_dirs)?.ok_or_else(|| {
            CniError::new(
                code::UNAVAILABLE,
                format!("there is no network configuration in {}", dir.display()),
            )
        })
    }

    /// Gives a pod its namespace, and has plugins give it an interface. A pod that has them keeps them.
    ///
    /// # Errors
    /// What a plugin or the system says; then what was made is removed, as far as possible, and the pod is still in
    /// [`Self::list`].
    pub async fn attach(&self, pod: &Pod) -> Result<Attachment, CniError> {
        if let Some(Record { attach: Attach { netns: Some(netns), .. }, result: Some(result), .. }) =
            self.read(&pod.uid)?
            && netns.exists()
        {
            return Ok(Attachment { netns, addresses: addresses(&result) });
        }
        // An attempt that did not come to its end is undone first.
        self.detach(&pod.uid).await?;
        let chain = self.chain()?;
        let netns = self.config.netns_dir.join(&pod.uid);
        let word = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let attach = Attach {
            container: pod.uid.clone(),
            netns: Some(netns.clone()),
            interface: INTERFACE.to_owned(),
            args: vec![
                word("IgnoreUnknown", "1"),
                word("K8S_POD_NAMESPACE", &pod.namespace),
                word("K8S_POD_NAME", &pod.name),
                word("K8S_POD_INFRA_CONTAINER_ID", &pod.uid),
                word("K8S_POD_UID", &pod.uid),
            ],
            capabilities: pod.capabilities.clone(),
        };
        let mut record = Record { chain, attach, result: None };
        self.write(&pod.uid, &record)?;
        netns::create(&self.config.netns_dir, &pod.uid).await?;
        Rtnl::inside(&netns).await?.loopback_up().await?;
        let (chain, attach) = (record.chain.clone(), record.attach.clone());
        let result = blocking(move || chain.add(&attach)).await?;
        let addresses = addresses(&result);
        if addresses.is_empty() {
            return Err(CniError::new(code::FAILED, "the CNI plugins have given the pod no address"));
        }
        record.result = Some(result);
        self.write(&pod.uid, &record)?;
        Ok(Attachment { netns, addresses })
    }

    /// Has plugins take away a pod's interface, and removes its namespace. A pod that has none is fine.
    ///
    /// # Errors
    /// What a plugin or the system says; then the pod is still in [`Self::list`].
    pub async fn detach(&self, uid: &str) -> Result<(), CniError> {
        let Some(Record { chain, mut attach, result }) = self.read(uid)? else { return Ok(()) };
        attach.netns = attach.netns.filter(|netns| netns.exists());
        blocking(move || chain.del(&attach, result.as_ref())).await?;
        netns::delete(&self.config.netns_dir, uid).await?;
        let path = self.path(uid)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::at(&path, error).into()),
            _ => Ok(()),
        }
    }

    /// The uids of the pods that have something here, ordered.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>, CniError> {
        let dir = &self.config.state_dir;
        let entries = fs::read_dir(dir).map_err(|error| Error::at(dir, error))?;
        let mut uids = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| Error::at(dir, error))?.file_name();
            uids.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(ToOwned::to_owned));
        }
        uids.sort();
        Ok(uids)
    }

    fn path(&self, uid: &str) -> Result<PathBuf, CniError> {
        crate::bridge::check(uid)?;
        Ok(self.config.state_dir.join(format!("{uid}.json")))
    }

    fn read(&self, uid: &str) -> Result<Option<Record>, CniError> {
        let path = self.path(uid)?;
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| CniError::new(code::DECODING, format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::at(&path, error).into()),
        }
    }

    fn write(&self, uid: &str, record: &Record) -> Result<(), CniError> {
        let path = self.path(uid)?;
        let put = |path: &Path| -> std::io::Result<()> {
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&json!(record))?)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        put(&path).map_err(|error| Error::at(&path, error).into())
    }
}

/// The addresses that a result gives.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}

/// Work that waits for other programs.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CniError> + Send + 'static,
) -> Result<T, CniError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CniError::new(code::FAILED, error.to_string())),
    }
}
