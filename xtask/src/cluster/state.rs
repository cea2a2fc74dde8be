//! What is remembered of a cluster, in `target/clusters/NAME`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::node::Node;
use crate::workspace::target;

/// What all nodes of a cluster are started with, in this life and later ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    /// The minik8s program.
    pub(super) program: PathBuf,
    /// Server and agent in one process.
    pub(super) all_in_one: bool,
    /// The members of the etcd that objects are in.
    pub(super) etcd: Option<String>,
    /// How long pods stay on a node that is down, where they do not say.
    pub(super) toleration_seconds: u32,
    /// Options of every node's agent.
    #[serde(default)]
    pub(super) agent_options: Vec<String>,
}

/// A cluster, up or not.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    name: String,
    dir: PathBuf,
}

impl Cluster {
    pub(super) fn open(name: &str) -> anyhow::Result<Self> {
        let fits = name.len() <= 20
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !fits {
            bail!(
                "--name {name}: a cluster's name has up to 20 lower-case letters, digits and -, a letter first"
            );
        }
        Ok(Self { name: name.to_owned(), dir: target().join("clusters").join(name) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The network namespace of the bridge that nodes hang on.
    pub(super) fn switch(&self) -> String {
        format!("mk8s-{}-switch", self.name)
    }

    /// The control group of the cluster, below each hierarchy's root.
    pub(super) fn cgroup(&self) -> String {
        format!("minik8s/{}", self.name)
    }

    /// The nodes that were ever started and not removed.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let names = fs::read_dir(self.dir.join("nodes")).into_iter().flatten().flatten();
        let mut numbers: Vec<usize> =
            names.filter_map(|e| e.file_name().to_str()?.strip_prefix('n')?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|number| Node::new(self, number)).collect()
    }

    /// The node of that name.
    pub(super) fn node(&self, name: &str) -> anyhow::Result<Node> {
        let nodes = self.nodes();
        match nodes.iter().find(|n| n.name() == name) {
            Some(node) => Ok(node.clone()),
            None if nodes.is_empty() => {
                bail!("there is no cluster {0}; try: cargo xtask cluster-up --name {0}", self.name)
            }
            None => {
                let known: Vec<_> = nodes.iter().map(Node::name).collect();
                bail!("cluster {} has no node {name}; it has {}", self.name, known.join(", "))
            }
        }
    }

    /// What its nodes are started with.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let path = self.dir.join("settings.json");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("there is no cluster {0}; try: cargo xtask cluster-up --name {0}", self.name)
        })?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    pub(super) fn set_settings(&self, settings: &Settings) -> anyhow::Result<()> {
        Ok(fs::write(self.dir.join("settings.json"), serde_json::to_string_pretty(settings)?)?)
    }

    /// Keeps other commands off the cluster until the answer is dropped.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let file = File::create(self.dir.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    pub(super) fn port(&self) -> Option<u16> {
        fs::read_to_string(self.dir.join("port")).ok()?.trim().parse().ok()
    }

    pub(super) fn set_port(&self, port: u16) -> anyhow::Result<()> {
        Ok(fs::write(self.dir.join("port"), port.to_string())?)
    }

    /// Forgets the cluster.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}
