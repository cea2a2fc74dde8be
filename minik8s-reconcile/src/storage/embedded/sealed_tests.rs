use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::storage::encryption::Vault;
use crate::storage::{Draft, backup};

const KEY: &str = "secrets/default/a";

/// A configuration that seals Secrets with the first of the keys, each of which is a name and a byte.
fn vault(keys: &[(&str, u8)]) -> Arc<dyn Seal> {
    let key = |(name, byte): &(&str, u8)| {
        format!("{{aesgcm: {{keys: [{{name: {name}, secret: {}}}]}}}}", BASE64_STANDARD.encode([*byte; 32]))
    };
    let providers: Vec<String> = keys.iter().map(key).chain(["{identity: {}}".to_owned()]).collect();
    let text = format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, \
         resources: [{{resources: [secrets], providers: [{}]}}]}}",
        providers.join(", ")
    );
    Arc::new(Vault::parse(&text).expect("a configuration"))
}

async fn put(storage: &EmbeddedStorage, key: &str, text: &str) {
    let head = format!("{{\"text\":\"{text}\",\"metadata\":{{\"resourceVersion\":\"");
    let draft = Draft::new(format!("{head}\"}}}}").into_bytes(), head.len());
    let txn = Txn { compare: Vec::new(), ops: vec![Op::Put(key.to_owned(), draft)] };
    storage.txn(txn).await.expect("a transaction");
}

async fn text(storage: &EmbeddedStorage, key: &str) -> String {
    let value = storage.get(key).await.expect("an answer").expect("a value");
    String::from_utf8(value.json().to_vec()).expect("text")
}

/// Whether any file of the directory holds these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    let files = fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path());
    files.into_iter().any(|f| fs::read(f).expect("a file").windows(bytes.len()).any(|w| w == bytes))
}

#[tokio::test]
async fn secrets_are_sealed_on_the_disk_and_in_backups() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = EmbeddedStorage::sealed(dir.path(), vault(&[("one", 1)])).expect("opens");
    put(&storage, KEY, "hush").await;
    put(&storage, "pods/default/a", "loud").await;
    assert!(text(&storage, KEY).await.contains("hush"));
    assert!(!holds(dir.path(), b"hush") && holds(dir.path(), b"loud"));
    let page = storage.list(&Query::default()).await.expect("a list");
    let copy =
        backup::chunks(page, storage.sealing()).collect::<Result<Vec<_>, _>>().expect("a backup").concat();
    assert!(!copy.windows(4).any(|w| w == b"hush"));
    drop(storage);

    let error = EmbeddedStorage::open(dir.path()).map(drop).expect_err("no key").to_string();
    assert!(error.contains("there is no encryption configuration"), "{error}");
    let error = EmbeddedStorage::sealed(dir.path(), vault(&[("one", 2)])).map(drop).expect_err("another key");
    assert!(error.to_string().contains("cannot be opened with the key \"one\""), "{error}");

    // To look at a backup and to restore it takes no keys; to use what was restored does.
    let restored = tempfile::tempdir().expect("a directory");
    assert_eq!(backup::verify(&copy[..], "backup").expect("whole").objects, 2);
    backup::restore(&copy[..], "backup", restored.path()).expect("restored");
    let storage = EmbeddedStorage::sealed(restored.path(), vault(&[("one", 1)])).expect("opens");
    assert!(text(&storage, KEY).await.contains("hush"));
}

#[tokio::test]
async fn a_new_key_takes_over_all_there_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = EmbeddedStorage::open(dir.path()).expect("opens");
    put(&storage, KEY, "hush").await;
    assert!(holds(dir.path(), b"hush"));
    drop(storage);
    for keys in [&[("one", 1)][..], &[("two", 2), ("one", 1)]] {
        let storage = EmbeddedStorage::sealed(dir.path(), vault(keys)).expect("opens");
        // Everything is written anew behind the next write; dropping waits for it.
        put(&storage, "pods/default/a", "loud").await;
        drop(storage);
        assert!(!holds(dir.path(), b"hush"));
    }
    assert!(!holds(dir.path(), b"aesgcm:v1:one:"));
    let storage =
        EmbeddedStorage::sealed(dir.path(), vault(&[("two", 2)])).expect("the old key is not needed");
    assert!(text(&storage, KEY).await.contains("hush"));
}
