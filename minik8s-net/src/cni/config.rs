//! What a plugin is told: by its environment, and on its standard input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;

use super::error::{CniError, code};
use crate::Subnet;

/// What a plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put a container on the network.
    Add,
    /// Take it off.
    Del,
    /// See whether it is as it was made.
    Check,
    /// Take off all containers that are not on a list.
    Gc,
    /// Say whether containers can be added.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl FromStr for Command {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => {
                let expected = "expected ADD, DEL, CHECK, GC, STATUS or VERSION";
                return Err(CniError::new(code::ENVIRONMENT, format!("CNI_COMMAND: {text:?}: {expected}")));
            }
        })
    }
}

/// A call, as far as it is in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What to do.
    pub command: Command,
    /// The container; empty where none is meant.
    pub container: String,
    /// Its network namespace, where there is one.
    pub netns: Option<PathBuf>,
    /// The name of its interface; empty where none is meant.
    pub interface: String,
    /// Further words, such as `K8S_POD_NAME`.
    pub args: BTreeMap<String, String>,
}

impl Call {
    /// From an environment, which `get` asks.
    ///
    /// # Errors
    /// Number 4, with the variable that is missing or wrong.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let wrong = |text: String| CniError::new(code::ENVIRONMENT, text);
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let must = |name: &str| set(name).ok_or_else(|| wrong(format!("{name} is not set")));
        let command: Command = must("CNI_COMMAND")?.parse()?;
        let container = set("CNI_CONTAINERID").unwrap_or_default();
        let interface = set("CNI_IFNAME").unwrap_or_default();
        let netns = set("CNI_NETNS").map(PathBuf::from);
        if matches!(command, Command::Add | Command::Del | Command::Check) {
            must("CNI_CONTAINERID")?;
            must("CNI_IFNAME")?;
            let sound = container.starts_with(|c: char| c.is_ascii_alphanumeric())
                && container.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if !sound {
                let expected = "expected letters, digits, '_', '.' and '-', a letter or digit first";
                return Err(wrong(format!("CNI_CONTAINERID: {container:?}: {expected}")));
            }
            let sound = interface.len() <= 15
                && interface != "."
                && interface != ".."
                && !interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
            if !sound {
                return Err(wrong(format!("CNI_IFNAME: {interface:?}: expected the name of an interface")));
            }
        }
        if matches!(command, Command::Add | Command::Check) {
            must("CNI_NETNS")?;
        }
        let pairs = set("CNI_ARGS").unwrap_or_default();
        let args = pairs.split(';').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong(format!("CNI_ARGS: {pair:?}: expected KEY=VALUE")))?;
            Ok((key.to_owned(), value.to_owned()))
        });
        Ok(Self { command, container, netns, interface, args: args.collect::<Result<_, CniError>>()? })
    }
}

/// The configuration of our plugin.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    pub(super) cni_version: String,
    pub(super) name: String,
    /// The addresses of this node's pods. By default those that the node's agent was given.
    subnet: Option<String>,
    /// The addresses of all pods. By default likewise.
    cluster_cidr: Option<String>,
    /// Where the agent keeps its files.
    data_dir: Option<PathBuf>,
    pub(super) bridge: Option<String>,
    pub(super) mtu: Option<u32>,
    pub(super) prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub(super) valid: Vec<Valid>,
}

/// A container that is not to be taken off.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Valid {
    #[serde(rename = "containerID")]
    pub(super) container: String,
    pub(super) ifname: String,
}

/// Where the agent keeps its files if nothing else is said.
const DATA_DIR: &str = "/var/lib/minik8s/node";

/// What the agent was given, in its directory.
const GIVEN: &str = "pod-network.json";

impl Config {
    /// Reads what stands on standard input.
    pub(super) fn read(text: &[u8]) -> Result<Self, CniError> {
        let wrong = |text: String| CniError::new(code::DECODING, text);
        let config: Self = serde_json::from_slice(text)
            .map_err(|error| wrong(format!("the network's configuration cannot be read: {error}")))?;
        if !super::VERSIONS.contains(&config.cni_version.as_str()) {
            let spoken = super::VERSIONS.join(", ");
            let text = format!("cniVersion: {:?}: expected one of {spoken}", config.cni_version);
            return Err(CniError::new(code::VERSION, text));
        }
        if config.name.is_empty() {
            return Err(CniError::new(code::CONFIG, "name: expected the name of the network"));
        }
        Ok(config)
    }

    pub(super) fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR))
    }

    /// The addresses of this node's pods, and those of all pods.
    pub(super) fn subnets(&self) -> Result<(Subnet, Vec<Subnet>), CniError> {
        let parse = |field: &str, text: &str| {
            text.parse::<Subnet>()
                .map_err(|error| CniError::new(code::CONFIG, format!("{field}: {text:?}: {error}")))
        };
        let cluster = self.cluster_cidr.as_deref().map(|text| parse("clusterCIDR", text)).transpose()?;
        if let Some(text) = &self.subnet {
            return Ok((parse("subnet", text)?, cluster.into_iter().collect()));
        }
        #[derive(Deserialize)]
        struct Given {
            subnet: String,
            #[serde(default)]
            cluster: Vec<String>,
        }
        let path = self.data_dir().join(GIVEN);
        let text = std::fs::read(&path).map_err(|error| {
            let text =
                format!("the node has not been given addresses for pods yet: {}: {error}", path.display());
            CniError::new(code::LATER, text)
        })?;
        let given: Given = serde_json::from_slice(&text)
            .map_err(|error| CniError::new(code::DECODING, format!("{}: {error}", path.display())))?;
        let all: Result<Vec<_>, _> = given.cluster.iter().map(|text| parse("cluster", text)).collect();
        Ok((parse("subnet", &given.subnet)?, cluster.map_or(all?, |one| vec![one])))
    }
}
