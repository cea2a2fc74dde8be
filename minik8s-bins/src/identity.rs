//! Who the programs are: certificates of the cluster's authority, and the kubeconfigs that carry them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use minik8s_reconcile::http::tls;
use minik8s_reconcile::pki::{Authority, Credentials, SigningKey, Subject};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use secrecy::ExposeSecret;

use crate::args;
use crate::node::default_address;

/// The group that may do everything.
const ADMINISTRATORS: &str = "system:masters";
/// The group of all nodes.
pub const NODES: &str = "system:nodes";
/// Whom an agent obeys.
pub const API_SERVER: &str = "system:apiserver";
/// What pods call the API server, and its address there.
const IN_CLUSTER: [&str; 5] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "10.96.0.1",
];

/// The authority of the cluster whose data is in `data_dir`; a new one for a new cluster.
pub fn authority(data_dir: &Path) -> anyhow::Result<Authority> {
    Authority::open(&data_dir.join("pki"), jiff::Timestamp::now())
        .context("cannot use the cluster's certificates")
}

/// The key that signs the tokens of service accounts; a new one for a new cluster.
pub fn signing_key(data_dir: &Path) -> anyhow::Result<SigningKey> {
    SigningKey::open(&data_dir.join("pki")).context("cannot use the cluster's key for tokens")
}

/// How the API server speaks TLS: to those who reach it at `addresses`, or under the names `also`.
pub fn server(
    authority: &Authority,
    addresses: &[SocketAddr],
    also: &[String],
) -> anyhow::Result<Arc<ServerConfig>> {
    let own = addresses.iter().map(|a| if a.ip().is_unspecified() { default_address() } else { a.ip() });
    let host = nix::unistd::gethostname().ok().map(|h| h.to_string_lossy().to_lowercase());
    let hosts = own
        .map(|address| address.to_string())
        .chain(["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned))
        .chain(IN_CLUSTER.map(ToOwned::to_owned))
        .chain(host)
        .chain(also.iter().cloned());
    let credentials = authority.issue(&Subject::server("kube-apiserver", hosts), jiff::Timestamp::now())?;
    Ok(tls::server_config(&credentials, [authority.der().clone()])?)
}

/// How the API server speaks TLS to agents.
pub fn agents(authority: &Authority) -> anyhow::Result<Arc<ClientConfig>> {
    // In no group: it must not be worth anything to whoever makes the server call somebody else.
    let credentials = authority.issue(&Subject::client(API_SERVER), jiff::Timestamp::now())?;
    Ok(tls::client_config(&credentials, [authority.der().clone()])?)
}

/// Who the agent of a node is.
pub fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}

/// How the agent of a node speaks TLS to the API server's calls.
pub fn agent(authority: &Authority, node: &str, address: IpAddr) -> anyhow::Result<Arc<ServerConfig>> {
    let subject = Subject::client(node_user(node)).group(NODES);
    let subject = subject.hosts([node.to_owned(), address.to_string()]);
    let credentials = authority.issue(&subject, jiff::Timestamp::now())?;
    Ok(tls::server_config(&credentials, [authority.der().clone()])?)
}

/// Writes a kubeconfig with which its owner may do everything.
pub fn write_admin_kubeconfig(authority: &Authority, path: &Path, server: SocketAddr) -> anyhow::Result<()> {
    let subject = Subject::client("kubernetes-admin").group(ADMINISTRATORS);
    let credentials = authority.issue(&subject, jiff::Timestamp::now())?;
    let url = match server {
        reachable if !reachable.ip().is_unspecified() => format!("https://{reachable}"),
        any => format!("https://127.0.0.1:{}", any.port()),
    };
    let text = kubeconfig("kubernetes-admin", &url, authority.certificate(), &credentials);
    minik8s_reconcile::pki::write_private(path, &text)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// `minik8s kubeconfig`
pub fn run(args: &args::Kubeconfig) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.data_dir.exists(),
        "there is no {}: run this where the server's data is, or say where with --data-dir",
        args.data_dir.display()
    );
    let authority = authority(&args.data_dir)?;
    let mut subject = Subject::client(&args.user).hosts(&args.host);
    for group in &args.group {
        subject = subject.group(group);
    }
    let credentials = authority.issue(&subject, jiff::Timestamp::now())?;
    crate::cli::print(&kubeconfig(&args.user, &args.server, authority.certificate(), &credentials))
}

fn kubeconfig(user: &str, url: &str, authority: &str, credentials: &Credentials) -> String {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let quoted = serde_json::Value::from(user);
    let mut text = String::from("apiVersion: v1\nkind: Config\ncurrent-context: minik8s\n");
    let _ = write!(
        text,
        "clusters:\n- name: minik8s\n  cluster:\n    server: {url}\n    certificate-authority-data: {}\n\
         contexts:\n- name: minik8s\n  context:\n    cluster: minik8s\n    user: {quoted}\n\
         users:\n- name: {quoted}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        encode(authority),
        encode(&credentials.certificate),
        encode(&credentials.key),
    );
    text
}

/// What a node's kubeconfig says: how to reach the server, and what the node shows to those it serves.
pub struct Member {
    /// How to reach the server.
    pub config: kube::Config,
    /// How to speak TLS to the server's calls.
    pub serving: Arc<ServerConfig>,
}

impl Member {
    /// Reads a kubeconfig file; the one that the environment names if none is given.
    pub async fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let (file, from) = match path {
            Some(path) => (Kubeconfig::read_from(path), path.display().to_string()),
            None => (Kubeconfig::read(), "$KUBECONFIG".to_owned()),
        };
        let file = file
            .with_context(|| format!("cannot read the kubeconfig {from}; give --server-kubeconfig FILE"))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let user = &config.auth_info;
        let missing = |what: &str| {
            format!("{from}: the user has no {what}: an agent needs one that the cluster's authority signed")
        };
        let certificate =
            embedded(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?
                .with_context(|| missing("client certificate"))?;
        let key = user.client_key_data.as_ref().map(|key| key.expose_secret());
        let key = embedded(key, user.client_key.as_deref())?.with_context(|| missing("client key"))?;
        let roots: Vec<_> = config.root_cert.iter().flatten().cloned().map(CertificateDer::from).collect();
        let serving = tls::server_config(&Credentials { certificate, key }, roots)
            .with_context(|| format!("{from}: the node's certificate cannot be used"))?;
        Ok(Self { config, serving })
    }
}

/// A part of a kubeconfig that is there in base64, or in a file.
fn embedded(data: Option<&str>, file: Option<&str>) -> anyhow::Result<Option<String>> {
    Ok(match (data, file) {
        (Some(data), _) => Some(String::from_utf8(BASE64_STANDARD.decode(data)?)?),
        (None, Some(file)) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?)
        }
        (None, None) => None,
    })
}
