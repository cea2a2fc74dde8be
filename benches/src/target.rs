//! Which API server to talk to, and how.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minik8s_reconcile::http::tls;
use minik8s_reconcile::pki::Credentials;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

/// An API server.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`.
    pub host: String,
    /// How to speak TLS to it; `None` for a server in the clear.
    pub tls: Option<Arc<ClientConfig>>,
    /// The value of the `Authorization` header.
    pub authorization: Option<String>,
    /// Its processes, where they are this machine's: the store's too.
    pub processes: Vec<u32>,
}

#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(rename = "current-context")]
    current_context: String,
    clusters: Vec<Named<Cluster>>,
    contexts: Vec<Named<Context_>>,
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(flatten)]
    value: T,
}

#[derive(Deserialize)]
enum Cluster {
    #[serde(rename = "cluster")]
    It(ClusterParts),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterParts {
    server: String,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
enum Context_ {
    #[serde(rename = "context")]
    It(ContextParts),
}

#[derive(Deserialize)]
struct ContextParts {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
enum User {
    #[serde(rename = "user")]
    It(UserParts),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserParts {
    client_certificate_data: Option<String>,
    client_certificate: Option<String>,
    client_key_data: Option<String>,
    client_key: Option<String>,
    token: Option<String>,
}

impl Target {
    /// The server that the kubeconfig at `path` names, and its user.
    ///
    /// # Errors
    /// The file is no kubeconfig, or its user has neither a client certificate nor a token.
    pub fn from_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let file: Kubeconfig = serde_yaml::from_str(&text).with_context(|| path.display().to_string())?;
        fn find<T>(list: Vec<Named<T>>, name: &str) -> anyhow::Result<T> {
            let found = list.into_iter().find(|n| n.name == name);
            found.map(|n| n.value).with_context(|| format!("the kubeconfig has no {name}"))
        }
        let Context_::It(context) = find(file.contexts, &file.current_context)?;
        let Cluster::It(cluster) = find(file.clusters, &context.cluster)?;
        let User::It(user) = find(file.users, &context.user)?;
        let authorization = user.token.map(|token| format!("Bearer {token}"));
        if let Some(host) = cluster.server.strip_prefix("http://") {
            return Ok(Self { host: host.to_owned(), tls: None, authorization, processes: Vec::new() });
        }
        let Some(host) = cluster.server.strip_prefix("https://") else {
            bail!("{}: not a URL of http or https", cluster.server);
        };
        let authority = part(cluster.certificate_authority_data, cluster.certificate_authority)?
            .context("the cluster has no certificate-authority")?;
        let certificate = part(user.client_certificate_data, user.client_certificate)?;
        let key = part(user.client_key_data, user.client_key)?;
        let (Some(certificate), Some(key)) = (certificate, key) else {
            bail!("the user has no client certificate");
        };
        let mut tls = Self::tls(&authority, &Credentials { certificate, key })?;
        // What is measured is the protocol that most clients of Kubernetes were measured with.
        Arc::make_mut(&mut tls).alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { host: host.to_owned(), tls: Some(tls), authorization, processes: Vec::new() })
    }

    /// How to speak TLS to servers of `authority` (PEM), as the holder of `credentials`.
    ///
    /// # Errors
    /// One of them is malformed.
    pub fn tls(authority: &str, credentials: &Credentials) -> anyhow::Result<Arc<ClientConfig>> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(authority.as_bytes()).collect();
        Ok(tls::client_config(tls::Identity::new(credentials)?, roots?)?)
    }
}

fn part(data: Option<String>, file: Option<String>) -> anyhow::Result<Option<String>> {
    Ok(match (data, file) {
        (Some(data), _) => Some(String::from_utf8(BASE64_STANDARD.decode(data)?)?),
        (None, Some(file)) => Some(std::fs::read_to_string(&file).with_context(|| file.clone())?),
        (None, None) => None,
    })
}
