use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::http::Frontend;
use crate::request::User;
use crate::server::ApiServerBuilder;
use crate::server::rbac::{self, Rbac};
use crate::storage::memory::MemoryStorage;

async fn frontend() -> Frontend {
    world(ApiServer::builder()).await
}

async fn world(builder: ApiServerBuilder) -> Frontend {
    let storage = Arc::new(MemoryStorage::new());
    let rbac = Rbac::start(storage.clone()).await.expect("an authorizer");
    let server = builder.authorizer(rbac).build(storage);
    server.bootstrap().await.expect("namespaces");
    let client = server.client();
    rbac::bootstrap(&client).await.expect("roles");
    let rule = |group: &str, resource: &str, verbs: &str, names: &[&str]| {
        let verbs: Vec<&str> = verbs.split(' ').collect();
        let names = Some(names).filter(|n| !n.is_empty());
        json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs, "resourceNames": names })
    };
    let role = |name: &str, rules: Vec<Value>| {
        let body = json!({ "metadata": { "name": name }, "rules": rules });
        serde_json::from_value::<ClusterRole>(body).expect("a role")
    };
    let core = "";
    let roles = [
        role("pods", vec![rule(core, "pods", "get list watch", &[]), rule(core, "namespaces", "get", &[])]),
        role("logs", vec![rule(core, "pods/log", "get", &[])]),
        role("scales", vec![rule("*", "*/scale", "patch", &[])]),
        role("one", vec![rule(core, "configmaps", "get list update patch", &["mine"])]),
        role(
            "actor",
            vec![
                rule(core, "users", "impersonate", &["jane", "ann"]),
                rule(core, "groups", "impersonate", &["people"]),
                rule(core, "serviceaccounts", "impersonate", &[]),
                rule("authentication.k8s.io", "userextras/scopes", "impersonate", &["view"]),
            ],
        ),
    ];
    for role in roles {
        client.all::<ClusterRole>().create(&role).await.expect("a role");
    }
    let binding = |name: &str, role: &str, kind: &str, who: &str| {
        let group = Some("rbac.authorization.k8s.io").filter(|_| kind != "ServiceAccount");
        let namespace = Some("default").filter(|_| kind == "ServiceAccount");
        json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": kind, "name": who, "namespace": namespace, "apiGroup": group }],
        })
    };
    let here = [
        binding("pods", "pods", "User", "jane"),
        binding("logs", "logs", "Group", "readers"),
        binding("one", "one", "User", "ann"),
        binding("robot", "pods", "ServiceAccount", "robot"),
    ];
    for body in here {
        let body: RoleBinding = serde_json::from_value(body).expect("a binding");
        client.namespaced::<RoleBinding>("default").create(&body).await.expect("a binding");
    }
    for body in [binding("scales", "scales", "User", "joe"), binding("actor", "actor", "User", "boss")] {
        let body: ClusterRoleBinding = serde_json::from_value(body).expect("a binding");
        client.all::<ClusterRoleBinding>().create(&body).await.expect("a binding");
    }
    Frontend::new(server)
}

/// Sends a request as `who` (a name, with groups behind it, separated by spaces), and answers the code and the message.
async fn send(frontend: &Frontend, who: &str, headers: &[(&str, &str)], what: &str) -> (u16, String) {
    let mut words = who.split(' ');
    let name = words.next().unwrap_or_default();
    let user = match name {
        "-" => User::anonymous(),
        name => User::authenticated(name, words.map(ToOwned::to_owned).collect()),
    };
    let (method, path) = what.split_once(' ').expect("a method and a path");
    let mut request =
        Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if matches!(method, "PATCH") {
        request = request.header("content-type", "application/merge-patch+json");
    }
    let body = Full::new(Bytes::from_static(b"{}"));
    let mut request = request.body(body).expect("a request");
    request.extensions_mut().insert(user);
    let response = frontend.handle(request).await;
    let code = response.status().as_u16();
    if what.contains("watch=") && code == 200 {
        return (code, String::new());
    }
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (code, body["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn who_may_do_what() {
    let frontend = frontend().await;
    let pods = "/api/v1/namespaces/default/pods";
    let table = [
        // Of whom nothing is known.
        ("-", "GET /healthz", 200),
        ("-", "GET /version", 200),
        ("-", "GET /healthz/ping", 403),
        ("-", "GET /", 403),
        ("-", "GET /api", 403),
        ("-", "GET /nowhere", 403),
        ("-", "GET /api/v1/pods", 403),
        ("-", "GET /apis/nowhere.io/v1/things", 403),
        ("-", "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 403),
        // Somebody without rights.
        ("nobody", "GET /api", 200),
        ("nobody", "GET /apis/apps/v1", 200),
        ("nobody", "GET /metrics", 403),
        ("nobody", "GET /api/v1/nodes", 403),
        ("nobody", "GET /apis/nowhere.io/v1/things", 403),
        ("nobody", "POST /apis/authentication.k8s.io/v1/selfsubjectreviews", 201),
        // Somebody with some.
        ("jane", "GET /api/v1/namespaces/default/pods", 200),
        ("jane", "GET /api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1", 200),
        ("jane", "GET /api/v1/namespaces/default/pods/a", 404),
        ("jane", "GET /api/v1/namespaces/default/pods/a/log", 403),
        ("jane", "GET /api/v1/namespaces/default/pods/a/exec", 403),
        ("jane", "POST /api/v1/namespaces/default/pods", 403),
        ("jane", "DELETE /api/v1/namespaces/default/pods", 403),
        ("jane", "GET /api/v1/namespaces/kube-system/pods", 403),
        ("jane", "GET /api/v1/pods", 403),
        ("jane", "GET /api/v1/namespaces/default", 200),
        ("jane", "GET /api/v1/namespaces/kube-system", 403),
        ("jane", "GET /api/v1/namespaces", 403),
        ("joan readers", "GET /api/v1/namespaces/default/pods/a/log", 404),
        ("joan readers", "GET /api/v1/namespaces/default/pods/a", 403),
        ("joe", "PATCH /apis/apps/v1/namespaces/default/deployments/a/scale", 404),
        ("joe", "PATCH /apis/apps/v1/namespaces/default/deployments/a", 403),
        ("joe", "GET /apis/apps/v1/namespaces/default/deployments/a/scale", 403),
        ("ann", "GET /api/v1/namespaces/default/configmaps/mine", 404),
        ("ann", "GET /api/v1/namespaces/default/configmaps/other", 403),
        ("ann", "GET /api/v1/namespaces/default/configmaps", 403),
        ("ann", "GET /api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dmine", 200),
        ("ann", "GET /api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dother", 403),
        ("ann", "GET /api/v1/namespaces/default/configmaps?fieldSelector=metadata.name!%3Dmine", 403),
        ("ann", "POST /api/v1/namespaces/default/configmaps", 403),
        ("system:serviceaccount:default:robot", "GET /api/v1/namespaces/default/pods", 200),
        ("system:serviceaccount:other:robot", "GET /api/v1/namespaces/default/pods", 403),
        // Administrators.
        ("root system:masters", "GET /api/v1/nodes", 200),
        ("root system:masters", "GET /nowhere", 404),
        ("root system:masters", "GET /apis/nowhere.io/v1/things", 404),
    ];
    for (who, what, code) in table {
        let (got, message) = send(&frontend, who, &[], what).await;
        assert_eq!(got, code, "{who}: {what}: {message}");
    }
    let words = [
        ("nobody", "GET /metrics".to_owned(), "forbidden: User \"nobody\" cannot get path \"/metrics\""),
        (
            "joan",
            format!("GET {pods}/a/log"),
            "pods \"a\" is forbidden: User \"joan\" cannot get resource \"pods/log\" in API group \"\" in the namespace \
             \"default\"",
        ),
        (
            "joan",
            "DELETE /apis/apps/v1/deployments".to_owned(),
            "deployments.apps is forbidden: User \"joan\" cannot deletecollection resource \"deployments\" in API group \
             \"apps\" at the cluster scope",
        ),
        (
            "jane",
            "GET /api/v1/namespaces/kube-system".to_owned(),
            "namespaces \"kube-system\" is forbidden: User \"jane\" cannot get resource \"namespaces\" in API group \"\" \
             in the namespace \"kube-system\"",
        ),
    ];
    for (who, what, message) in words {
        assert_eq!(send(&frontend, who, &[], &what).await, (403, message.to_owned()));
    }
}

type Headers = &'static [(&'static str, &'static str)];

#[tokio::test]
async fn on_whose_behalf() {
    let frontend = frontend().await;
    let pods = "GET /api/v1/namespaces/default/pods";
    const USER: &str = "Impersonate-User";
    let table: [(&str, Headers, &str, u16); 13] = [
        ("boss", &[], pods, 403),
        ("boss", &[(USER, "jane")], pods, 200),
        ("boss", &[(USER, "joe")], pods, 403),
        ("jane", &[(USER, "ann")], pods, 403),
        ("-", &[(USER, "jane")], pods, 403),
        ("boss", &[(USER, "jane"), ("Impersonate-Group", "people")], pods, 200),
        ("boss", &[(USER, "jane"), ("Impersonate-Group", "system:masters")], pods, 403),
        ("boss", &[("Impersonate-Group", "people")], pods, 500),
        ("boss", &[(USER, "jane"), ("Impersonate-Extra-Scopes", "view")], pods, 200),
        ("boss", &[(USER, "jane"), ("Impersonate-Extra-Scopes", "edit")], pods, 403),
        ("boss", &[(USER, "jane"), ("Impersonate-Uid", "1")], pods, 403),
        ("boss", &[(USER, "system:serviceaccount:default:robot")], pods, 200),
        ("root system:masters", &[(USER, "nobody")], pods, 403),
    ];
    for (who, headers, what, code) in table {
        let (got, message) = send(&frontend, who, headers, what).await;
        assert_eq!(got, code, "{who} {headers:?}: {message}");
    }
    let (_, message) = send(&frontend, "boss", &[(USER, "joe")], pods).await;
    assert_eq!(
        message,
        "users \"joe\" is forbidden: User \"boss\" cannot impersonate resource \"users\" in API group \"\" at the \
         cluster scope"
    );
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_token_opens_what_its_account_may() {
    use crate::pki::SigningKey;
    use crate::server::token::{DEFAULT_ISSUER, Tokens};

    let (key, _) = SigningKey::generate().expect("a key");
    let frontend = world(ApiServer::builder().tokens(Tokens::new(DEFAULT_ISSUER, key))).await;
    let account = |body: &'static str| {
        let request = Request::post("/api/v1/namespaces/default/serviceaccounts");
        request
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(body.as_bytes())))
    };
    let made = account("{\"metadata\":{\"name\":\"robot\"}}").expect("a request");
    assert_eq!(frontend.handle(made).await.status().as_u16(), 201);
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"{}"))).expect("a request");
    let body = frontend.handle(request).await.into_body().collect().await.expect("a body").to_bytes();
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    let token = answer["status"]["token"].as_str().expect("a token").to_owned();

    let good = format!("Bearer {token}");
    let bad = format!("Bearer {token}x");
    let pods = "GET /api/v1/namespaces/default/pods";
    let table = [
        ("-", good.as_str(), pods, 200),
        ("-", good.as_str(), "GET /api/v1/namespaces/kube-system/pods", 403),
        ("-", good.as_str(), "GET /openid/v1/jwks", 200),
        ("-", good.as_str(), "GET /.well-known/openid-configuration", 200),
        ("-", bad.as_str(), pods, 401),
        ("-", bad.as_str(), "GET /healthz", 401),
        ("-", "Basic eDp5", pods, 403),
        ("-", "", "GET /openid/v1/jwks", 403),
        // A certificate counts before a token.
        ("jane", bad.as_str(), pods, 200),
        ("joe", good.as_str(), pods, 403),
    ];
    for (who, authorization, what, code) in table {
        let headers: Vec<_> = Some(("Authorization", authorization))
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let (got, message) = send(&frontend, who, &headers, what).await;
        assert_eq!(got, code, "{who} {authorization}: {what}: {message}");
    }
}
