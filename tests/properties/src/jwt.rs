//! Tokens of service accounts.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use minik8s_reconcile::ApiServer;
use minik8s_reconcile::clock::Clock;
use minik8s_reconcile::request::{ApiRequest, Operation, Payload, ResponseBody, WriteParams};
use minik8s_reconcile::server::token::{DEFAULT_ISSUER, TokenKey, Tokens};
use minik8s_reconcile::storage::memory::MemoryStorage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Signs with a hash of a secret and the message: the same on each run, which a real key's signatures are not.
struct Key;

impl TokenKey for Key {
    fn id(&self) -> &str {
        "key"
    }

    fn algorithm(&self) -> &str {
        "ES256"
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Sha256::new().chain_update(b"secret").chain_update(message).finalize().to_vec())
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.sign(message).is_ok_and(|s| s == signature)
    }

    fn public(&self) -> Value {
        Value::Null
    }
}

/// No text but a token that was issued is one; and one that is, is of the account that it was issued to, whatever else
/// stands in it. The input is a token, claims to be signed, or changes to a good token: pairs of a place and a byte.
pub(crate) fn holds(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let now = Timestamp::UNIX_EPOCH;
        let clock = Clock::tokio(now);
        let builder = ApiServer::builder().registry(crate::registry().clone()).clock(clock);
        let server = builder.tokens(Tokens::new(DEFAULT_ISSUER, Key)).build(MemoryStorage::new());
        server.bootstrap().await.expect("namespaces");
        let mut account = ServiceAccount::default();
        account.metadata.name = Some("robot".to_owned());
        server.client().namespaced("default").create(&account).await.expect("an account");
        let good = issued(&server).await;
        server.bearer(&good).await.expect("a good token");

        if let Ok(text) = std::str::from_utf8(data) {
            refused(&server, text, &good).await;
        }
        let mut bytes = good.clone().into_bytes();
        for pair in data.chunks_exact(2) {
            let at = usize::from(pair[0]) * 3 % bytes.len();
            bytes[at] = pair[1];
        }
        if let Ok(text) = String::from_utf8(bytes) {
            refused(&server, &text, &good).await;
        }
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"key"}"#);
        let message = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(data));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(Key.sign(message.as_bytes()).expect("a signature"));
        match server.bearer(&format!("{message}.{signature}")).await {
            Ok(user) => assert_eq!(&*user.name, "system:serviceaccount:default:robot"),
            Err(error) => assert_eq!(error.code(), 401, "{error}"),
        }
    });
}

async fn refused(server: &ApiServer, token: &str, good: &str) {
    match server.bearer(token).await {
        Ok(_) => assert_eq!(token, good),
        Err(error) => assert_eq!(error.code(), 401, "{error}"),
    }
}

async fn issued(server: &ApiServer) -> String {
    let kind = server.registry().of::<ServiceAccount>().expect("a kind").clone();
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    let operation = Operation::Create(Payload::Json(body.to_string().into()), WriteParams::default());
    let request = ApiRequest {
        name: Some("robot".to_owned()),
        subresource: Some("token".to_owned()),
        ..server.client().request(kind, Some("default"), operation)
    };
    match server.handle(request).await.expect("a token").body {
        ResponseBody::Object { object, .. } => {
            let answer: Value = serde_json::from_slice(object.json()).expect("JSON");
            answer["status"]["token"].as_str().expect("a token").to_owned()
        }
        other => panic!("{other:?}"),
    }
}
