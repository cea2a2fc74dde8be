//! Who a node's agent is: a kubeconfig that names the cluster and holds the node's certificate.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::config::{KubeConfigOptions, Kubeconfig};
use minik8s_api::Registry;
use minik8s_reconcile::client::Event;
use minik8s_reconcile::http::tls::Identity;
use minik8s_reconcile::pki::{self, Credentials, NODE, NODES, Signer};
use minik8s_reconcile::request::WatchParams;
use minik8s_reconcile::{Client, Connection};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use super::renewal::{self, Source};

/// How long a request for a certificate waits for its signature before it is made again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node of a cluster.
pub struct Member {
    config: kube::Config,
    /// Where the kubeconfig is, to be rewritten with newer certificates.
    path: PathBuf,
    calling: Credentials,
    roots: Vec<CertificateDer<'static>>,
    connection: Mutex<Option<Connection>>,
}

impl Member {
    /// Reads a kubeconfig file.
    ///
    /// # Errors
    /// It is none, or holds no client certificate.
    pub async fn read(path: &Path) -> anyhow::Result<Self> {
        let from = path.display();
        let file =
            Kubeconfig::read_from(path).with_context(|| format!("cannot read the kubeconfig {from}"))?;
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
        let roots = config.root_cert.iter().flatten().cloned().map(CertificateDer::from).collect();
        let calling = Credentials { certificate, key };
        Ok(Self { config, path: path.to_owned(), calling, roots, connection: Mutex::default() })
    }

    /// The node that the certificate names, if it names one.
    pub fn node(&self) -> Option<String> {
        let certificate = CertificateDer::from_pem_slice(self.calling.certificate.as_bytes()).ok()?;
        Some(pki::holder(&certificate)?.name.strip_prefix(NODE)?.to_owned())
    }

    /// The authorities that the node trusts.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.clone()
    }

    /// A client that shows the node's certificate, and newer ones when [`Self::keep`] has got them.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        let connection = Connection::new(kube::Client::try_from(self.config.clone())?);
        *self.connection.lock().expect("nobody panics with it") = Some(connection.clone());
        Ok(Client::connected(connection, Arc::new(Registry::builtin())))
    }

    /// What the node shows to those that it serves under `hosts`: what was signed for that before, or, until there is
    /// something better, what it shows as a client.
    ///
    /// # Errors
    /// The credentials are malformed.
    pub fn serving(&self, store: &Path, hosts: &[String]) -> anyhow::Result<Arc<Identity>> {
        let stored = read(store).filter(|credentials| is_of_use(credentials, hosts));
        if let Some(identity) = stored.and_then(|credentials| Identity::new(&credentials).ok()) {
            return Ok(identity);
        }
        Identity::new(&self.calling)
            .with_context(|| format!("{}: the node's certificate cannot be used", self.path.display()))
    }

    /// Renews the certificates for as long as the agent runs: the one that it calls with, and `serving`, which it shows
    /// under `hosts` and keeps in `store`.
    pub async fn keep(
        self,
        client: Client,
        serving: Arc<Identity>,
        store: PathBuf,
        hosts: Vec<String>,
        stop: CancellationToken,
    ) {
        let Some(node) = self.node() else {
            tracing::warn!(kubeconfig = %self.path.display(), "not a node's certificate: it will not be renewed");
            return;
        };
        let calling = match Identity::new(&self.calling) {
            Ok(identity) => identity,
            Err(error) => return tracing::error!(%error, "the node's certificate cannot be used"),
        };
        let name = format!("{NODE}{node}");
        // What was signed for a client only, or for another address, is of no use to those whom it serves.
        let serves = is_of_use(&self.calling, &hosts) || read(&store).is_some_and(|c| is_of_use(&c, &hosts));
        let serve = Serving { client: client.clone(), name: name.clone(), store, hosts };
        let call = Calling { client, name, member: self };
        let keep_serving = async {
            if !serves {
                renewal::now(&serve, &serving, &stop).await;
            }
            renewal::keep(&serve, &serving, &stop).await;
        };
        tokio::join!(keep_serving, renewal::keep(&call, &calling, &stop));
    }

    /// Writes the kubeconfig anew, with these credentials.
    fn write(&self, credentials: &Credentials) -> anyhow::Result<()> {
        let mut file = Kubeconfig::read_from(&self.path)
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        for named in &mut file.auth_infos {
            if let Some(user) = &mut named.auth_info {
                let mut config = kube::Config::new(self.config.cluster_url.clone());
                put(&mut config, credentials);
                user.client_certificate = None;
                user.client_key = None;
                user.client_certificate_data = config.auth_info.client_certificate_data;
                user.client_key_data = config.auth_info.client_key_data;
            }
        }
        pki::write_private(&self.path, &serde_yaml::to_string(&file)?)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// What the node calls the server with.
struct Calling {
    client: Client,
    name: String,
    member: Member,
}

#[async_trait]
impl Source for Calling {
    fn what(&self) -> &'static str {
        "the node's"
    }

    async fn renew(&self) -> anyhow::Result<Credentials> {
        let credentials = request(&self.client, Signer::NodeClient, &self.name, &[]).await?;
        self.member.write(&credentials)?;
        let mut config = self.member.config.clone();
        put(&mut config, &credentials);
        let client = kube::Client::try_from(config)?;
        if let Some(connection) = &*self.member.connection.lock().expect("nobody panics with it") {
            connection.replace(client);
        }
        Ok(credentials)
    }
}

/// What the node shows to those that it serves.
struct Serving {
    client: Client,
    name: String,
    store: PathBuf,
    hosts: Vec<String>,
}

#[async_trait]
impl Source for Serving {
    fn what(&self) -> &'static str {
        "the node's (for those it serves)"
    }

    async fn renew(&self) -> anyhow::Result<Credentials> {
        let credentials = request(&self.client, Signer::NodeServing, &self.name, &self.hosts).await?;
        pki::write_private(&self.store, &format!("{}{}", credentials.certificate, credentials.key))
            .with_context(|| format!("cannot write {}", self.store.display()))?;
        Ok(credentials)
    }
}

/// The certificate and key in the file, if there are any.
fn read(store: &Path) -> Option<Credentials> {
    split(&std::fs::read_to_string(store).ok()?)
}

/// Has `config` show these credentials.
fn put(config: &mut kube::Config, credentials: &Credentials) {
    let user = &mut config.auth_info;
    user.client_certificate = None;
    user.client_key = None;
    user.client_certificate_data = Some(super::encode(&credentials.certificate));
    user.client_key_data = Some(SecretString::from(super::encode(&credentials.key)));
}

/// Whether that may be shown under these names, now.
fn is_of_use(credentials: &Credentials, hosts: &[String]) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(credentials.certificate.as_bytes()) else {
        return false;
    };
    let now = jiff::Timestamp::now();
    pki::serves(&certificate, hosts)
        && pki::Validity::of(&certificate).is_some_and(|valid| valid.from <= now && now < valid.until)
}

/// A certificate and its key, from a file that holds one behind the other.
fn split(text: &str) -> Option<Credentials> {
    let at = text.find("-----BEGIN PRIVATE KEY-----")?;
    let (certificate, key) = text.split_at(at);
    Some(Credentials { certificate: certificate.to_owned(), key: key.to_owned() })
}

/// Has the cluster sign a certificate of a new key for `name`, a node, reached under `hosts`.
///
/// # Errors
/// The cluster refuses, or does not answer in time.
pub async fn request(
    client: &Client,
    signer: Signer,
    name: &str,
    hosts: &[String],
) -> anyhow::Result<Credentials> {
    let (key, pem) = pki::ask(name, NODES, hosts)?;
    let usage = if signer == Signer::NodeServing { "server auth" } else { "client auth" };
    let mut wanted = CertificateSigningRequest::default();
    wanted.metadata.generate_name = Some("node-".to_owned());
    wanted.spec.signer_name = signer.name().to_owned();
    wanted.spec.usages = Some(vec!["digital signature".to_owned(), usage.to_owned()]);
    wanted.spec.request = ByteString(pem.into_bytes());
    let requests = client.all::<CertificateSigningRequest>();
    let made = requests.create(&wanted).await?;
    let asked = made.metadata.name.clone().unwrap_or_default();
    let params = WatchParams {
        field_selector: format!("metadata.name={asked}"),
        send_initial_events: true,
        bookmarks: true,
        ..WatchParams::default()
    };
    let mut events = requests.watch(&params).await?;
    let answered = async {
        while let Some(event) = events.next().await {
            match event? {
                Event::Applied(request) => {
                    if let Some(certificate) = verdict(&request)? {
                        return Ok(certificate);
                    }
                }
                Event::Deleted(_) => bail!("the request {asked} was deleted before it was signed"),
                Event::Bookmark { .. } => {}
            }
        }
        bail!("the server ended the watch of the request {asked}")
    };
    let waited = tokio::time::timeout(PATIENCE, answered).await;
    let certificate = waited.with_context(|| {
        format!("the request {asked} is not approved yet; somebody may: kubectl certificate approve {asked}")
    })??;
    Ok(Credentials { certificate, key })
}

/// The certificate, if it has been signed.
fn verdict(request: &CertificateSigningRequest) -> anyhow::Result<Option<String>> {
    let status = request.status.as_ref();
    for condition in status.and_then(|s| s.conditions.as_ref()).into_iter().flatten() {
        let says = |verdict: &str| condition.type_ == verdict && condition.status != "False";
        ensure!(
            !says("Denied") && !says("Failed"),
            "the cluster does not sign the node's certificate: {}",
            condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("it does not say why")
        );
    }
    let certificate = status.and_then(|s| s.certificate.as_ref()).filter(|c| !c.0.is_empty());
    certificate.map(|c| Ok(String::from_utf8(c.0.clone())?)).transpose()
}

/// A part of a kubeconfig that is there in base64, or in a file.
fn embedded(data: Option<&str>, file: Option<&str>) -> anyhow::Result<Option<String>> {
    Ok(match (data, file) {
        (Some(data), _) => Some(super::decode(data)?),
        (None, Some(file)) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?)
        }
        (None, None) => None,
    })
}
