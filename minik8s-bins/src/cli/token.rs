//! `minik8s token`: with what machines join.

use anyhow::{Context, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::config::Kubeconfig;
use minik8s_api::kind::human_duration;
use minik8s_reconcile::controllers::bootstrap_tokens::CLUSTER_INFO;
use minik8s_reconcile::pki;
use minik8s_reconcile::request::{DeleteParams, ListParams};
use minik8s_reconcile::server::token::bootstrap::{
    self, BootstrapToken, GROUP, NAMESPACE, PREFIX, SECRET_TYPE,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::session::Session;
use super::tabulate::Widths;
use super::{note, print};
use crate::args::Token;
use crate::identity;

/// Makes, shows or deletes tokens.
pub async fn run(session: &Session, command: &Token) -> anyhow::Result<()> {
    match command {
        Token::Create { ttl, description, group, print_join } => {
            let token = create(session, ttl, description, group).await?;
            if *print_join {
                return print(&format!("{}\n", join(session, &token).await?));
            }
            print(&format!("{}.{}\n", token.id, token.secret))
        }
        Token::List => list(session).await,
        Token::Delete { tokens } => delete(session, tokens).await,
    }
}

async fn create(
    session: &Session,
    ttl: &str,
    description: &str,
    groups: &[String],
) -> anyhow::Result<BootstrapToken> {
    let lasting: SignedDuration = match ttl {
        "0" => SignedDuration::ZERO,
        _ => ttl
            .parse()
            .with_context(|| format!("--ttl {ttl}: expected a duration such as 30m or 24h, or 0"))?,
    };
    ensure!(!lasting.is_negative(), "--ttl {ttl}: a token cannot have expired before it is made");
    let expiration = if lasting.is_zero() { None } else { Some(Timestamp::now().checked_add(lasting)?) };
    let token = BootstrapToken {
        id: random(6)?,
        secret: random(16)?,
        expiration,
        authenticates: true,
        signs: true,
        groups: groups.to_vec(),
        description: description.to_owned(),
    };
    let secret = token.to_secret();
    // What the server would not take for a token is refused here, where it can still be put right.
    BootstrapToken::read(&secret)
        .map_err(|why| anyhow::anyhow!("{why}; groups of bootstrap tokens are {GROUP}:NAME"))?;
    session.client().namespaced::<Secret>(NAMESPACE).create(&secret).await?;
    Ok(token)
}

/// The command with which a machine joins.
async fn join(session: &Session, token: &BootstrapToken) -> anyhow::Result<String> {
    let (namespace, name, key) = CLUSTER_INFO;
    let map = session.client().namespaced::<ConfigMap>(namespace).get(name).await?;
    let text = map
        .data
        .as_ref()
        .and_then(|d| d.get(key))
        .with_context(|| format!("{namespace}/{name} has no {key}"))?;
    let info: Kubeconfig = serde_yaml::from_str(text)?;
    let cluster =
        info.clusters.into_iter().find_map(|c| c.cluster).context("the kubeconfig has no cluster")?;
    let authority = cluster.certificate_authority_data.context("the kubeconfig has no authority")?;
    let authority = CertificateDer::from_pem_slice(identity::decode(&authority)?.as_bytes())?;
    let hash = pki::fingerprint(&authority).context("the authority is no certificate")?;
    let server = cluster.server.unwrap_or_default();
    if server.contains("//127.") || server.contains("//localhost") {
        note(&format!(
            "warning: the server says that it is at {server}, where no other machine reaches it; start it with --listen \
             ADDRESS:PORT, or --advertise URL"
        ));
    }
    Ok(format!("minik8s node join --server {server} --token {}.{} --ca-hash {hash}", token.id, token.secret))
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let secrets = session.client().namespaced::<Secret>(NAMESPACE);
    let listed = secrets.list(&ListParams::fields(format!("type={SECRET_TYPE}"))).await?;
    let now = Timestamp::now();
    let headings = ["TOKEN", "TTL", "EXPIRES", "USAGES", "GROUPS", "DESCRIPTION"];
    let mut rows = vec![headings.map(ToOwned::to_owned).to_vec()];
    for secret in &listed.items {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let token = match BootstrapToken::read(secret) {
            Ok(token) => token,
            Err(why) => {
                note(&format!("warning: Secret {NAMESPACE}/{name} is no token: {why}"));
                continue;
            }
        };
        let (ttl, expires) = match token.expiration {
            None => ("<forever>".to_owned(), "<never>".to_owned()),
            Some(end) if end <= now => ("<expired>".to_owned(), end.to_string()),
            Some(end) => (human_duration(end.duration_since(now).as_secs()), end.to_string()),
        };
        let usages = [("authentication", token.authenticates), ("signing", token.signs)];
        let usages: Vec<&str> = usages.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
        let some = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
        rows.push(vec![
            format!("{}.{}", token.id, token.secret),
            ttl,
            expires,
            some(usages.join(",")),
            some(token.groups.join(",")),
            some(token.description),
        ]);
    }
    if rows.len() == 1 {
        note("No tokens found; `minik8s token create` makes one.");
        return Ok(());
    }
    print(&Widths::default().print(&rows))
}

async fn delete(session: &Session, tokens: &[String]) -> anyhow::Result<()> {
    let ids: Vec<&str> = tokens.iter().map(|t| t.split_once('.').map_or(t.as_str(), |(id, _)| id)).collect();
    if let Some(bad) = ids.iter().find(|id| bootstrap::parts(&format!("{id}.{}", "0".repeat(16))).is_none()) {
        bail!("{bad}: a token's id has 6 lower-case letters and digits");
    }
    let secrets = session.client().namespaced::<Secret>(NAMESPACE);
    for id in ids {
        match secrets.delete(&format!("{PREFIX}{id}"), &DeleteParams::default()).await {
            Err(error) if error.is_not_found() => {
                bail!("there is no token {id}; `minik8s token list` shows all")
            }
            done => done?,
        }
        print(&format!("token {id} deleted\n"))?;
    }
    Ok(())
}

/// Letters and digits that nobody guesses.
fn random(length: usize) -> anyhow::Result<String> {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    pki::random(length, ALPHABET).context("the machine has no randomness")
}
