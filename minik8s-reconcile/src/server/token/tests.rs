use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use serde_json::{Value, json};

use super::{DEFAULT_ISSUER, Tokens};
use crate::ApiServer;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::pki::SigningKey;
use crate::request::{ApiRequest, DeleteParams, Operation, Payload, ResponseBody, User, WriteParams};
use crate::storage::memory::MemoryStorage;

struct World {
    server: ApiServer,
}

impl World {
    async fn new() -> Self {
        let (key, _) = SigningKey::generate().expect("a key");
        let clock = Clock::tokio(Timestamp::UNIX_EPOCH);
        let tokens = Tokens::new(DEFAULT_ISSUER, key);
        let server = ApiServer::builder().clock(clock).tokens(tokens).build(MemoryStorage::new());
        server.bootstrap().await.expect("namespaces");
        let world = Self { server };
        for account in ["default", "robot"] {
            world.account(account).await;
        }
        world
    }

    async fn account(&self, name: &str) {
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(name.to_owned());
        self.server
            .client()
            .namespaced::<ServiceAccount>("default")
            .create(&account)
            .await
            .expect("an account");
    }

    async fn pod(&self, name: &str, account: &str, node: &str) -> Result<Arc<Pod>, ApiError> {
        let spec = json!({
            "serviceAccountName": account, "nodeName": node,
            "containers": [{ "name": "c", "image": "i" }],
        });
        let pod = json!({ "metadata": { "name": name }, "spec": spec });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.server.client().namespaced::<Pod>("default").create(&pod).await
    }

    async fn request(&self, who: User, account: &str, spec: Value) -> Result<Value, ApiError> {
        let kind = self.server.registry().of::<ServiceAccount>().expect("a kind").clone();
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
        let operation = Operation::Create(Payload::Json(body.to_string().into()), WriteParams::default());
        let request = ApiRequest {
            name: Some(account.to_owned()),
            subresource: Some("token".to_owned()),
            user: who,
            ..self.server.client().request(kind, Some("default"), operation)
        };
        match self.server.handle(request).await?.body {
            ResponseBody::Object { object, .. } => Ok(serde_json::from_slice(object.json()).expect("JSON")),
            other => panic!("{other:?}"),
        }
    }

    async fn token(&self, account: &str, spec: Value) -> String {
        let answer = self.request(User::internal(), account, spec).await.expect("a token");
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// Who shows the token; `None` for nobody the server knows.
    async fn who(&self, token: &str) -> Option<User> {
        match self.server.bearer(token).await {
            Ok(user) => Some(user),
            Err(error) if error.code() == 401 => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn bound_to(kind: &str, name: &str, uid: Option<&str>) -> Value {
    json!({ "boundObjectRef": { "apiVersion": "v1", "kind": kind, "name": name, "uid": uid } })
}

#[tokio::test(start_paused = true)]
async fn a_token_says_who_it_is_of_until_it_ends() {
    let world = World::new().await;
    let answer = world.request(User::internal(), "robot", json!({})).await.expect("a token");
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    assert_eq!(answer["spec"]["audiences"], json!([DEFAULT_ISSUER]));
    assert_eq!(answer["status"]["expirationTimestamp"], "1970-01-01T01:00:00Z");
    let token = answer["status"]["token"].as_str().expect("a token");
    let user = world.who(token).await.expect("somebody");
    assert_eq!(&*user.name, "system:serviceaccount:default:robot");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(*user.groups, groups.map(ToOwned::to_owned));
    assert!(!user.uid.is_empty());
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert!(world.who(token).await.is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(world.who(token).await.is_none(), "it has expired");
    for (seconds, words) in [(599_i64, "less than 10 minutes"), (1 << 33, "larger than 2^32 seconds")] {
        let spec = json!({ "expirationSeconds": seconds });
        let error = world.request(User::internal(), "robot", spec).await.expect_err(words);
        assert!(error.code() == 422 && error.to_string().contains(words), "{error}");
    }
    let error = world.request(User::internal(), "nobody", json!({})).await.expect_err("no such account");
    assert_eq!(error.to_string(), "serviceaccounts \"nobody\" not found");
}

#[tokio::test]
async fn what_has_been_tampered_with_is_no_token() {
    let world = World::new().await;
    let token = world.token("default", json!({})).await;
    assert!(world.who(&token).await.is_some());
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = |part: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
    };
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims = decoded(parts[1]);
    claims["sub"] = "system:serviceaccount:default:robot".into();
    claims["kubernetes.io"]["serviceaccount"]["name"] = "robot".into();
    let mut header = decoded(parts[0]);
    header["alg"] = "none".into();
    let (foreign, _) = SigningKey::generate().expect("a key");
    let other = Tokens::new(DEFAULT_ISSUER, foreign);
    let same = super::jwt::decode(&*world.server.tokens().expect("tokens").0.key, &token).expect("claims");
    let mut table = vec![
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        format!("{}.{}.{}", parts[0], encoded(&claims), parts[2]),
        format!("{}.{}.", encoded(&header), parts[1]),
        format!("{}.{}.{}", encoded(&header), parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}="),
        other.sign(&same).expect("a token"),
    ];
    // Not a single letter of it may be another one.
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        table.extend(String::from_utf8(bytes).ok().filter(|t| *t != token));
    }
    for bad in table {
        assert!(world.who(&bad).await.is_none(), "{bad}");
    }
    assert!(world.who(&token).await.is_some(), "the real one still is");
    let mut stranger = same.clone();
    stranger.iss = "https://elsewhere".to_owned();
    let signed = world.server.tokens().expect("tokens").sign(&stranger).expect("a token");
    assert!(world.who(&signed).await.is_none(), "another issuer's");
}

#[tokio::test]
async fn a_token_is_for_its_audience() {
    let world = World::new().await;
    let token = world.token("default", json!({ "audiences": ["vault", "bank"] })).await;
    assert!(world.who(&token).await.is_none(), "it is not for the server");
    let review = async |audiences: Value| -> Value {
        let registry = world.server.registry();
        let kind = registry.by_path("authentication.k8s.io", "v1", "tokenreviews");
        let kind = kind.expect("a kind").clone();
        let body = json!({ "spec": { "token": token, "audiences": audiences } });
        let operation = Operation::Create(Payload::Json(body.to_string().into()), WriteParams::default());
        match world.server.client().call(world.server.client().request(kind, None, operation)).await {
            Ok(response) => match response.body {
                ResponseBody::Object { object, .. } => {
                    serde_json::from_slice::<Value>(object.json()).expect("JSON")["status"].clone()
                }
                other => panic!("{other:?}"),
            },
            Err(error) => panic!("{error}"),
        }
    };
    let known = review(json!(["bank", "shop"])).await;
    assert_eq!((&known["authenticated"], &known["audiences"]), (&json!(true), &json!(["bank"])));
    assert_eq!(known["user"]["username"], "system:serviceaccount:default:default");
    let unknown = review(json!(["shop"])).await;
    assert_eq!((&unknown["authenticated"], &unknown["user"]), (&json!(false), &Value::Null));
    assert_eq!(review(json!([])).await["authenticated"], false);
}

#[tokio::test]
async fn a_token_goes_with_what_it_is_bound_to() {
    let world = World::new().await;
    let client = world.server.client();
    let named = |name: &str| json!({ "metadata": { "name": name } });
    let node: Node = serde_json::from_value(named("n1")).expect("a node");
    client.all::<Node>().create(&node).await.expect("a node");
    let secret: Secret = serde_json::from_value(named("s")).expect("a secret");
    client.namespaced::<Secret>("default").create(&secret).await.expect("a secret");
    let pod = world.pod("p", "robot", "n1").await.expect("a pod");
    let uid = pod.metadata.uid.as_deref();

    let of_pod = world.token("robot", bound_to("Pod", "p", uid)).await;
    let of_secret = world.token("robot", bound_to("Secret", "s", None)).await;
    let of_node = world.token("robot", bound_to("Node", "n1", None)).await;
    let free = world.token("robot", json!({})).await;
    let user = world.who(&of_pod).await.expect("somebody");
    let extra = |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!((extra("pod-name"), extra("node-name")), ("p".to_owned(), "n1".to_owned()));
    assert_eq!(Some(extra("pod-uid").as_str()), uid);

    let error =
        world.request(User::internal(), "default", bound_to("Pod", "p", uid)).await.expect_err("not its");
    assert!(error.code() == 400 && error.to_string().contains("different serviceaccount name"), "{error}");
    let error =
        world.request(User::internal(), "robot", bound_to("Pod", "p", Some("x"))).await.expect_err("gone");
    assert!(error.code() == 409 && error.to_string().contains("does not match the UID in record"), "{error}");
    let error =
        world.request(User::internal(), "robot", bound_to("Pod", "q", None)).await.expect_err("no pod");
    assert_eq!(error.code(), 404);
    let error =
        world.request(User::internal(), "robot", bound_to("Job", "q", None)).await.expect_err("no such");
    assert_eq!(error.code(), 400);

    client.namespaced::<Pod>("default").delete("p", &DeleteParams::now()).await.expect("a deletion");
    assert!(world.who(&of_pod).await.is_none(), "its pod is gone");
    world.pod("p", "robot", "n1").await.expect("another pod");
    assert!(world.who(&of_pod).await.is_none(), "another pod of that name is another");
    client.namespaced::<Secret>("default").delete("s", &DeleteParams::default()).await.expect("a deletion");
    assert!(world.who(&of_secret).await.is_none(), "its secret is gone");
    client.all::<Node>().delete("n1", &DeleteParams::default()).await.expect("a deletion");
    assert!(world.who(&of_node).await.is_none(), "its node is gone");
    assert!(world.who(&free).await.is_some());
    let accounts = client.namespaced::<ServiceAccount>("default");
    accounts.delete("robot", &DeleteParams::default()).await.expect("a deletion");
    assert!(world.who(&free).await.is_none(), "its account is gone");
    world.account("robot").await;
    assert!(world.who(&free).await.is_none(), "another account of that name is another");
}

#[tokio::test]
async fn nodes_get_tokens_for_their_pods() {
    let world = World::new().await;
    let pod = world.pod("p", "robot", "n1").await.expect("a pod");
    let uid = pod.metadata.uid.as_deref();
    let node =
        |name: &str| User::authenticated(&format!("system:node:{name}"), vec!["system:nodes".to_owned()]);
    world.request(node("n1"), "robot", bound_to("Pod", "p", uid)).await.expect("its own pod");
    let table = [
        ("n1", json!({}), "not bound to a pod"),
        ("n1", bound_to("Pod", "p", None), "without a uid"),
        ("n2", bound_to("Pod", "p", uid), "scheduled on a different node"),
        ("n1", bound_to("Secret", "s", None), "not bound to a pod"),
    ];
    for (name, spec, words) in table {
        let error = world.request(node(name), "robot", spec).await.expect_err(words);
        assert!(error.code() == 403 && error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn pods_are_given_their_account() {
    let world = World::new().await;
    let pod = world.pod("p", "robot", "").await.expect("a pod");
    let spec = pod.spec.clone().expect("a spec");
    let volumes = spec.volumes.expect("volumes");
    let volume = volumes.iter().find(|v| v.name.starts_with("kube-api-access-")).expect("a volume");
    let sources = volume.projected.clone().and_then(|p| p.sources).expect("sources");
    assert_eq!(sources.len(), 3);
    let mounts = spec.containers[0].volume_mounts.clone().expect("mounts");
    assert_eq!(mounts[0].mount_path, "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mounts[0].name, volume.name);

    let error = world.pod("q", "nobody", "").await.expect_err("no such account");
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (
            403,
            "pods \"q\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not \
             found"
        )
    );

    let accounts = world.server.client().namespaced::<ServiceAccount>("default");
    let mut account = (*accounts.get("robot").await.expect("an account")).clone();
    account.automount_service_account_token = Some(false);
    account.image_pull_secrets = serde_json::from_value(json!([{ "name": "registry" }])).expect("a list");
    accounts.update(&account).await.expect("an update");
    let pod = world.pod("r", "robot", "").await.expect("a pod");
    let spec = pod.spec.clone().expect("a spec");
    assert_eq!(spec.volumes, None);
    assert_eq!(spec.image_pull_secrets.expect("secrets")[0].name, "registry");
}

#[tokio::test]
async fn a_pod_waits_for_the_default_account_of_its_namespace() {
    let world = World::new().await;
    let accounts = world.server.client().namespaced::<ServiceAccount>("default");
    accounts.delete("default", &DeleteParams::default()).await.expect("a deletion");
    let (pod, ()) = tokio::join!(world.pod("p", "default", ""), async {
        tokio::task::yield_now().await;
        world.account("default").await;
    });
    pod.expect("a pod");
}

#[test]
fn a_key_is_made_once_and_kept_private() {
    use std::os::unix::fs::PermissionsExt;

    use super::TokenKey;
    let dir = tempfile::tempdir().expect("a folder");
    let first = SigningKey::open(dir.path()).expect("a key");
    let second = SigningKey::open(dir.path()).expect("a key");
    let signature = first.sign(b"message").expect("a signature");
    assert!(second.verify(b"message", &signature) && !second.verify(b"massage", &signature));
    let mode = std::fs::metadata(dir.path().join("sa.key")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(dir.path().join("sa.key"), "rubbish").expect("a file");
    assert!(SigningKey::open(dir.path()).is_err(), "a key that is damaged is not replaced");
}
