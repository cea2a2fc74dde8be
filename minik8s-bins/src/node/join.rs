//! `minik8s node join`: a machine becomes a node.
//!
//! It asks the server, which it does not know yet, where the cluster is and which authority it has. What it is told counts
//! only if the holder of the token has signed it, and the authority is the one whose hash it was given. It then has a
//! certificate signed, with the token, and keeps it with the cluster's address in a kubeconfig.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use kube::config::Kubeconfig;
use minik8s_api::Registry;
use minik8s_reconcile::controllers::bootstrap_tokens::{CLUSTER_INFO, verify};
use minik8s_reconcile::pki::{self, Signer};
use minik8s_reconcile::server::token::bootstrap;
use minik8s_reconcile::{ApiError, Client};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::SecretString;

use super::manifest::Manifest;
use super::{kubeconfig_of, manifest_of};
use crate::args::Join;
use crate::cli::note;
use crate::identity;

/// How far clocks may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Joins, unless this machine has joined already.
pub async fn join(args: &Join) -> anyhow::Result<()> {
    let Some(token) = bootstrap::parts(&args.token) else {
        bail!(
            "--token: a token is ID.SECRET, 6 and 16 lower-case letters and digits; `minik8s token create` makes one"
        );
    };
    let digits = args.ca_hash.strip_prefix("sha256:").unwrap_or_default();
    ensure!(
        digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()),
        "--ca-hash {}: expected sha256: and 64 hexadecimal digits; `minik8s token create --print-join` prints it",
        args.ca_hash
    );
    let url: http::Uri =
        args.server.parse().with_context(|| format!("--server {}: not a URL", args.server))?;
    ensure!(
        url.scheme_str() == Some("https") && url.host().is_some(),
        "--server {}: expected https://HOST:PORT",
        args.server
    );
    let dir = &args.run.options.node_dir;
    let manifest = args.filename.as_deref().map(Manifest::read).transpose()?;
    let name = super::name(args.run.name.clone(), None, manifest.as_ref())?;
    let kubeconfig = kubeconfig_of(dir);
    if kubeconfig.exists() {
        already(&kubeconfig, &name, args).await?;
        note(&format!("this machine is node {name} already"));
    } else {
        let (authority, url) = discover(&url, token, &args.ca_hash).await?;
        let mut config = kube::Config::new(url.parse()?);
        config.root_cert = Some(vec![authority.to_vec()]);
        config.auth_info.token = Some(SecretString::from(args.token.clone()));
        let kube = kube::Client::try_from(config)?;
        let client = Client::remote(kube, Arc::new(Registry::builtin()));
        let user = identity::node_user(&name);
        let credentials =
            identity::request(&client, Signer::NodeClient, &user, &[]).await.map_err(explained)?;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let text = identity::kubeconfig(&user, &url, &pki::pem(&authority), &credentials);
        pki::write_private(&kubeconfig, &text)
            .with_context(|| format!("cannot write {}", kubeconfig.display()))?;
        note(&format!("this machine is node {name} now; its certificate is in {}", kubeconfig.display()));
    }
    if let Some(manifest) = &manifest {
        let path = manifest_of(dir);
        pki::write_private(&path, manifest.text())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Makes sure that what this machine has joined is what it is to join.
async fn already(kubeconfig: &Path, name: &str, args: &Join) -> anyhow::Result<()> {
    let member = identity::Member::read(kubeconfig).await?;
    let leave = || "to leave what it has joined, stop its agent and run `minik8s node leave`";
    if let Some(known) = member.node() {
        ensure!(known == name, "this machine is node {known} already, not {name}; {}", leave());
    }
    let known = member.roots().iter().any(|root| pki::fingerprint(root).as_deref() == Some(&args.ca_hash));
    ensure!(known, "this machine is a node of another cluster already; {}", leave());
    Ok(())
}

/// The cluster's authority and URL, as the server says and the token's holder vouches for.
async fn discover(
    url: &http::Uri,
    token: (&str, &str),
    hash: &str,
) -> anyhow::Result<(CertificateDer<'static>, String)> {
    let mut config = kube::Config::new(url.clone());
    // Whose certificate it is cannot be known yet; what is said is checked below.
    config.accept_invalid_certs = true;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    let kube = kube::Client::try_from(config)?;
    let (namespace, name, _) = CLUSTER_INFO;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    let request = http::Request::get(&path).body(Body::empty())?;
    let asked = Timestamp::now();
    let answer = kube.send(request).await.map_err(|error| {
        anyhow::anyhow!(
            "no answer from {url}: {error}; is it the server's address, and can this machine reach it?"
        )
    })?;
    let date = answer.headers().get(http::header::DATE).and_then(|d| d.to_str().ok()).map(ToOwned::to_owned);
    let status = answer.status();
    let body = answer.into_body().collect_bytes().await.context("the server broke off its answer")?;
    ensure!(
        status.is_success(),
        "{url} does not say which cluster it is ({status}): is it a minik8s server, and has it been up for some seconds?"
    );
    let map: ConfigMap = serde_json::from_slice(&body).context("the server's answer is no ConfigMap")?;
    let text = verify(&map.data.unwrap_or_default(), token).map_err(anyhow::Error::msg)?.to_owned();
    let info: Kubeconfig =
        serde_yaml::from_str(&text).context("what the token vouches for is no kubeconfig")?;
    let cluster =
        info.clusters.into_iter().find_map(|c| c.cluster).context("the kubeconfig has no cluster")?;
    let authority = cluster.certificate_authority_data.context("the kubeconfig has no authority")?;
    let authority = CertificateDer::from_pem_slice(identity::decode(&authority)?.as_bytes())?;
    let found = pki::fingerprint(&authority).unwrap_or_default();
    ensure!(
        found == hash,
        "the server's authority is {found}, not {hash}: this is not the cluster that --ca-hash is of; do not go on, \
         unless the hash was mistyped"
    );
    clocks(date.as_deref(), asked, &authority)?;
    let url = cluster.server.filter(|s| !s.is_empty()).unwrap_or_else(|| url.to_string());
    Ok((authority, url))
}

/// Makes sure that this machine's clock is about right: certificates and tokens depend on it.
fn clocks(date: Option<&str>, here: Timestamp, authority: &CertificateDer<'_>) -> anyhow::Result<()> {
    let there = date.and_then(|d| jiff::fmt::rfc2822::parse(d).ok()).map(|zoned| zoned.timestamp());
    if let Some(there) = there {
        let apart = here.duration_since(there);
        ensure!(
            apart.abs() <= SKEW,
            "this machine's clock is {:#} {} the server's: set it right, and join again",
            apart.abs().round(jiff::SignedDurationRound::new().smallest(jiff::Unit::Minute)).unwrap_or(apart),
            if apart.is_negative() { "behind" } else { "ahead of" },
        );
    }
    if let Some(valid) = pki::Validity::of(authority) {
        ensure!(
            valid.from <= here && here < valid.until,
            "this machine's clock says {here}, and the cluster's authority is valid from {} to {}",
            valid.from,
            valid.until
        );
    }
    Ok(())
}

/// What a refusal means here.
fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<ApiError>() {
        Some(api) if api.code() == 401 => error.context(
            "the server does not accept the token: it may have expired; `minik8s token create` makes another",
        ),
        Some(api) if api.is_forbidden() => error.context(
            "the token's holders may not ask for certificates: their group lacks the binding for it",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use minik8s_reconcile::pki::Authority;

    use super::*;

    #[test]
    fn clocks_that_are_far_apart_are_not_put_up_with() {
        let now: Timestamp = "2030-01-01T12:00:00Z".parse().expect("a time");
        let (authority, _) = Authority::generate(now).expect("an authority");
        let check = |date: &str, here: &str| {
            clocks(Some(date), here.parse().expect("a time"), authority.der()).map_err(|e| e.to_string())
        };
        let noon = "Tue, 01 Jan 2030 12:00:00 GMT";
        assert_eq!(check(noon, "2030-01-01T12:04:00Z"), Ok(()));
        let behind = check(noon, "2030-01-01T11:00:00Z").expect_err("an hour");
        assert!(behind.contains("1h behind the server's: set it right"), "{behind}");
        let ahead = check(noon, "2030-01-01T13:30:00Z").expect_err("more than an hour");
        assert!(ahead.contains("ahead of the server's"), "{ahead}");
        let early = clocks(None, "2029-01-01T00:00:00Z".parse().expect("a time"), authority.der());
        assert!(early.expect_err("too early").to_string().contains("valid from 2030-01-01T11:55:00Z"));
    }
}
