//! Who the programs are: certificates of the cluster's authority, and the kubeconfigs that carry them.

mod member;
mod renewal;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_reconcile::Client;
use minik8s_reconcile::http::tls::{self, Identity};
use minik8s_reconcile::pki::{Authority, Credentials, NODE, NODES, SigningKey, Subject};
use rustls::{ClientConfig, ServerConfig};
use tokio_util::sync::CancellationToken;

use self::renewal::{Own, Source};

pub use self::member::{Member, request};
use crate::args;
use crate::node::default_address;

/// Whom the server writes a kubeconfig for.
const ADMINISTRATOR: &str = "kubernetes-admin";
/// The group that may do everything.
const ADMINISTRATORS: &str = "system:masters";
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

/// Where those look who want to know whose certificates this cluster's server accepts: namespace, name and key.
const CLIENT_AUTHORITY: (&str, &str, &str) =
    ("kube-system", "extension-apiserver-authentication", "client-ca-file");

/// The authority of the cluster whose data is in `data_dir`; a new one for a new cluster.
pub fn authority(data_dir: &Path) -> anyhow::Result<Authority> {
    Authority::open(&data_dir.join("pki"), Timestamp::now()).context("cannot use the cluster's certificates")
}

/// The key that signs the tokens of service accounts; a new one for a new cluster.
pub fn signing_key(data_dir: &Path) -> anyhow::Result<SigningKey> {
    SigningKey::open(&data_dir.join("pki")).context("cannot use the cluster's key for tokens")
}

/// Makes sure that the objects behind `client` and the authority belong to the same cluster; a new cluster is told of
/// its authority.
///
/// # Errors
/// They do not.
pub async fn claim(client: &Client, authority: &Authority, data_dir: &Path) -> anyhow::Result<()> {
    let (namespace, name, key) = CLIENT_AUTHORITY;
    let maps = client.namespaced::<ConfigMap>(namespace);
    let there = maps.get_opt(name).await?;
    let known = there.as_ref().and_then(|map| map.data.as_ref()?.get(key).cloned());
    match known {
        Some(known) => {
            let pki = data_dir.join("pki");
            ensure!(
                known.trim() == authority.certificate().trim(),
                "the objects belong to another cluster than the authority in {}, whose key is {}: nobody who could \
                 use the one would be let in by the other. Restore both from the same backup. If the old authority is \
                 lost for good, start the server once with --forget-authority; nodes and users then have to join anew",
                pki.display(),
                authority.fingerprint(),
            );
            Ok(())
        }
        None => {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(name.to_owned());
            map.data = Some([(key.to_owned(), authority.certificate().to_owned())].into());
            match maps.create(&map).await {
                // Another server of the same cluster was quicker; it is asked next time.
                Err(error) if !error.is_already_exists() => Err(error.into()),
                _ => Ok(()),
            }
        }
    }
}

/// Forgets which authority the objects belong to.
pub async fn forget_authority(client: &Client) -> anyhow::Result<()> {
    let (namespace, name, _) = CLIENT_AUTHORITY;
    match client.namespaced::<ConfigMap>(namespace).delete(name, &Default::default()).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The certificates that the programs of the control plane show, renewed while they run.
pub struct Shown {
    serving: (Own, Arc<Identity>),
    calling: (Own, Arc<Identity>),
    administrator: (Administrator, Arc<Identity>),
}

impl Shown {
    /// Issues them, for a server that is reached at `addresses` and under the names `also`, and writes the
    /// administrator's kubeconfig.
    pub fn issue(
        authority: &Arc<Authority>,
        addresses: &[SocketAddr],
        also: &[String],
        kubeconfig: PathBuf,
    ) -> anyhow::Result<Self> {
        let own = addresses.iter().map(|a| if a.ip().is_unspecified() { default_address() } else { a.ip() });
        let host = nix::unistd::gethostname().ok().map(|h| h.to_string_lossy().to_lowercase());
        let hosts = own
            .map(|address| address.to_string())
            .chain(["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned))
            .chain(IN_CLUSTER.map(ToOwned::to_owned))
            .chain(host)
            .chain(also.iter().cloned());
        let first = addresses.first().context("there is nowhere to listen: give --listen ADDRESS:PORT")?;
        let url = match first {
            reachable if !reachable.ip().is_unspecified() => format!("https://{reachable}"),
            any => format!("https://127.0.0.1:{}", any.port()),
        };
        let own = |what, subject| Own { what, authority: authority.clone(), subject };
        let issued = |own: Own| own.issue().map(|identity| (own, identity));
        // In no group: it must not be worth anything to whoever makes the server call somebody else.
        let caller = Subject::client(API_SERVER);
        let subject = Subject::client(ADMINISTRATOR).group(ADMINISTRATORS);
        let administrator = Administrator { own: own("the administrator's", subject), url, kubeconfig };
        let written = Identity::new(&administrator.write()?)?;
        Ok(Self {
            serving: issued(own("the API server's", Subject::server("kube-apiserver", hosts)))?,
            calling: issued(own("the API server's (as a client of nodes)", caller))?,
            administrator: (administrator, written),
        })
    }

    /// How the API server speaks TLS to its clients.
    pub fn server(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let (own, identity) = &self.serving;
        Ok(tls::server_config(identity.clone(), [own.authority.der().clone()])?)
    }

    /// How the API server speaks TLS to agents.
    pub fn agents(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let (own, identity) = &self.calling;
        Ok(tls::client_config(identity.clone(), [own.authority.der().clone()])?)
    }

    /// Renews them until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        tokio::join!(
            renewal::keep(&self.serving.0, &self.serving.1, &stop),
            renewal::keep(&self.calling.0, &self.calling.1, &stop),
            renewal::keep(&self.administrator.0, &self.administrator.1, &stop),
        );
    }
}

/// The one who may do everything, by a kubeconfig in the server's data.
struct Administrator {
    own: Own,
    url: String,
    kubeconfig: PathBuf,
}

impl Administrator {
    /// Writes the kubeconfig, with a new certificate.
    fn write(&self) -> anyhow::Result<Credentials> {
        let Own { authority, subject, .. } = &self.own;
        let credentials = authority.issue(subject, Timestamp::now())?;
        let text = kubeconfig(ADMINISTRATOR, &self.url, authority.certificate(), &credentials);
        minik8s_reconcile::pki::write_private(&self.kubeconfig, &text)
            .with_context(|| format!("cannot write {}", self.kubeconfig.display()))?;
        Ok(credentials)
    }
}

#[async_trait]
impl Source for Administrator {
    fn what(&self) -> &'static str {
        self.own.what
    }

    async fn renew(&self) -> anyhow::Result<Credentials> {
        self.write()
    }
}

/// Who the agent of a node is.
pub fn node_user(node: &str) -> String {
    format!("{NODE}{node}")
}

/// The certificate of an agent in the same process as the server, renewed until `stop`.
pub fn agent(
    authority: &Arc<Authority>,
    node: &str,
    address: IpAddr,
    stop: CancellationToken,
) -> anyhow::Result<Arc<ServerConfig>> {
    let subject = Subject::client(node_user(node)).group(NODES);
    let subject = subject.hosts([node.to_owned(), address.to_string()]);
    let own = Own { what: "the agent's", authority: authority.clone(), subject };
    let identity = own.issue()?;
    let config = tls::server_config(identity.clone(), [authority.der().clone()])?;
    tokio::spawn(async move { renewal::keep(&own, &identity, &stop).await });
    Ok(config)
}

/// What those who join are told: where the cluster is and which authority it has.
pub fn cluster_info(url: &str, authority: &Authority) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    server: {url}\n    \
         certificate-authority-data: {}\ncontexts: []\nusers: []\ncurrent-context: \"\"\n",
        encode(authority.certificate())
    )
}

/// `minik8s kubeconfig`
pub fn run(args: &args::Kubeconfig) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.data_dir.exists(),
        "there is no {}: run this where the server's data is, or say where with --data-dir",
        args.data_dir.display()
    );
    let authority = authority(&args.data_dir)?;
    // Whoever copies the folder for another server of the cluster finds all of its keys there.
    signing_key(&args.data_dir)?;
    let mut subject = Subject::client(&args.user).hosts(&args.host);
    for group in &args.group {
        subject = subject.group(group);
    }
    let credentials = authority.issue(&subject, Timestamp::now())?;
    crate::cli::print(&kubeconfig(&args.user, &args.server, authority.certificate(), &credentials))
}

/// A kubeconfig of `user`, who shows `credentials`, for the server at `url` with a certificate of `authority` (PEM).
pub fn kubeconfig(user: &str, url: &str, authority: &str, credentials: &Credentials) -> String {
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

fn encode(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// The text that is there in base64.
pub fn decode(data: &str) -> anyhow::Result<String> {
    Ok(String::from_utf8(BASE64_STANDARD.decode(data)?)?)
}
