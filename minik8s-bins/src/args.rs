//! The command line's grammar.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use minik8s_api::Cidr;
use minik8s_net::overlay::Backend;

use crate::limits::ClientLimits;
use crate::outages::{self, Outages};

/// A small Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "minik8s",
    version,
    about = "A small Kubernetes: server, node agent and command line in one program",
    propagate_version = true,
    after_help = "Examples:\n  \
        minik8s apply -f pod.yaml            make or change what a manifest describes\n  \
        minik8s get pods -A -w               watch all pods\n  \
        minik8s logs -f web -c main          follow a container's output\n  \
        minik8s exec -it web -- sh           a shell in a container\n  \
        minik8s completion bash              completion for your shell"
)]
pub struct Args {
    /// How to reach the server.
    #[command(flatten)]
    pub connection: Connection,
    /// Log more to standard error: -v, -vv.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the server.
#[derive(Clone, Debug, ClapArgs)]
pub struct Connection {
    /// The kubeconfig file [default: $KUBECONFIG, then ~/.kube/config].
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context to use.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The namespace [default: the context's, then "default"].
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make or change what manifests describe.
    #[command(
        after_help = "Examples:\n  minik8s apply -f pod.yaml\n  cat pod.yaml | minik8s apply -f -\n  minik8s apply -f manifests/"
    )]
    Apply(Apply),
    /// Make what manifests describe; fails for what exists.
    Create(Files),
    /// Show objects.
    #[command(
        after_help = "Examples:\n  minik8s get pods\n  minik8s get pod/web -o yaml\n  minik8s get pods,nodes -A -l app=web -w"
    )]
    Get(Get),
    /// Show one object and what happened to it.
    Describe(Describe),
    /// Delete objects.
    #[command(
        after_help = "Examples:\n  minik8s delete pod web\n  minik8s delete -f pod.yaml\n  minik8s delete pods -l app=web --now"
    )]
    Delete(Delete),
    /// Show what a container printed.
    Logs(Logs),
    /// Run a command in a container.
    #[command(after_help = "Examples:\n  minik8s exec web -- ls /\n  minik8s exec -it web -c main -- sh")]
    Exec(Exec),
    /// Show the versions of this program and of the server.
    Version,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print a kubeconfig for a user, signed by the cluster's authority. Works where the server's data is.
    #[command(
        after_help = "Examples:\n  minik8s kubeconfig --user jane --group developers > jane.kubeconfig\n  \
            minik8s kubeconfig --user system:node:n1 --group system:nodes --host 10.0.0.1 --server https://10.0.0.9:6443"
    )]
    Kubeconfig(Kubeconfig),
    /// Save all objects of the cluster, as they are at one moment, in a file. The cluster goes on meanwhile.
    #[command(after_help = "Examples:\n  minik8s backup cluster.backup\n  \
            minik8s backup --salvage --data-dir /var/lib/minik8s/server what-is-left.backup\n\n\
            The file holds secrets, and not the cluster's keys: keep the pki folder of the server's data, too.")]
    Backup(Backup),
    /// Make a backup the data of a server that does not run.
    #[command(after_help = "Example: minik8s restore cluster.backup --data-dir /var/lib/minik8s/server")]
    Restore(Restore),
    /// Tokens with which machines join the cluster.
    #[command(subcommand)]
    Token(Token),
    /// Run the API server, the controllers and the scheduler.
    Server(Server),
    /// Run the agent of this node.
    Node(Node),
    /// Run server and agent together: a cluster of one machine.
    Up(Up),
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub fn is_daemon(&self) -> bool {
        matches!(self, Self::Server(_) | Self::Node(_) | Self::Up(_))
    }
}

/// Manifests.
#[derive(Debug, ClapArgs)]
pub struct Files {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input. May be given several times.
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
    /// Check on the server, change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `apply`
#[derive(Debug, ClapArgs)]
pub struct Apply {
    /// Which.
    #[command(flatten)]
    pub files: Files,
    /// Take over fields that others have set.
    #[arg(long)]
    pub force_conflicts: bool,
}

/// How to print objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table with more columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// KIND/NAME.
    Name,
}

/// Which objects.
#[derive(Debug, ClapArgs)]
pub struct Selection {
    /// Kinds (pod, pods, po; several with commas; "all"), then names; or KIND/NAME.
    #[arg(required = true, value_name = "KIND [NAME]...")]
    pub resources: Vec<String>,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// With these labels, such as app=web or 'tier in (a,b)'.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
}

/// `get`
#[derive(Debug, ClapArgs)]
pub struct Get {
    /// Which.
    #[command(flatten)]
    pub selection: Selection,
    /// With these fields, such as status.phase=Running.
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// How to print them.
    #[arg(short, long)]
    pub output: Option<Output>,
    /// Show who owns which field, with -o yaml and -o json.
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Go on printing changes.
    #[arg(short, long)]
    pub watch: bool,
    /// No heading.
    #[arg(long)]
    pub no_headers: bool,
}

/// `describe`
#[derive(Debug, ClapArgs)]
pub struct Describe {
    /// Which.
    #[command(flatten)]
    pub selection: Selection,
}

/// `delete`
#[derive(Debug, ClapArgs)]
pub struct Delete {
    /// Kinds, then names; or KIND/NAME.
    #[arg(value_name = "KIND [NAME]...", required_unless_present = "filename")]
    pub resources: Vec<String>,
    /// What these manifests describe.
    #[arg(short, long, value_name = "FILE|DIR|-", conflicts_with = "resources")]
    pub filename: Vec<PathBuf>,
    /// With these labels.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// All of the kind in the namespace.
    #[arg(long)]
    pub all: bool,
    /// Seconds to end gracefully [default: what the object says].
    #[arg(long, value_name = "SECONDS")]
    pub grace_period: Option<i64>,
    /// With a grace period of one second.
    #[arg(long, conflicts_with = "grace_period")]
    pub now: bool,
    /// Remove the object at once, whatever still runs.
    #[arg(long, conflicts_with_all = ["grace_period", "now"])]
    pub force: bool,
    /// Do not wait until it is gone.
    #[arg(long)]
    pub no_wait: bool,
    /// No complaint about what does not exist.
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// `logs`
#[derive(Debug, ClapArgs)]
pub struct Logs {
    /// The pod: NAME or pod/NAME.
    pub pod: String,
    /// The container, if there are several.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Go on printing.
    #[arg(short, long)]
    pub follow: bool,
    /// Of the container's last run.
    #[arg(short, long)]
    pub previous: bool,
    /// Only that many lines from the end.
    #[arg(long)]
    pub tail: Option<i64>,
    /// Only lines of the last that many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<i64>,
    /// With the time of each line.
    #[arg(long)]
    pub timestamps: bool,
}

/// `exec`
#[derive(Debug, ClapArgs)]
pub struct Exec {
    /// The pod: NAME or pod/NAME.
    pub pod: String,
    /// The container, if there are several.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// With a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// The command, behind --.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `kubeconfig`
#[derive(Debug, ClapArgs)]
pub struct Kubeconfig {
    /// Where the server keeps its data.
    #[arg(long, default_value = "/var/lib/minik8s/server", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The user's name.
    #[arg(long)]
    pub user: String,
    /// A group that the user is in; may be given several times.
    #[arg(long)]
    pub group: Vec<String>,
    /// A name or address under which the user serves, as nodes do; may be given several times.
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub host: Vec<String>,
    /// The server's URL.
    #[arg(long, default_value = "https://127.0.0.1:6443", value_name = "URL")]
    pub server: String,
}

/// `backup`
#[derive(Debug, ClapArgs)]
pub struct Backup {
    /// The file to write.
    pub file: PathBuf,
    /// Replace the file if there is one.
    #[arg(long)]
    pub force: bool,
    /// Read the data of a server that does not run, in spite of damage, and say what is lost.
    #[arg(long)]
    pub salvage: bool,
    /// Where that server keeps its data.
    #[arg(long, default_value = "/var/lib/minik8s/server", value_name = "DIR", requires = "salvage")]
    pub data_dir: PathBuf,
}

/// `restore`
#[derive(Debug, ClapArgs)]
pub struct Restore {
    /// The backup.
    pub file: PathBuf,
    /// Where the server keeps its data.
    #[arg(long, default_value = "/var/lib/minik8s/server", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Move the objects that are there aside.
    #[arg(long)]
    pub force: bool,
}

/// `token`
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token.
    #[command(
        after_help = "Examples:\n  minik8s token create --print-join      the command with which a machine joins\n  \
            minik8s token create --ttl 10m --description 'for rack 7'"
    )]
    Create {
        /// How long it is good for, such as 30m or 24h; 0 for ever.
        #[arg(long, default_value = "24h", value_name = "DURATION")]
        ttl: String,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
        /// Another group that its holders are in: system:bootstrappers:…; may be given several times.
        #[arg(long, value_name = "GROUP")]
        group: Vec<String>,
        /// Print the whole command with which a machine joins.
        #[arg(long)]
        print_join: bool,
    },
    /// Show the tokens.
    List,
    /// Delete tokens, by their ids or whole.
    Delete {
        /// Which.
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
}

/// `server`
#[derive(Clone, Debug, ClapArgs)]
pub struct Server {
    /// Where the server keeps its data.
    #[arg(long, default_value = "/var/lib/minik8s/server", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where to listen; may be given several times. Sockets passed on by systemd are used too.
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDRESS:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Another name or address under which clients reach the server; may be given several times.
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub tls_san: Vec<String>,
    /// Where the objects are.
    #[arg(long, value_enum, default_value_t = StorageKind::Embedded)]
    pub storage: StorageKind,
    /// etcd, if that is where they are.
    #[command(flatten)]
    pub etcd: Etcd,
    /// The URL that machines are told that want to join [default: that of the first address that is not loopback].
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// Accept that the objects belonged to a cluster with another authority, which is lost.
    #[arg(long)]
    pub forget_authority: bool,
    /// How much clients may take.
    #[command(flatten)]
    pub limits: ClientLimits,
    /// What is done about nodes that are down.
    #[command(flatten)]
    pub outages: Outages,
    /// An EncryptionConfiguration: which resources are sealed before they go to the disk, with which keys.
    #[arg(long, value_name = "FILE")]
    pub encryption_config: Option<PathBuf>,
    /// The addresses of all pods, of which each node is given a block.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub cluster_cidr: Cidr,
    /// How many bits the addresses of one node's pods share.
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    pub node_cidr_mask_size: u8,
    /// Who asked for what.
    #[command(flatten)]
    pub audit: AuditOptions,
}

/// Where objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageKind {
    /// In the server's own data. One server alone can use them.
    Embedded,
    /// In an etcd that several servers share. They elect the one that runs the controllers. Give all of them the same
    /// pki folder in their data.
    Etcd,
}

/// Which etcd, and how to use it.
#[derive(Clone, Debug, ClapArgs)]
pub struct Etcd {
    /// The URLs of etcd's members, with commas.
    #[arg(long, value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub etcd_endpoints: Vec<String>,
    /// What all keys in etcd begin with.
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    pub etcd_prefix: String,
    /// The authority that signs the certificates of etcd's members.
    #[arg(long, value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    /// The certificate to show to etcd.
    #[arg(long, value_name = "FILE", requires = "etcd_key", requires = "etcd_ca")]
    pub etcd_cert: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
    /// The user to be to etcd.
    #[arg(long, value_name = "NAME", requires = "etcd_password_file")]
    pub etcd_user: Option<String>,
    /// A file with that user's password.
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,
}

/// What a server notes of its requests.
#[derive(Clone, Debug, ClapArgs)]
pub struct AuditOptions {
    /// Note requests in this file, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// A Policy of audit.k8s.io/v1: what to note [default: who, what and when of everything].
    #[arg(long, value_name = "FILE")]
    pub audit_policy: Option<PathBuf>,
    /// MiB after which a new file is begun; 0 for never.
    #[arg(long, default_value_t = 100, value_name = "MIB")]
    pub audit_log_max_size: u64,
    /// Old files to keep; 0 for all.
    #[arg(long, default_value_t = 10, value_name = "FILES")]
    pub audit_log_max_files: usize,
    /// Days to keep old files; 0 for ever.
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    pub audit_log_max_age: u32,
}

/// `node`
#[derive(Clone, Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Node {
    /// Something else than to run.
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
    /// How it runs.
    #[command(flatten)]
    pub run: NodeRun,
}

/// What an agent does besides running.
#[derive(Clone, Debug, Subcommand)]
pub enum NodeCommand {
    /// Make this machine a node of a cluster, then run its agent.
    #[command(after_help = "Examples:\n  \
            minik8s token create --print-join       on a machine that may administrate the cluster: prints this command\n  \
            minik8s node join -f node.yaml --server https://10.0.0.1:6443 --token abcdef.0123456789abcdef \\\n    \
            --ca-hash sha256:…")]
    Join(Join),
    /// Make this machine a node no longer: end its pods and forget the cluster. Its agent must not run.
    #[command(after_help = "Example:\n  \
            systemctl stop minik8s-node && minik8s node leave\n\n\
            Then, on a machine that may administrate the cluster: minik8s delete node NAME")]
    Leave(Leave),
}

/// `node leave`
#[derive(Clone, Debug, ClapArgs)]
pub struct Leave {
    /// How the agent ran.
    #[command(flatten)]
    pub run: NodeRun,
}

/// `node join`
#[derive(Clone, Debug, ClapArgs)]
pub struct Join {
    /// The Node that this machine is to be: name, labels, taints and capacity.
    #[arg(short, long = "filename", value_name = "FILE|-")]
    pub filename: Option<PathBuf>,
    /// The server's URL.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// A bootstrap token.
    #[arg(long, value_name = "ID.SECRET")]
    pub token: String,
    /// The SHA-256 of the public key of the cluster's authority.
    #[arg(long, value_name = "sha256:HEX")]
    pub ca_hash: String,
    /// Join, and leave it to a later `minik8s node` to run the agent.
    #[arg(long)]
    pub no_run: bool,
    /// How the agent runs.
    #[command(flatten)]
    pub run: NodeRun,
}

/// How an agent runs.
#[derive(Clone, Debug, ClapArgs)]
pub struct NodeRun {
    /// The node's name [default: that in its certificate or manifest, else the host name].
    #[arg(long)]
    pub name: Option<String>,
    /// The node's address, under which the server reaches the agent [default: that of the default route].
    #[arg(long)]
    pub address: Option<IpAddr>,
    /// The kubeconfig to reach the server with [default: the one that `minik8s node join` made, then $KUBECONFIG].
    #[arg(long = "server-kubeconfig", value_name = "FILE")]
    pub server_kubeconfig: Option<PathBuf>,
    /// How the node does its work.
    #[command(flatten)]
    pub options: NodeOptions,
}

/// How a node does its work.
#[derive(Clone, Debug, ClapArgs)]
pub struct NodeOptions {
    /// containerd's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "SOCKET")]
    pub containerd: PathBuf,
    /// Where the agent keeps its pods' files.
    #[arg(long, default_value = "/var/lib/minik8s/node", value_name = "DIR")]
    pub node_dir: PathBuf,
    /// Where containers' logs go.
    #[arg(long, default_value = "/var/log/pods", value_name = "DIR")]
    pub log_dir: PathBuf,
    /// How pods of other nodes are reached: vxlan, wherever nodes reach one another, or host-gw, where they share a link.
    /// All nodes of a cluster must do the same.
    #[arg(long, default_value_t = Backend::Vxlan, value_name = "vxlan|host-gw")]
    pub network_backend: Backend,
    /// Have CNI plugins make the network of pods, as the first configuration in this folder says (often /etc/cni/net.d),
    /// in place of this agent. How pods of other nodes are reached is theirs to see to then, too.
    #[arg(long, value_name = "DIR", conflicts_with = "network_backend")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Where those plugins are [default: /opt/cni/bin and /usr/lib/cni].
    #[arg(long, value_name = "DIR", requires = "cni_conf_dir")]
    pub cni_bin_dir: Vec<PathBuf>,
    /// Hold this node's pods to the cluster's NetworkPolicies. Who may speak to whom depends on all pods, which nodes may
    /// not read unless somebody lets them: kubectl create clusterrolebinding network-policy
    /// --clusterrole=system:minik8s:network-policy --group=system:nodes
    #[arg(long, conflicts_with = "cni_conf_dir")]
    pub network_policy: bool,
    /// The UDP port of vxlan, the same on all nodes.
    #[arg(long, default_value_t = minik8s_net::overlay::vxlan::PORT, value_name = "PORT")]
    pub vxlan_port: u16,
    /// The port of the agent's own API.
    #[arg(long, default_value_t = 10250)]
    pub port: u16,
    /// Name servers of pods that want the cluster's DNS.
    #[arg(long, value_name = "ADDRESS")]
    pub cluster_dns: Vec<IpAddr>,
    /// How long the cluster believes in this node without a sign of life; it gives four in that time.
    #[arg(long, default_value = "4s", value_parser = outages::seconds, value_name = "DURATION")]
    pub lease_duration: Duration,
}

/// `up`
#[derive(Clone, Debug, ClapArgs)]
pub struct Up {
    /// The server's part.
    #[command(flatten)]
    pub server: Server,
    /// The node's name [default: the host name].
    #[arg(long)]
    pub name: Option<String>,
    /// The node's address [default: that of the default route, else 127.0.0.1].
    #[arg(long)]
    pub address: Option<IpAddr>,
    /// The node's part.
    #[command(flatten)]
    pub options: NodeOptions,
}
