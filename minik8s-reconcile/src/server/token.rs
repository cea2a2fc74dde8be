//! Tokens with which pods show who they are: signed, short-lived, for an audience, and bound to the pod
//! (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>).

mod authenticate;
#[cfg(feature = "tls")]
pub mod bootstrap;
mod claims;
mod issue;
mod jwt;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use self::claims::Claims;

/// Where Kubernetes' own clients expect tokens to come from.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Tokens whose signatures are remembered; when there are more, all are forgotten.
const REMEMBERED: usize = 4096;

/// A key that signs tokens, and checks what it signed.
pub trait TokenKey: Send + Sync + 'static {
    /// What tells it from other keys.
    fn id(&self) -> &str;
    /// The algorithm as JOSE calls it, such as `ES256`.
    fn algorithm(&self) -> &str;
    /// The signature of `message`.
    ///
    /// # Errors
    /// The machine has no randomness.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
    /// Whether `signature` is this key's, of `message`.
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool;
    /// The public half as a JSON web key.
    fn public(&self) -> Value;
}

/// Issues tokens, and knows them again. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    issuer: String,
    key: Box<dyn TokenKey>,
    /// Tokens whose signatures are good.
    known: Mutex<BTreeMap<String, Arc<Claims>>>,
}

impl Tokens {
    /// Tokens of `issuer`, signed with `key`. The issuer is also the audience of tokens that are for the server itself.
    pub fn new(issuer: impl Into<String>, key: impl TokenKey) -> Self {
        let (issuer, key, known) = (issuer.into(), Box::new(key), Mutex::default());
        Self(Arc::new(Inner { issuer, key, known }))
    }

    /// The audiences of tokens that are for the server itself.
    pub(crate) fn own_audiences(&self) -> Vec<String> {
        vec![self.0.issuer.clone()]
    }

    /// What `/.well-known/openid-configuration` says.
    pub fn openid_configuration(&self) -> Value {
        let issuer = &self.0.issuer;
        json!({
            "issuer": issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.0.key.algorithm()],
        })
    }

    /// What `/openid/v1/jwks` says: the keys with which to check tokens.
    pub fn key_set(&self) -> Value {
        json!({ "keys": [self.0.key.public()] })
    }

    /// The token that says that.
    fn sign(&self, claims: &Claims) -> Result<String, String> {
        jwt::encode(&*self.0.key, claims)
    }

    /// What the token says, if it is this issuer's. Whether it is good at this time and for this purpose is another
    /// question.
    fn read(&self, token: &str) -> Option<Arc<Claims>> {
        if let Some(claims) = self.0.known.lock().expect("no writer panics").get(token) {
            return Some(claims.clone());
        }
        let claims = Arc::new(jwt::decode(&*self.0.key, token)?);
        if claims.iss != self.0.issuer {
            return None;
        }
        let mut known = self.0.known.lock().expect("no writer panics");
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(token.to_owned(), claims.clone());
        Some(claims)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.issuer)
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests;
