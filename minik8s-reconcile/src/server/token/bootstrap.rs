//! Tokens with which machines join, before they have a certificate
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use ring::hmac;

use crate::error::ApiError;
use crate::request::User;
use crate::server::ApiServer;

/// The type of Secrets that hold tokens.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where they are.
pub const NAMESPACE: &str = "kube-system";
/// What their names begin with; the token's id follows.
pub const PREFIX: &str = "bootstrap-token-";
/// The group of all who show such a token; groups that a token adds begin so.
pub const GROUP: &str = "system:bootstrappers";
/// The lengths of the two parts of a token, which a dot separates.
const LENGTHS: (usize, usize) = (6, 16);

/// The id and the secret part of a token; `None` if it does not look like one.
pub fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    ((id.len(), secret.len()) == LENGTHS && plain(id) && plain(secret)).then_some((id, secret))
}

/// A token as its Secret describes it.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    /// Its first part, which is no secret.
    pub id: String,
    /// Its second part.
    pub secret: String,
    /// When it ends; `None` for never.
    pub expiration: Option<Timestamp>,
    /// Whether it says who somebody is.
    pub authenticates: bool,
    /// Whether it vouches for the cluster's address and authority.
    pub signs: bool,
    /// The groups that it adds to [`GROUP`].
    pub groups: Vec<String>,
    /// What it is for, for people.
    pub description: String,
}

impl std::fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BootstrapToken({})", self.id)
    }
}

impl BootstrapToken {
    /// Reads a Secret.
    ///
    /// # Errors
    /// A sentence that says why it is no token.
    pub fn read(secret: &Secret) -> Result<Self, String> {
        let none = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&none);
        let text = |key: &str| match data.get(key) {
            Some(bytes) => String::from_utf8(bytes.0.clone()).map_err(|_| format!("{key} is not UTF-8")),
            None => Ok(String::new()),
        };
        if secret.type_.as_deref() != Some(SECRET_TYPE) {
            return Err(format!("its type is not {SECRET_TYPE}"));
        }
        let (id, part) = (text("token-id")?, text("token-secret")?);
        if parts(&format!("{id}.{part}")).is_none() {
            return Err("token-id must have 6 and token-secret 16 lower-case letters and digits".to_owned());
        }
        if secret.metadata.name.as_deref() != Some(&format!("{PREFIX}{id}")) {
            return Err(format!("its name is not {PREFIX}{id}"));
        }
        let expiration = Some(text("expiration")?).filter(|t| !t.is_empty());
        let expiration =
            expiration.map(|t| t.parse::<Timestamp>().map_err(|e| format!("expiration {t:?}: {e}")));
        let groups = text("auth-extra-groups")?;
        let groups: Vec<String> =
            groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(ToOwned::to_owned).collect();
        if let Some(foreign) = groups.iter().find(|g| !is_group(g)) {
            return Err(format!("auth-extra-groups: {foreign:?} does not begin with {GROUP}:"));
        }
        Ok(Self {
            id,
            secret: part,
            expiration: expiration.transpose()?,
            authenticates: text("usage-bootstrap-authentication")? == "true",
            signs: text("usage-bootstrap-signing")? == "true",
            groups,
            description: text("description")?,
        })
    }

    /// The Secret that describes it.
    pub fn to_secret(&self) -> Secret {
        let mut data = BTreeMap::from([
            ("token-id", self.id.clone()),
            ("token-secret", self.secret.clone()),
            ("usage-bootstrap-authentication", self.authenticates.to_string()),
            ("usage-bootstrap-signing", self.signs.to_string()),
        ]);
        if let Some(expiration) = self.expiration {
            data.insert("expiration", crate::server::create::to_second(expiration).to_string());
        }
        if !self.groups.is_empty() {
            data.insert("auth-extra-groups", self.groups.join(","));
        }
        if !self.description.is_empty() {
            data.insert("description", self.description.clone());
        }
        let mut secret = Secret { type_: Some(SECRET_TYPE.to_owned()), ..Secret::default() };
        secret.metadata.name = Some(format!("{PREFIX}{}", self.id));
        secret.metadata.namespace = Some(NAMESPACE.to_owned());
        secret.data = Some(
            data.into_iter().map(|(k, v)| (k.to_owned(), k8s_openapi::ByteString(v.into_bytes()))).collect(),
        );
        secret
    }

    /// Whether it has ended.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expiration.is_some_and(|end| end <= now)
    }
}

fn is_group(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '-');
    name.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')).is_some_and(|rest| {
        !rest.is_empty() && rest.len() <= 255 && rest.chars().all(plain) && !rest.ends_with([':', '-'])
    })
}

impl ApiServer {
    /// Who shows the token of that id and secret part. The inner error says what is wrong with it.
    pub(in crate::server) async fn bootstrap_user(
        &self,
        (id, secret): (&str, &str),
    ) -> Result<Result<User, &'static str>, ApiError> {
        let key = format!("secrets/{NAMESPACE}/{PREFIX}{id}");
        let Some(stored) = self.storage.get(&key).await? else { return Ok(Err("there is no such token")) };
        let stored = stored.typed::<Secret>().map_err(ApiError::internal)?;
        let token = match BootstrapToken::read(&stored) {
            Ok(token) => token,
            Err(why) => {
                tracing::warn!(secret = %key, why, "no bootstrap token");
                return Ok(Err("its Secret is malformed"));
            }
        };
        if !is_same(&token.secret, secret) {
            return Ok(Err("its secret part is wrong"));
        }
        if stored.metadata.deletion_timestamp.is_some() || token.has_expired(self.clock.now()) {
            return Ok(Err("it has expired"));
        }
        if !token.authenticates {
            return Ok(Err("it is not for authentication"));
        }
        let groups = [vec![GROUP.to_owned()], token.groups].concat();
        Ok(Ok(User::authenticated(&format!("system:bootstrap:{id}"), groups)))
    }
}

/// Whether both are the same; how long that takes does not tell how much of them is.
fn is_same(one: &str, other: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, one.as_bytes());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, other.as_bytes()), b"token");
    hmac::verify(&key, b"token", tag.as_ref()).is_ok()
}
