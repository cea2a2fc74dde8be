//! JSON web tokens in their compact form (RFC 7519, RFC 7515). Only what this server writes is read.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::TokenKey;
use super::claims::Claims;

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Tokens of this server are far shorter; longer ones are not looked at.
const LONGEST: usize = 16 * 1024;

/// The signed token that says `claims`.
pub(super) fn encode(key: &dyn TokenKey, claims: &Claims) -> Result<String, String> {
    let header = Header { alg: key.algorithm().to_owned(), kid: key.id().to_owned() };
    let part = |json: serde_json::Result<Vec<u8>>| {
        json.map(|json| BASE64_URL_SAFE_NO_PAD.encode(json)).map_err(|e| e.to_string())
    };
    let mut token = part(serde_json::to_vec(&header))?;
    token.push('.');
    token.push_str(&part(serde_json::to_vec(claims))?);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&BASE64_URL_SAFE_NO_PAD.encode(signature));
    Ok(token)
}

/// What the token says, if `key` has signed it.
pub(super) fn decode(key: &dyn TokenKey, token: &str) -> Option<Claims> {
    if token.len() > LONGEST {
        return None;
    }
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let bytes = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let header: Header = serde_json::from_slice(&bytes(header)?).ok()?;
    // The algorithm is the key's, whatever the token would like.
    if header.alg != key.algorithm() || header.kid != key.id() {
        return None;
    }
    if !key.verify(message.as_bytes(), &bytes(signature)?) {
        return None;
    }
    serde_json::from_slice(&bytes(claims)?).ok()
}
