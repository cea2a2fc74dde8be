//! Bootstrap tokens: with those that may, the cluster's address and authority are signed, so that whoever holds one can
//! tell that they are the cluster's; and those that have expired go
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use ring::hmac;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::{Api, Client};
use crate::clock::Clock;
use crate::error::ApiError;
use crate::request::{DeleteParams, ListParams, WatchParams};
use crate::server::token::bootstrap::{BootstrapToken, NAMESPACE, SECRET_TYPE};

/// Where everybody may read the cluster's address and authority: namespace, name and key.
pub const CLUSTER_INFO: (&str, &str, &str) = ("kube-public", "cluster-info", "kubeconfig");
/// What the keys of signatures begin with; a token's id follows.
const SIGNATURE: &str = "jws-kubeconfig-";
/// How long to wait after something failed.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Tokens that have expired: names of Secrets, and their uids.
    expired: Vec<(String, Option<String>)>,
    /// What the ConfigMap must hold.
    data: BTreeMap<String, String>,
    /// When the next token expires.
    next: Option<Timestamp>,
}

/// Works on the server of `client` until `stop`. `kubeconfig` says where the cluster is, and which authority it has.
pub async fn run(client: Client, clock: Clock, kubeconfig: String, stop: CancellationToken) {
    let looking = async {
        loop {
            if let Err(error) = follow(&client, &clock, &kubeconfig).await {
                tracing::warn!(%error, "cannot look after bootstrap tokens");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = looking => {}
    }
}

/// Looks, acts, and waits until there is something else to see.
async fn follow(client: &Client, clock: &Clock, kubeconfig: &str) -> Result<(), ApiError> {
    let (namespace, name, _) = CLUSTER_INFO;
    let secrets = client.namespaced::<Secret>(NAMESPACE);
    let maps = client.namespaced::<ConfigMap>(namespace);
    let tokens = format!("type={SECRET_TYPE}");
    let listed = secrets.list(&ListParams::fields(&tokens)).await?;
    let map = maps.get_opt(name).await?;
    let since = |field_selector: String, revision| WatchParams {
        field_selector,
        resource_version: Some(revision),
        ..WatchParams::default()
    };
    let mut moves = secrets.watch(&since(tokens, listed.revision)).await?;
    let mut spoils = maps.watch(&since(format!("metadata.name={name}"), listed.revision)).await?;
    let now = clock.now();
    let listed: Vec<&Secret> = listed.items.iter().map(|s| &**s).collect();
    let plan = plan(&listed, kubeconfig, now);
    for (name, uid) in plan.expired {
        let params = DeleteParams { uid, ..DeleteParams::default() };
        match secrets.delete(&name, &params).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
            _ => tracing::info!(secret = name, "a bootstrap token has expired"),
        }
    }
    write(&maps, map.as_deref(), plan.data).await?;
    // Never longer than that, whatever the machine's clock does meanwhile.
    let longest = Duration::from_secs(3600);
    let pause =
        plan.next.and_then(|at| at.duration_since(now).try_into().ok()).unwrap_or(longest).min(longest);
    tokio::select! {
        biased;
        event = moves.next() => event.transpose().map(drop),
        event = spoils.next() => event.transpose().map(drop),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

fn plan(secrets: &[&Secret], kubeconfig: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    plan.data.insert(CLUSTER_INFO.2.to_owned(), kubeconfig.to_owned());
    for secret in secrets {
        let name = secret.metadata.name.clone().unwrap_or_default();
        // What is malformed is nobody's token, and somebody's to mend.
        let Ok(token) = BootstrapToken::read(secret) else { continue };
        if token.has_expired(now) {
            plan.expired.push((name, secret.metadata.uid.clone()));
            continue;
        }
        if token.signs {
            plan.data.insert(format!("{SIGNATURE}{}", token.id), sign(kubeconfig, &token));
        }
        plan.next = [plan.next, token.expiration].into_iter().flatten().min();
    }
    plan
}

async fn write(
    maps: &Api<ConfigMap>,
    there: Option<&ConfigMap>,
    data: BTreeMap<String, String>,
) -> Result<(), ApiError> {
    let data = Some(data);
    match there {
        Some(map) if map.data == data => Ok(()),
        Some(map) => match maps.update(&ConfigMap { data, ..map.clone() }).await {
            // Somebody else wrote it: the next look shows what.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            other => other.map(drop),
        },
        None => {
            let mut map = ConfigMap { data, ..ConfigMap::default() };
            map.metadata.name = Some(CLUSTER_INFO.1.to_owned());
            match maps.create(&map).await {
                Err(error) if error.is_already_exists() => Ok(()),
                other => other.map(drop),
            }
        }
    }
}

/// A detached JSON web signature of `text`, made with the token.
fn sign(text: &str, token: &BootstrapToken) -> String {
    let head = BASE64_URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": token.id }).to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_bytes());
    let signature = hmac::sign(&key, signed(&head, text).as_bytes());
    format!("{head}..{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn signed(head: &str, text: &str) -> String {
    format!("{head}.{}", BASE64_URL_SAFE_NO_PAD.encode(text))
}

/// The kubeconfig in the cluster-info `data`, if the holder of the token of that id and secret part signed it.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn verify<'a>(data: &'a BTreeMap<String, String>, (id, secret): (&str, &str)) -> Result<&'a str, String> {
    let (namespace, name, key) = CLUSTER_INFO;
    let kubeconfig = data.get(key).ok_or_else(|| format!("the ConfigMap {namespace}/{name} has no {key}"))?;
    let signature = data.get(&format!("{SIGNATURE}{id}")).ok_or_else(|| {
        format!("the server knows no token {id} that vouches for it: the token has expired, or is another cluster's")
    })?;
    let wrong = || "the signature is not the token's: this is not the server that the token is of".to_owned();
    let (head, tag) = signature.split_once("..").ok_or_else(wrong)?;
    let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).map_err(|_| wrong())?;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&secret, signed(head, kubeconfig).as_bytes(), &tag).map_err(|_| wrong())?;
    Ok(kubeconfig)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str, expiration: Option<&str>) -> BootstrapToken {
        BootstrapToken {
            id: id.to_owned(),
            secret: "0123456789abcdef".to_owned(),
            expiration: expiration.map(|e| e.parse().expect("a time")),
            authenticates: true,
            signs: true,
            groups: Vec::new(),
            description: String::new(),
        }
    }

    #[test]
    fn tokens_sign_until_they_expire() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
        let silent = BootstrapToken { signs: false, ..token("silent", None) };
        let secrets = [
            token("expred", Some("2030-01-01T00:00:00Z")).to_secret(),
            token("coming", Some("2030-01-02T00:00:00Z")).to_secret(),
            token("eterna", None).to_secret(),
            silent.to_secret(),
        ];
        let plan = plan(&secrets.iter().collect::<Vec<_>>(), "the kubeconfig", now);
        assert_eq!(plan.expired, [("bootstrap-token-expred".to_owned(), None)]);
        assert_eq!(plan.next, Some("2030-01-02T00:00:00Z".parse().expect("a time")));
        let keys: Vec<&str> = plan.data.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-coming", "jws-kubeconfig-eterna", "kubeconfig"]);
        let part = "0123456789abcdef";
        assert_eq!(verify(&plan.data, ("coming", part)), Ok("the kubeconfig"));
        for bad in [("silent", part), ("expred", part), ("coming", "0123456789abcdee")] {
            assert!(verify(&plan.data, bad).is_err(), "{bad:?}");
        }
        let mut forged = plan.data.clone();
        forged.insert("kubeconfig".to_owned(), "another".to_owned());
        assert!(verify(&forged, ("coming", part)).expect_err("forged").contains("not the server"));
    }

    #[test]
    fn what_is_no_token_is_said() {
        let good = token("abcdef", Some("2030-01-01T00:00:00Z"));
        assert_eq!(BootstrapToken::read(&good.to_secret()), Ok(good.clone()));
        let broken = |change: &dyn Fn(&mut Secret)| {
            let mut secret = good.to_secret();
            change(&mut secret);
            BootstrapToken::read(&secret).expect_err("no token")
        };
        let set = |key: &'static str, value: &'static str| {
            move |secret: &mut Secret| {
                let value = k8s_openapi::ByteString(value.as_bytes().to_vec());
                secret.data.get_or_insert_default().insert(key.to_owned(), value);
            }
        };
        assert!(broken(&|s| s.type_ = None).contains("type"));
        assert!(broken(&|s| s.metadata.name = Some("x".to_owned())).contains("name"));
        assert!(broken(&set("token-secret", "short")).contains("16 lower-case"));
        assert!(broken(&set("expiration", "tomorrow")).contains("expiration \"tomorrow\""));
        assert!(broken(&set("auth-extra-groups", "system:masters")).contains("auth-extra-groups"));
    }
}
