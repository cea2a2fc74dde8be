use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;

use super::policy::About;
use super::{Audit, Level, LogFile, Peer, Policy, Rotation, Sink, Stage};
use crate::http::route::Route;
use crate::http::{Body, Frontend};
use crate::request::User;
use crate::server::ApiServer;
use crate::storage::memory::MemoryStorage;

/// A sink that a test reads.
#[derive(Clone, Default)]
pub(in crate::http) struct Lines(pub(in crate::http) Arc<Mutex<Vec<Value>>>);

impl Sink for Lines {
    fn write(&self, line: String) {
        self.0.lock().expect("lines").push(serde_json::from_str(&line).expect("JSON"));
    }
}

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: ["system:kube-proxy"]
    verbs: ["watch"]
    resources: [{group: "", resources: ["endpoints", "services"]}]
  - level: None
    userGroups: ["system:authenticated"]
    nonResourceURLs: ["/api*", "/version"]
  - level: Request
    resources: [{group: "", resources: ["configmaps"]}]
    namespaces: ["kube-system"]
  - level: RequestResponse
    resources: [{group: "", resources: ["pods"]}]
    omitManagedFields: true
  - level: Metadata
    resources: [{group: "", resources: ["pods/log", "pods/status"]}]
  - level: None
    resources: [{group: "", resources: ["configmaps"], resourceNames: ["controller-leader"]}]
  - level: Metadata
    resources: [{group: "", resources: ["secrets", "configmaps"]}]
  - level: Request
    resources: [{group: ""}, {group: "extensions"}]
  - level: Metadata
    omitStages: [ResponseStarted]
"#;

#[test]
fn the_first_rule_that_is_about_a_request_decides() {
    let policy = Policy::parse(POLICY).expect("a policy");
    let jane = User::authenticated("jane", Vec::new());
    let proxy = User::authenticated("system:kube-proxy", Vec::new());
    for (user, verb, path, level) in [
        (&proxy, "watch", "/api/v1/services", Level::None),
        (&jane, "watch", "/api/v1/services", Level::Request),
        (&proxy, "list", "/api/v1/services", Level::Request),
        (&jane, "get", "/version", Level::None),
        (&jane, "get", "/apis", Level::None),
        (&User::anonymous(), "get", "/version", Level::Metadata),
        (&jane, "get", "/healthz", Level::Metadata),
        (&jane, "get", "/api/v1/namespaces/kube-system/configmaps/a", Level::Request),
        (&jane, "get", "/api/v1/namespaces/default/configmaps/a", Level::Metadata),
        (&jane, "update", "/api/v1/namespaces/default/configmaps/controller-leader", Level::None),
        (&jane, "create", "/api/v1/namespaces/default/pods", Level::RequestResponse),
        (&jane, "get", "/api/v1/namespaces/default/pods/p/log", Level::Metadata),
        (&jane, "create", "/api/v1/namespaces/default/pods/p/exec", Level::Request),
        (&jane, "list", "/apis/apps/v1/deployments", Level::Metadata),
    ] {
        let route = Route::parse(path).expect("a path");
        let place = if let Route::Resource(place) = &route { Some(place) } else { None };
        let (found, omitted, managed) = policy.of(&About { user, verb, path, place });
        assert_eq!(found, level, "{} {verb} {path}", user.name);
        if level != Level::None {
            assert!(omitted.contains(&Stage::RequestReceived));
            assert_eq!(managed, level != Level::RequestResponse);
        }
    }
}

#[test]
fn what_is_wrong_with_a_policy_is_said() {
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    for (text, words) in [
        ("kind: Policy".to_owned(), "apiVersion"),
        (
            "apiVersion: v1\nkind: Policy\nrules: [{level: None}]".to_owned(),
            "expected a Policy of audit.k8s.io/v1",
        ),
        (head.to_owned(), "rules: expected at least one rule"),
        (format!("{head}rules: [{{level: All}}]"), "rules[0].level: unknown variant `All`"),
        (format!("{head}rules: [{{level: None, verb: [get]}}]"), "unknown field `verb`"),
        (
            format!("{head}rules: [{{level: None, nonResourceURLs: [healthz]}}]"),
            "rules[0].nonResourceURLs: \"healthz\"",
        ),
        (format!("{head}rules: [{{level: None, resources: [{{group: apps/v1}}]}}]"), "without its version"),
    ] {
        let error = Policy::parse(&text).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_file_is_rotated_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("audit.log");
    let rotation = Rotation { bytes: 200, files: 0, ..Rotation::default() };
    let line = |index: usize| format!("{{\"line\":{index},\"padding\":\"{}\"}}", "x".repeat(40));
    for half in [0..20, 20..40] {
        // A program that starts again goes on with the file.
        let log = LogFile::open(&path, rotation).expect("a file");
        half.for_each(|index| log.write(line(index)));
    }
    let mut files: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a folder").flatten().map(|e| e.path()).collect();
    files.sort();
    assert!(files.len() > 1, "{files:?}");
    use std::os::unix::fs::PermissionsExt;
    assert!(files.iter().all(|f| f.metadata().expect("a file").permissions().mode() & 0o777 == 0o600));
    // The newest is the one without a date, which sorts behind those with one.
    let text: String = files.iter().map(|f| std::fs::read_to_string(f).expect("a file")).collect();
    let expected: String = (0..40).map(|index| line(index) + "\n").collect();
    assert_eq!(text, expected);
    let log = LogFile::open(&path, Rotation { files: 2, ..rotation }).expect("a file");
    (0..20).for_each(|index| log.write(line(index)));
    drop(log);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 3);
}

async fn ask(
    frontend: &Frontend,
    user: Option<User>,
    method: &str,
    path: &str,
    body: &str,
) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request = request.header("user-agent", "a test").header("audit-id", format!("{method} {path}"));
    if let Some(headers) = request.headers_mut()
        && path.ends_with("/as-jane")
    {
        headers.insert("impersonate-user", "jane".parse().expect("a value"));
    }
    let path = path.trim_end_matches("/as-jane").to_owned();
    let mut request = request.uri(path).body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    if let Some(user) = user {
        request.extensions_mut().insert(user);
    }
    request.extensions_mut().insert(Peer("192.0.2.7".parse().expect("an address")));
    frontend.handle(request).await
}

#[tokio::test]
async fn requests_are_noted_with_what_became_of_them() {
    let lines = Lines::default();
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("namespaces");
    let policy = Policy::parse(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
         - {level: None, verbs: [get]}\n\
         - {level: RequestResponse, omitManagedFields: true, omitStages: [RequestReceived], \
            resources: [{resources: [configmaps]}]}\n\
         - level: Metadata\n",
    )
    .expect("a policy");
    let frontend = Frontend::new(server).with_audit(Audit::new(policy, lines.clone()));
    let taken = || std::mem::take(&mut *lines.0.lock().expect("lines"));
    let path = "/api/v1/namespaces/default/configmaps";
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}"#;

    ask(&frontend, None, "GET", path, "").await;
    taken();
    let response = ask(&frontend, None, "POST", path, body).await;
    assert_eq!(response.headers()["audit-id"], format!("POST {path}").as_str());
    let noted = taken();
    let [event] = noted.as_slice() else { panic!("{noted:?}") };
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    assert_eq!(
        (text("/kind"), text("/apiVersion"), text("/level")),
        ("Event", "audit.k8s.io/v1", "RequestResponse")
    );
    assert_eq!((text("/stage"), text("/verb"), text("/userAgent")), ("ResponseComplete", "create", "a test"));
    assert_eq!((text("/objectRef/resource"), text("/objectRef/namespace")), ("configmaps", "default"));
    assert_eq!(text("/sourceIPs/0"), "192.0.2.7");
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["requestObject"]["data"]["k"], "v");
    assert_eq!(event["responseObject"]["metadata"]["name"], "a");
    assert!(event["responseObject"]["metadata"].get("managedFields").is_none());

    ask(&frontend, None, "POST", path, body).await;
    let noted = taken();
    assert_eq!(noted[0]["responseStatus"]["code"], 409);
    assert_eq!(noted[0]["responseStatus"]["reason"], "AlreadyExists");

    // Those who are not let in are noted, and on whose behalf somebody acts.
    ask(&frontend, Some(User::anonymous()), "DELETE", "/api/v1/namespaces/default/secrets/s", "").await;
    let noted = taken();
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert_eq!(
        (&noted[0]["stage"], &noted[1]["stage"]),
        (&"RequestReceived".into(), &"ResponseComplete".into())
    );
    assert_eq!(noted[1]["responseStatus"]["code"], 403);
    assert_eq!(noted[1]["user"]["username"], "system:anonymous");
    ask(&frontend, None, "DELETE", "/api/v1/namespaces/default/secrets/s/as-jane", "").await;
    let noted = taken();
    assert_eq!(noted[1]["impersonatedUser"]["username"], "jane");
    assert_eq!(noted[1]["user"]["username"], "system:apiserver");

    // What goes on for long is noted when it begins and when it ends.
    let watch = ask(&frontend, None, "GET", &format!("{path}?watch=1&resourceVersion=1"), "").await;
    let noted = taken();
    assert_eq!((noted.len(), &noted[0]["stage"]), (1, &"ResponseStarted".into()), "{noted:?}");
    drop(watch);
    let noted = taken();
    assert_eq!((noted.len(), &noted[0]["stage"]), (1, &"ResponseComplete".into()), "{noted:?}");
}
