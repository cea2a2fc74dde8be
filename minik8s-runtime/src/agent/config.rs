//! What an agent is told about its node.

use minik8s_reconcile::clock::Clock;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

/// The settings of a node's agent. [`AgentConfig::default`] suits a machine of its own; tests and simulations point
/// the directories elsewhere and bring their own clock.
///
/// Nothing here makes a container's `hostPort` reachable on the node: the agent only sees to it that no two pods of
/// the node claim the same one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentConfig {
    /// The node's addresses, the primary one first. Without any, pods show no host address.
    pub addresses: Vec<IpAddr>,
    /// Labels of the node beside those that the agent sets itself.
    pub labels: BTreeMap<String, String>,
    /// Annotations that the node is registered with.
    pub annotations: BTreeMap<String, String>,
    /// Taints that the node is registered with.
    pub taints: Vec<Taint>,
    /// Thousandths of CPUs; `None` for what the machine has.
    pub cpu_milli: Option<u64>,
    /// Bytes of memory; `None` for what the machine has.
    pub memory: Option<u64>,
    /// Bytes of disk for pods; `None` for the size of the file system of [`Self::pods_dir`].
    pub storage: Option<u64>,
    /// Thousandths of CPUs that pods may not have.
    pub reserved_cpu_milli: u64,
    /// Bytes of memory that pods may not have.
    pub reserved_memory: u64,
    /// How many pods may run at once (110).
    pub max_pods: u32,
    /// How many images are fetched at once (5).
    pub max_parallel_pulls: usize,
    /// How many processes a container may have; `None` for no limit.
    pub pids_limit: Option<u64>,
    /// The cluster's name servers; without any, pods resolve names as the node does.
    pub cluster_dns: Vec<IpAddr>,
    /// The suffix of names in the cluster (`cluster.local`).
    pub cluster_domain: String,
    /// Variables that every container gets, such as `KUBERNETES_SERVICE_HOST`.
    pub service_env: Vec<(String, String)>,
    /// The directories of pods (`/var/lib/minik8s/pods`).
    pub pods_dir: PathBuf,
    /// The output of containers (`/var/log/pods`).
    pub logs_dir: PathBuf,
    /// The node's own `resolv.conf` (`/etc/resolv.conf`).
    pub resolv_conf: PathBuf,
    /// The node's own `hosts` (`/etc/hosts`).
    pub hosts: PathBuf,
    /// A log file of this many bytes is rotated (10 MiB).
    pub log_max_bytes: u64,
    /// How many log files of a container are kept, the current one included (5).
    pub log_max_files: u32,
    /// How long the control plane believes in the node without hearing of it (4 s); it hears four times as often.
    pub lease_duration: Duration,
    /// How often the node's status is written when nothing in it changed (5 min).
    pub status_period: Duration,
    /// How often files of ConfigMaps, Secrets and the downward API are brought up to date (60 s).
    pub volume_refresh: Duration,
    /// How often the agent compares what it believes with what the runtime says, rotates logs and collects garbage
    /// (60 s).
    pub housekeeping: Duration,
    /// The port of the agent's own server, as the node announces it; 0 for none.
    pub port: u16,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taints: Vec::new(),
            cpu_milli: None,
            memory: None,
            storage: None,
            reserved_cpu_milli: 0,
            reserved_memory: 0,
            max_pods: 110,
            max_parallel_pulls: 5,
            pids_limit: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            service_env: Vec::new(),
            pods_dir: "/var/lib/minik8s/pods".into(),
            logs_dir: "/var/log/pods".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            lease_duration: Duration::from_secs(4),
            status_period: Duration::from_secs(300),
            volume_refresh: Duration::from_secs(60),
            housekeeping: Duration::from_secs(60),
            port: 0,
            clock: Clock::system(),
        }
    }
}
