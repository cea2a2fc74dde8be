//! The key that signs tokens of service accounts.

use std::fmt;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::{PkiError, write_private};
use crate::server::token::TokenKey;

/// A key on the curve P-256: tokens are signed with ES256.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// A new key, and its PEM.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub fn generate() -> Result<(Self, String), PkiError> {
        let pem = KeyPair::generate()?.serialize_pem();
        Ok((Self::from_pem(&pem)?, pem))
    }

    /// The key of that PEM, in PKCS #8.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let malformed = |e: &dyn fmt::Display| PkiError::Malformed(format!("no signing key: {e}"));
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(&e))?;
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
                .map_err(|e| malformed(&e))?;
        let hash = digest::digest(&digest::SHA256, pair.public_key().as_ref());
        Ok(Self { id: BASE64_URL_SAFE_NO_PAD.encode(hash), pair, random })
    }

    /// The key that is in `dir` as `sa.key`; it is made where there is none. Of several processes that do so at once, one
    /// wins and all get the same.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no key.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("sa.key");
        let at = |error| PkiError::File { path: path.clone(), error };
        fs::create_dir_all(dir).map_err(at)?;
        let lock = fs::File::create(dir.join(".lock")).map_err(at)?;
        lock.lock().map_err(at)?;
        if path.exists() {
            return Self::from_pem(&fs::read_to_string(&path).map_err(at)?);
        }
        let (key, pem) = Self::generate()?;
        write_private(&path, &pem).map_err(at)?;
        Ok(key)
    }
}

impl TokenKey for SigningKey {
    fn id(&self) -> &str {
        &self.id
    }

    fn algorithm(&self) -> &str {
        "ES256"
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.pair.sign(&self.random, message).map_err(|e| e.to_string())?;
        Ok(signature.as_ref().to_vec())
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        public.verify(message, signature).is_ok()
    }

    fn public(&self) -> Value {
        // A point: a byte for its form, and both coordinates, which are of the same length.
        let point = &self.pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let encode = |part| BASE64_URL_SAFE_NO_PAD.encode(part);
        json!({
            "use": "sig", "kty": "EC", "crv": "P-256", "alg": self.algorithm(), "kid": self.id,
            "x": encode(x), "y": encode(y),
        })
    }
}
