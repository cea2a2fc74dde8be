use std::sync::Arc;

use k8s_openapi::api::authorization::v1::SubjectRulesReviewStatus;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::error::ApiError;
use crate::request::{ApiRequest, ListParams, Operation, Patch, Payload, ResponseBody, User, WriteParams};
use crate::server::authorizer::{Action, AlwaysAllow, Authorizer, Decision};
use crate::storage::memory::MemoryStorage;

/// Lets members of `readers` get things, and the server itself and reviews do everything.
struct Readers;

impl Authorizer for Readers {
    fn authorize(&self, user: &User, action: &Action<'_>) -> Decision {
        let allowed = match action {
            _ if *user == User::internal() => true,
            Action::Resource { resource, .. } if resource.ends_with("reviews") => true,
            Action::Resource { verb, .. } => *verb == "get" && user.groups.iter().any(|g| g == "readers"),
            Action::NonResource { path, .. } => *path == "/healthz",
        };
        Decision { allowed, denied: false, reason: if allowed { "a reader" } else { "" }.to_owned() }
    }

    fn rules(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus {
        AlwaysAllow.rules(user, namespace)
    }
}

async fn post(
    server: &ApiServer,
    user: User,
    place: (&str, &str),
    namespace: Option<&str>,
    body: Value,
) -> Result<Value, ApiError> {
    let kind = server.registry().by_path(place.0, "v1", place.1).expect("a kind").clone();
    let operation = Operation::Create(Payload::Json(body.to_string().into()), WriteParams::default());
    let request = ApiRequest { user, ..server.client().request(kind, namespace, operation) };
    match server.handle(request).await?.body {
        ResponseBody::Object { object, created: true } => {
            Ok(serde_json::from_slice(object.json()).expect("JSON"))
        }
        other => panic!("{other:?}"),
    }
}

const AUTHORIZATION: &str = "authorization.k8s.io";

#[tokio::test]
async fn who_am_i() {
    let server = ApiServer::new(MemoryStorage::new());
    let mut user = User::named("ann", &["a", "b"]);
    user.extra = Arc::new([("k".to_owned(), vec!["v".to_owned()])].into());
    let place = ("authentication.k8s.io", "selfsubjectreviews");
    let review = post(&server, user, place, None, json!({})).await.expect("a review");
    let expected = json!({ "username": "ann", "groups": ["a", "b"], "extra": { "k": ["v"] } });
    assert_eq!((&review["status"]["userInfo"], &review["kind"]), (&expected, &json!("SelfSubjectReview")));
    let place = ("authentication.k8s.io", "tokenreviews");
    let body = json!({ "spec": { "token": "x" } });
    let review = post(&server, User::internal(), place, None, body).await.expect("a review");
    assert_eq!(review["status"]["authenticated"], false);
    assert_eq!(
        post(&server, User::internal(), place, None, json!({})).await.expect_err("no token").code(),
        400
    );
    let kind = server.registry().by_path(place.0, "v1", place.1).expect("a kind").clone();
    let list = server.client().request(kind, None, Operation::List(ListParams::default()));
    assert_eq!(server.handle(list).await.expect_err("nothing is stored").code(), 405);
}

#[tokio::test]
async fn what_may_be_done() {
    let server = ApiServer::builder().authorizer(Readers).build(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let get = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let own = (AUTHORIZATION, "selfsubjectaccessreviews");
    let reader = User::named("ann", &["readers"]);
    let review = post(&server, reader.clone(), own, None, get.clone()).await.expect("a review");
    assert_eq!(review["status"], json!({ "allowed": true, "reason": "a reader" }));
    let review = post(&server, User::anonymous(), own, None, get).await.expect("a review");
    assert_eq!(review["status"], json!({ "allowed": false }));
    let path = json!({ "spec": { "nonResourceAttributes": { "verb": "get", "path": "/healthz" } } });
    let review = post(&server, User::anonymous(), own, None, path).await.expect("a review");
    assert_eq!(review["status"]["allowed"], true);
    assert_eq!(
        post(&server, User::anonymous(), own, None, json!({})).await.expect_err("nothing asked").code(),
        422
    );

    let other = (AUTHORIZATION, "subjectaccessreviews");
    let mut body = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let error = post(&server, User::anonymous(), other, None, body.clone()).await.expect_err("nobody named");
    assert!(error.to_string().contains("at least one of user or group must be specified"), "{error}");
    body["spec"]["groups"] = json!(["readers"]);
    let review = post(&server, User::anonymous(), other, None, body.clone()).await.expect("a review");
    assert_eq!(review["status"]["allowed"], true);
    let local = (AUTHORIZATION, "localsubjectaccessreviews");
    assert_eq!(
        post(&server, User::anonymous(), local, Some("default"), body.clone())
            .await
            .expect_err("elsewhere")
            .code(),
        422
    );
    body["spec"]["resourceAttributes"]["namespace"] = "default".into();
    let review = post(&server, User::anonymous(), local, Some("default"), body).await.expect("a review");
    assert_eq!(review["status"]["allowed"], true);
    let rules = (AUTHORIZATION, "selfsubjectrulesreviews");
    let body = json!({ "spec": { "namespace": "default" } });
    let review = post(&server, reader, rules, None, body).await.expect("a review");
    assert_eq!(review["status"]["resourceRules"][0]["verbs"], json!(["*"]));
}

#[tokio::test]
async fn what_may_not_be_done_is_refused() {
    let server = ApiServer::builder().authorizer(Readers).build(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let error = post(&server, User::anonymous(), ("", "configmaps"), Some("default"), json!({}))
        .await
        .expect_err("anybody");
    assert_eq!((error.code(), error.reason()), (403, "Forbidden"));
    let words = "configmaps is forbidden: User \"system:anonymous\" cannot create resource \"configmaps\" in API \
                 group \"\" in the namespace \"default\"";
    assert_eq!(error.to_string(), words);
}

#[tokio::test]
async fn certificates_are_asked_for_and_approved() {
    let server = ApiServer::new(MemoryStorage::new());
    let place = ("certificates.k8s.io", "certificatesigningrequests");
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let body = json!({
        "metadata": { "name": "a" },
        "spec": {
            "request": pem, "signerName": "example.com/a", "usages": ["client auth"], "username": "somebody else",
        },
    });
    let ann = User::named("ann", &["a"]);
    let made = post(&server, ann, place, None, body).await.expect("a request");
    assert_eq!((&made["spec"]["username"], &made["spec"]["groups"]), (&json!("ann"), &json!(["a"])));
    let kind = server.registry().by_path(place.0, "v1", place.1).expect("a kind").clone();
    let mut approved = made.clone();
    approved["spec"]["username"] = "mallory".into();
    approved["status"]["certificate"] = "AAAA".into();
    approved["status"]["conditions"] = json!([{ "type": "Approved", "status": "True", "reason": "me" }]);
    let operation = Operation::Update(Payload::Json(approved.to_string().into()), WriteParams::default());
    let request = ApiRequest {
        name: Some("a".to_owned()),
        subresource: Some("approval".to_owned()),
        ..server.client().request(kind.clone(), None, operation)
    };
    let ResponseBody::Object { object, .. } = server.handle(request).await.expect("approved").body else {
        panic!("an object")
    };
    let now: Value = serde_json::from_slice(object.json()).expect("JSON");
    assert_eq!(now["spec"], made["spec"], "an approval changes no request");
    assert_eq!(now["status"].get("certificate"), None, "nor does it sign");
    assert!(now["status"]["conditions"][0]["lastTransitionTime"].is_string(), "{now}");
    let signed = json!({ "status": {
        "certificate": "AAAA", "conditions": [{ "type": "Denied", "status": "True", "reason": "me" }],
    } });
    let operation = Operation::Patch(Patch::merge(&signed), WriteParams::default());
    let request = ApiRequest {
        name: Some("a".to_owned()),
        subresource: Some("status".to_owned()),
        ..server.client().request(kind, None, operation)
    };
    let ResponseBody::Object { object, .. } = server.handle(request).await.expect("signed").body else {
        panic!("an object")
    };
    let now: Value = serde_json::from_slice(object.json()).expect("JSON");
    assert_eq!(now["status"]["certificate"], "AAAA");
    assert_eq!(now["status"]["conditions"][0]["type"], "Approved", "a signer does not decide");
    assert_eq!(now["status"]["conditions"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn pods_are_bound_by_name() {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let pods = server.client().namespaced::<Pod>("default");
    let pod = json!({
        "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
    });
    pods.create(&serde_json::from_value(pod).expect("a pod")).await.expect("create");
    let kind = server.registry().by_path("", "v1", "bindings").expect("a kind").clone();
    let bind = |name: &str| {
        let body = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "n1" } });
        let payload = Payload::Json(body.to_string().into());
        server.client().request(
            kind.clone(),
            Some("default"),
            Operation::Create(payload, WriteParams::default()),
        )
    };
    assert!(matches!(server.handle(bind("a")).await.expect("bound").body, ResponseBody::Done));
    let bound = pods.get("a").await.expect("get");
    assert_eq!(bound.spec.as_ref().and_then(|s| s.node_name.as_deref()), Some("n1"));
    assert!(server.handle(bind("a")).await.expect_err("once").is_conflict());
    assert!(server.handle(bind("none")).await.expect_err("no pod").is_not_found());
}
