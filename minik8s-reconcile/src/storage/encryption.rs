//! Encryption of what is on the disk: an `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`
//! (<https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>).
//!
//! Of each resource, the first provider writes, and all of them read; so a key is replaced by putting the new one in
//! front of it. The provider is AES-GCM with keys of 128 or 256 bits, or none (`identity`). A value is bound to its
//! key in the storage: one that was moved elsewhere cannot be read.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;

use super::seal::{SEALED, Seal};
use super::{StorageError, shard_of};

/// What sealed values begin with; the name of the key and a colon follow.
const PREFIX: &[u8] = b"k8s:enc:aesgcm:v1:";

/// Why there is no encryption.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", if path.is_empty() || path == "." { String::new() } else { format!("{path}: ") })]
pub struct EncryptionError {
    path: String,
    message: String,
}

/// Seals values on their way to the disk, and opens them on their way back. The default seals nothing, and opens
/// nothing that is sealed.
#[derive(Default)]
pub struct Vault {
    rules: Vec<Rule>,
    random: Option<SystemRandom>,
}

/// How values of some resources are kept.
struct Rule {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

enum Provider {
    /// As they are.
    Identity,
    /// Under a key that has a name.
    AesGcm { name: String, key: Box<LessSafeKey> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    resources: Vec<String>,
    providers: Vec<Providers>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Providers {
    aesgcm: Option<Keys>,
    identity: Option<Nothing>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<NamedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    name: String,
    secret: String,
}

impl Vault {
    /// Reads a configuration in YAML or JSON.
    ///
    /// # Errors
    /// It is none, or asks for what there is not; the error names the field.
    pub fn parse(text: &str) -> Result<Self, EncryptionError> {
        let error =
            |path: String, message: &dyn fmt::Display| EncryptionError { path, message: message.to_string() };
        let reader = serde_yaml::Deserializer::from_str(text);
        let configuration: Configuration =
            serde_path_to_error::deserialize(reader).map_err(|e| error(e.path().to_string(), e.inner()))?;
        let Configuration { api_version, kind, resources } = configuration;
        if (api_version.as_str(), kind.as_str()) != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration")
        {
            let message = format!(
                "expected an EncryptionConfiguration of apiserver.config.k8s.io/v1, found {kind} of {api_version}"
            );
            return Err(error(String::new(), &message));
        }
        let mut rules = Vec::new();
        for (index, Resources { resources, providers }) in resources.into_iter().enumerate() {
            let at = |field: &str| format!("resources[{index}].{field}");
            if resources.is_empty() {
                return Err(error(at("resources"), &"expected at least one resource, such as secrets"));
            }
            let mut found = Vec::new();
            for (number, provider) in providers.into_iter().enumerate() {
                let at = |rest: &str| at(&format!("providers[{number}]{rest}"));
                match provider {
                    Providers { aesgcm: Some(Keys { keys }), identity: None } => {
                        if keys.is_empty() {
                            return Err(error(at(".aesgcm.keys"), &"expected at least one key"));
                        }
                        for (key, NamedKey { name, secret }) in keys.into_iter().enumerate() {
                            let at = |field: &str| at(&format!(".aesgcm.keys[{key}].{field}"));
                            if name.is_empty() || name.contains(':') {
                                return Err(error(
                                    at("name"),
                                    &format!("{name:?}: expected a name without colons"),
                                ));
                            }
                            let secret = BASE64_STANDARD
                                .decode(secret.trim())
                                .map_err(|e| error(at("secret"), &format!("not in base64: {e}")))?;
                            let algorithm = match secret.len() {
                                16 => &AES_128_GCM,
                                32 => &AES_256_GCM,
                                other => {
                                    let message = format!("expected 16 or 32 bytes, found {other}");
                                    return Err(error(at("secret"), &message));
                                }
                            };
                            let key =
                                UnboundKey::new(algorithm, &secret).map_err(|e| error(at("secret"), &e))?;
                            found.push(Provider::AesGcm { name, key: Box::new(LessSafeKey::new(key)) });
                        }
                    }
                    Providers { aesgcm: None, identity: Some(Nothing {}) } => found.push(Provider::Identity),
                    _ => {
                        let message = "expected one provider: aesgcm or identity";
                        return Err(error(at(""), &message));
                    }
                }
            }
            if found.is_empty() {
                return Err(error(at("providers"), &"expected at least one provider"));
            }
            rules.push(Rule { resources, providers: found });
        }
        Ok(Self { rules, random: Some(SystemRandom::new()) })
    }

    fn providers(&self, shard: &str) -> &[Provider] {
        let rule = self.rules.iter().find(|rule| rule.resources.iter().any(|r| includes(r, shard)));
        rule.map_or(&[Provider::Identity], |rule| &rule.providers)
    }
}

impl Seal for Vault {
    fn seal<'a>(&self, key: &str, value: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError> {
        let (Some(Provider::AesGcm { name, key: sealing }), Some(random)) =
            (self.providers(shard_of(key)).first(), &self.random)
        else {
            return Ok(Cow::Borrowed(value));
        };
        let mut nonce = [0; NONCE_LEN];
        let failed = |_| StorageError::Unavailable("the machine has no randomness".to_owned());
        random.fill(&mut nonce).map_err(failed)?;
        let mut sealed = value.to_vec();
        let aad = Aad::from(key.as_bytes());
        sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(failed)?;
        Ok(Cow::Owned([PREFIX, name.as_bytes(), b":", &nonce, &sealed].concat()))
    }

    fn open<'a>(&self, key: &str, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError> {
        if !stored.starts_with(SEALED) {
            return Ok(Cow::Borrowed(stored));
        }
        let corrupt = |why: String| StorageError::Corrupt(format!("{key}: {why}"));
        let rest = stored.strip_prefix(PREFIX);
        let rest = rest.ok_or_else(|| {
            corrupt("it was sealed by a provider that this server does not have".to_owned())
        })?;
        let end = rest.iter().position(|&b| b == b':').unwrap_or(rest.len());
        let (name, sealed) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        let name = String::from_utf8_lossy(name);
        let providers = self.rules.iter().flat_map(|rule| &rule.providers);
        let mut keys = providers.filter_map(|provider| match provider {
            Provider::AesGcm { name: known, key } if *known == name => Some(key),
            _ => None,
        });
        let Some((nonce, sealed)) = sealed.split_first_chunk::<NONCE_LEN>() else {
            return Err(corrupt("what is sealed is cut off".to_owned()));
        };
        let mut known = false;
        let opened = keys.find_map(|opening| {
            known = true;
            let mut value = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = opening.open_in_place(nonce, Aad::from(key.as_bytes()), &mut value).ok()?.len();
            value.truncate(length);
            Some(value)
        });
        match opened {
            Some(value) => Ok(Cow::Owned(value)),
            None if known => {
                Err(corrupt(format!("it cannot be opened with the key {name:?}: either was changed")))
            }
            None => Err(StorageError::Unavailable(format!(
                "{key} is sealed with the key {name:?}, which the encryption configuration does not have"
            ))),
        }
    }

    fn is_stale(&self, key: &str, stored: &[u8]) -> bool {
        match self.providers(shard_of(key)).first() {
            Some(Provider::AesGcm { name, .. }) => {
                let rest = stored.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(name.as_bytes()));
                !rest.is_some_and(|rest| rest.starts_with(b":"))
            }
            Some(Provider::Identity) | None => stored.starts_with(SEALED),
        }
    }
}

/// Whether the entry of a configuration, such as `secrets`, `deployments.apps`, `*.apps` or `*.*`, includes the shard.
fn includes(entry: &str, shard: &str) -> bool {
    let (_, group) = shard.split_once('.').unwrap_or((shard, ""));
    match entry.split_once('.') {
        Some(("*", "*")) => true,
        Some(("*", of)) => of == group,
        _ => entry == shard,
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({} rules)", self.rules.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(providers: &str) -> Vault {
        Vault::parse(&configuration(providers)).expect("a configuration")
    }

    fn configuration(providers: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets, '*.example.com']\n  providers: {providers}\n"
        )
    }

    fn key(name: &str, byte: u8) -> String {
        format!("{{aesgcm: {{keys: [{{name: {name}, secret: {}}}]}}}}", BASE64_STANDARD.encode([byte; 32]))
    }

    #[test]
    fn what_is_secret_is_sealed_and_the_rest_is_not() {
        let vault = vault(&format!("[{}, {{identity: {{}}}}]", key("one", 1)));
        let at = "secrets/default/a";
        let sealed = vault.seal(at, b"{\"secret\":1}").expect("a seal").into_owned();
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:one:"));
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(*vault.open(at, &sealed).expect("opened"), *b"{\"secret\":1}");
        assert_ne!(*vault.seal(at, b"{\"secret\":1}").expect("a seal"), sealed, "no two are the same");
        assert_eq!(*vault.seal("pods/default/a", b"{}").expect("a pod"), *b"{}");
        assert!(vault.seal("widgets.example.com/a/b", b"{}").expect("a widget").len() > 2);
        assert_eq!(*vault.open(at, b"{}").expect("from before"), *b"{}");
        assert!(vault.is_stale(at, b"{}") && !vault.is_stale(at, &sealed));
        // Changed anywhere, cut off anywhere, or moved elsewhere, it is not opened.
        for at_byte in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at_byte] ^= 1;
            let opened = vault.open(at, &changed).map(Cow::into_owned);
            assert!(opened.is_err() || changed[..SEALED.len()] != *SEALED, "{at_byte}");
            assert!(at_byte < SEALED.len() || vault.open(at, &sealed[..at_byte]).is_err(), "{at_byte}");
        }
        let error = vault.open("secrets/default/b", &sealed).expect_err("another's").to_string();
        assert!(error.contains("secrets/default/b: it cannot be opened with the key \"one\""), "{error}");
    }

    #[test]
    fn a_key_is_replaced_by_the_one_in_front_of_it() {
        let at = "secrets/default/a";
        let old = vault(&format!("[{}]", key("one", 1))).seal(at, b"{}").expect("a seal").into_owned();
        let both = vault(&format!("[{}, {}]", key("two", 2), key("one", 1)));
        assert_eq!(*both.open(at, &old).expect("the old key's"), *b"{}");
        assert!(both.is_stale(at, &old));
        let new = both.seal(at, b"{}").expect("a seal").into_owned();
        assert!(!both.is_stale(at, &new));
        let error = vault(&format!("[{}]", key("two", 2))).open(at, &old).expect_err("no key").to_string();
        assert!(
            error.contains("sealed with the key \"one\", which the encryption configuration does not have"),
            "{error}"
        );
        assert!(Vault::default().open(at, &new).is_err());
        let plain = vault(&format!("[{{identity: {{}}}}, {}]", key("two", 2)));
        assert!(plain.is_stale(at, &new) && *plain.open(at, &new).expect("opened") == *b"{}");
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_said() {
        for (text, words) in [
            ("kind: EncryptionConfiguration".to_owned(), "apiVersion"),
            (configuration("[]"), "resources[0].providers: expected at least one"),
            (
                configuration("[{secretbox: {keys: []}}]"),
                "unknown field `secretbox`, expected `aesgcm` or `identity`",
            ),
            (configuration("[{}]"), "resources[0].providers[0]: expected one provider"),
            (configuration("[{aesgcm: {keys: []}}]"), "providers[0].aesgcm.keys: expected at least one"),
            (
                configuration("[{aesgcm: {keys: [{name: a, secret: AAAA}]}}]"),
                "keys[0].secret: expected 16 or 32 bytes, found 3",
            ),
            (configuration("[{aesgcm: {keys: [{name: a, secret: '!'}]}}]"), "keys[0].secret: not in base64"),
            (configuration("[{aesgmc: {keys: []}}]"), "unknown field `aesgmc`"),
        ] {
            let error = Vault::parse(&text).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
