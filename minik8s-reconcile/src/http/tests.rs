use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::{BODY_LIMIT, Frontend};
use crate::ApiServer;
use crate::storage::memory::MemoryStorage;

async fn frontend() -> Frontend {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    Frontend::new(server)
}

async fn send(
    frontend: &Frontend,
    method: &str,
    path: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .body(Full::new(body.into()))
        .expect("a request");
    let response = frontend.handle(request).await;
    let status = response.status();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn get(frontend: &Frontend, path: &str) -> (StatusCode, Value) {
    send(frontend, "GET", path, "application/json", "").await
}

#[tokio::test]
async fn discovery_names_what_is_served() {
    let frontend = frontend().await;
    for path in
        ["/api", "/api/", "/apis", "/version", "/version/", "/apis/apps", "/apis/apps/v1", "/openapi/v3"]
    {
        let (status, body) = get(&frontend, path).await;
        assert!(status.is_success() && body.is_object(), "{path}: {status}");
    }
    let (_, core) = get(&frontend, "/api/v1").await;
    let resources = core["resources"].as_array().expect("resources");
    let pods = resources.iter().find(|r| r["name"] == "pods").expect("pods");
    assert_eq!((pods["shortNames"][0].as_str(), pods["namespaced"].as_bool()), (Some("po"), Some(true)));
    assert!(resources.iter().any(|r| r["name"] == "pods/binding" && r["kind"] == "Binding"));
    assert_eq!(get(&frontend, "/apis/nothing.dev/v1").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn discovery_in_one_answer() {
    let frontend = frontend().await;
    let ask = async |path: &str, name: header::HeaderName, value: String| {
        let accept =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let request = Request::get(path).header(header::ACCEPT, accept).header(name, value);
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let (parts, body) = frontend.handle(request).await.into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    };
    let (parts, body) = ask("/apis", header::USER_AGENT, "x".to_owned()).await;
    let media_type = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    assert_eq!(parts.headers["content-type"], media_type);
    assert_eq!(parts.headers["vary"], "Accept");
    let list: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    let find = |list: &Value, field: &str, name: &str| {
        let found = list.as_array().expect("a list").iter().find(|i| i.pointer(field) == Some(&json!(name)));
        found.unwrap_or_else(|| panic!("no {name} in {list}")).clone()
    };
    let apps = find(&list["items"], "/metadata/name", "apps");
    let deployments = find(&apps["versions"][0]["resources"], "/resource", "deployments");
    assert_eq!(
        (&deployments["scope"], &deployments["shortNames"]),
        (&json!("Namespaced"), &json!(["deploy"]))
    );
    let scale = find(&deployments["subresources"], "/subresource", "scale");
    let kind = json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" });
    assert_eq!((&scale["responseKind"], &scale["verbs"]), (&kind, &json!(["get", "patch", "update"])));
    let tag = parts.headers["etag"].to_str().expect("text").to_owned();
    let (parts, body) = ask("/apis", header::IF_NONE_MATCH, tag).await;
    assert_eq!((parts.status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    let (_, body) = ask("/api", header::USER_AGENT, "x".to_owned()).await;
    let list: Value = serde_json::from_slice(&body).expect("JSON");
    let pods = find(&list["items"][0]["versions"][0]["resources"], "/resource", "pods");
    let eviction = find(&pods["subresources"], "/subresource", "eviction");
    assert_eq!(eviction["responseKind"], json!({ "group": "policy", "version": "v1", "kind": "Eviction" }));
    // Without the header, or with one of another document, the plain lists.
    assert_eq!(get(&frontend, "/apis").await.1["kind"], "APIGroupList");
    let (_, plain) = {
        let other = "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json";
        let request = Request::get("/api").header(header::ACCEPT, other).body(Full::new(Bytes::new()));
        let (parts, body) = frontend.handle(request.expect("a request")).await.into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    };
    assert_eq!(serde_json::from_slice::<Value>(&plain).expect("JSON")["kind"], "APIVersions");
}

#[tokio::test]
async fn health_in_few_words_or_many() {
    let frontend = frontend().await;
    let ask = async |path: &str| {
        let request = Request::get(path).body(Full::new(Bytes::new())).expect("a request");
        let (parts, body) = frontend.handle(request).await.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (parts.status.as_u16(), String::from_utf8(body.to_vec()).expect("text"))
    };
    let ok = || (200, "ok".to_owned());
    for path in
        ["/healthz", "/livez", "/readyz", "/livez/ping", "/readyz/shutdown", "/readyz?exclude=storage"]
    {
        assert_eq!(ask(path).await, ok(), "{path}");
    }
    let report = "[+]ping ok\n[+]storage ok\n[+]shutdown ok\nreadyz check passed\n";
    assert_eq!(ask("/readyz?verbose").await, (200, report.to_owned()));
    assert_eq!(ask("/livez/nonsense").await.0, 404);
    frontend.closing.cancel();
    let (code, report) = ask("/readyz").await;
    assert!(code == 500 && report.contains("[-]shutdown failed"), "{code} {report}");
    assert_eq!(ask("/livez").await, ok(), "who is about to stop lives");
}

#[tokio::test]
async fn errors_are_statuses() {
    let frontend = frontend().await;
    let pods = "/api/v1/namespaces/default/pods";
    let (status, body) = get(&frontend, &format!("{pods}/none")).await;
    assert_eq!((status, body["reason"].as_str()), (StatusCode::NOT_FOUND, Some("NotFound")));
    assert_eq!(body["message"], "pods \"none\" not found");
    let (status, body) = send(&frontend, "POST", pods, "application/json", "{").await;
    assert_eq!((status, body["reason"].as_str()), (StatusCode::BAD_REQUEST, Some("BadRequest")));
    let (status, _) = send(&frontend, "POST", pods, "text/plain", "x").await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, body) = send(&frontend, "POST", pods, "application/json", vec![b' '; BODY_LIMIT + 1]).await;
    assert_eq!(
        (status, body["reason"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("RequestEntityTooLarge"))
    );
    let (status, body) = get(&frontend, &format!("{pods}?fieldSelector=spec.nonsense%3Dx")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let (status, _) = get(&frontend, &format!("{pods}?limit=many")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let other = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" } });
    let (status, body) = send(&frontend, "POST", pods, "application/json", other.to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn a_misspelt_field_is_named() {
    let frontend = frontend().await;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  contaners: []\n";
    let strict = "/api/v1/namespaces/default/pods?fieldValidation=Strict";
    let (status, body) = send(&frontend, "POST", strict, "application/yaml", pod).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = body["message"].as_str().unwrap_or_default();
    assert!(message.contains("unknown field \"spec.contaners\""), "{message}");
    assert_eq!(get(&frontend, "/api/v1/namespaces/default/pods/a").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_field_that_stands_twice_is_named() {
    let frontend = frontend().await;
    let body = r#"{"metadata":{"name":"a"},"data":{"k":"1","k":"2"},"dat":{}}"#;
    let path = "/api/v1/namespaces/default/configmaps";
    let request = Request::post(path).body(Full::new(Bytes::from(body))).expect("a request");
    let (parts, made) = frontend.handle(request).await.into_parts();
    let made: Value =
        serde_json::from_slice(&made.collect().await.expect("a body").to_bytes()).expect("JSON");
    assert_eq!(made["data"]["k"], "2", "the last one counts");
    let warnings: Vec<_> = parts.headers.get_all(header::WARNING).iter().collect();
    assert_eq!(warnings, [r#"299 - "duplicate field \"data.k\"""#, r#"299 - "unknown field \"dat\"""#]);
    let strict = format!("{path}?fieldValidation=Strict");
    let yaml = "metadata: {name: b}\ndata:\n  k: '1'\n  k: '2'\n";
    let (status, error) = send(&frontend, "POST", &strict, "application/yaml", yaml).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error["message"].as_str().is_some_and(|m| m.contains("duplicate field \"data.k\"")), "{error}");
    let (status, _) = send(&frontend, "POST", path, "application/yaml", yaml).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, error) = send(&frontend, "POST", &strict, "application/json", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        error["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \
         \"data.k\", unknown field \"dat\""
    );
}

#[tokio::test]
async fn a_read_is_as_recent_as_it_is_asked_to_be() {
    let frontend = frontend().await;
    let path = "/api/v1/namespaces/default";
    for (query, code) in [
        ("resourceVersion=0", 200),
        ("resourceVersion=1", 200),
        ("resourceVersion=999999", 504),
        ("resourceVersion=x", 400),
    ] {
        assert_eq!(get(&frontend, &format!("{path}?{query}")).await.0.as_u16(), code, "{query}");
    }
}

#[tokio::test]
async fn tables_are_ready_to_print() {
    let frontend = frontend().await;
    let config = json!({ "metadata": { "name": "a" }, "data": { "x": "1", "y": "2" } });
    let path = "/api/v1/namespaces/default/configmaps";
    let (status, _) = send(&frontend, "POST", path, "application/json", config.to_string()).await;
    assert_eq!(status, StatusCode::CREATED);
    let request = Request::get(path)
        .header(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let body = frontend.handle(request).await.into_body().collect().await.expect("a body").to_bytes();
    let table: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(table["kind"], "Table");
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!((cells[0].as_str(), cells[1].as_i64()), (Some("a"), Some(2)));
    assert!(cells[2].as_str().is_some_and(|age| age.ends_with('s')), "{cells:?}");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn protobuf_bodies_are_read() {
    let frontend = frontend().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let body =
        &b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0d\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v"[..];
    let protobuf = "application/vnd.kubernetes.protobuf";
    let (status, made) = send(&frontend, "POST", path, protobuf, body).await;
    assert_eq!((status, made["data"]["k"].as_str()), (StatusCode::CREATED, Some("v")), "{made}");
    let (status, error) = send(&frontend, "POST", path, protobuf, "{}").await;
    assert_eq!((status, error["reason"].as_str()), (StatusCode::BAD_REQUEST, Some("BadRequest")));
    // preconditions { uid: "x" }
    let options = &b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x05\x12\x03\x0a\x01x"[..];
    let (status, error) = send(&frontend, "DELETE", &format!("{path}/a"), protobuf, options).await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
    let (status, _) =
        send(&frontend, "DELETE", &format!("{path}/a"), "application/yaml", "dryRun: [All]").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(get(&frontend, &format!("{path}/a")).await.0, StatusCode::OK, "nothing was deleted");
}

#[tokio::test]
async fn answers_are_shaped_for_their_readers() {
    use std::io::Read;

    let frontend = frontend().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let big = json!({ "metadata": { "name": "big" }, "data": { "x": "y".repeat(200_000) } });
    send(&frontend, "POST", path, "application/json", big.to_string()).await;
    let ask = async |path: &str, name: header::HeaderName, value: &'static str| {
        let request =
            Request::get(path).header(name, value).body(Full::new(Bytes::new())).expect("a request");
        let (parts, body) = frontend.handle(request).await.into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    };
    let (parts, packed) = ask(&format!("{path}/big"), header::ACCEPT_ENCODING, "gzip").await;
    assert_eq!(parts.headers["content-encoding"], "gzip");
    assert_eq!(parts.headers["vary"], "Accept-Encoding");
    assert!(packed.len() < 10_000, "{} bytes", packed.len());
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).expect("gzip");
    let found: Value = serde_json::from_slice(&plain).expect("JSON");
    assert_eq!(found["data"]["x"].as_str().map(str::len), Some(200_000));
    let (parts, _) = ask("/api/v1/namespaces/default", header::ACCEPT_ENCODING, "gzip").await;
    assert!(!parts.headers.contains_key("content-encoding"), "what is small stays as it is");

    let (_, pretty) = ask("/api/v1/namespaces/default", header::USER_AGENT, "curl/8").await;
    assert!(pretty.starts_with(b"{\n  \""), "{pretty:?}");
    let (_, compact) = ask("/api/v1/namespaces/default?pretty=false", header::USER_AGENT, "curl/8").await;
    assert!(compact.starts_with(b"{\""), "{compact:?}");
    let (parts, body) =
        ask("/api/v1/namespaces", header::ACCEPT, "application/vnd.kubernetes.protobuf").await;
    let status: Value = serde_json::from_slice(&body).expect("a Status");
    assert_eq!(
        (parts.status, status["reason"].as_str()),
        (StatusCode::NOT_ACCEPTABLE, Some("NotAcceptable"))
    );
}

#[tokio::test]
async fn kube_rs_works_without_a_socket() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};

    let client = kube::Client::new(frontend().await, "default");
    let configs: Api<ConfigMap> = Api::default_namespaced(client);
    let mut config = ConfigMap::default();
    config.metadata.name = Some("a".to_owned());
    let made = configs.create(&PostParams::default(), &config).await.expect("create");
    let patch = Patch::Merge(json!({ "data": { "k": "v" } }));
    let patched = configs.patch("a", &PatchParams::default(), &patch).await.expect("patch");
    assert_eq!(patched.data.and_then(|d| d.get("k").cloned()).as_deref(), Some("v"));
    let stale = configs.replace("a", &PostParams::default(), &made).await;
    assert!(matches!(stale, Err(kube::Error::Api(status)) if status.code == 409));
    let found = configs.list(&ListParams::default()).await.expect("list");
    assert_eq!(found.items.len(), 1);
    configs.delete("a", &DeleteParams::default()).await.expect("delete");
    assert!(configs.get_opt("a").await.expect("get").is_none());
}

#[tokio::test]
async fn kube_rs_applies() {
    use k8s_openapi::api::apps::v1::Deployment;
    use kube::api::{Api, Patch, PatchParams};

    let client = kube::Client::new(frontend().await, "default");
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let config = |replicas: i32| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": "i" }] },
                },
            },
        })
    };
    let me = PatchParams::apply("me");
    let made = deployments.patch("web", &me, &Patch::Apply(config(1))).await.expect("made");
    let owners = made.metadata.managed_fields.expect("owners");
    assert_eq!((owners.len(), owners[0].manager.as_deref()), (1, Some("me")));
    let again = deployments.patch("web", &me, &Patch::Apply(config(1))).await.expect("again");
    assert_eq!(again.metadata.resource_version, made.metadata.resource_version);

    let you = PatchParams::apply("you");
    let Err(kube::Error::Api(status)) = deployments.patch("web", &you, &Patch::Apply(config(2))).await else {
        panic!("no conflict");
    };
    assert_eq!(
        (status.code, status.message.as_str()),
        (409, "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas")
    );
    let causes = status.details.map(|d| d.causes).unwrap_or_default();
    assert_eq!(
        (causes[0].reason.as_str(), causes[0].field.as_str()),
        ("FieldManagerConflict", ".spec.replicas")
    );
    let taken = deployments.patch("web", &you.force(), &Patch::Apply(config(2))).await.expect("forced");
    assert_eq!(taken.spec.replicas, Some(2));

    let status = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "status": { "replicas": 2 } });
    let patched = deployments.patch_status("web", &me, &Patch::Apply(status)).await.expect("status");
    let through = patched.metadata.managed_fields.iter().flatten().filter(|e| e.subresource.is_some());
    assert_eq!(through.map(|e| e.subresource.as_deref()).collect::<Vec<_>>(), [Some("status")]);
    let metadata = deployments.get_metadata("web").await.expect("metadata");
    assert_eq!(metadata.metadata.managed_fields.map(|m| m.len()), Some(3));
}

#[tokio::test]
async fn a_program_is_known_by_its_name_or_its_agent() {
    let frontend = frontend().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let long = "x".repeat(200);
    let agents = [("a", "kubectl/v1.33 (linux)", "", "kubectl"), ("b", long.as_str(), "", &long[..128])];
    for (name, agent, query, expected) in
        agents.into_iter().chain([("c", "", "", "unknown"), ("d", "x/1", "?fieldManager=me", "me")])
    {
        let request = Request::post(format!("{maps}{query}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, agent)
            .body(Full::new(Bytes::from(
                json!({ "metadata": { "name": name }, "data": {} , "immutable": true }).to_string(),
            )))
            .expect("a request");
        let body = frontend.handle(request).await.into_body().collect().await.expect("a body").to_bytes();
        let made: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(made["metadata"]["managedFields"][0]["manager"], expected, "{made}");
    }
    let apply = "application/apply-patch+yaml";
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: e}\n";
    let (status, body) = send(&frontend, "PATCH", &format!("{maps}/e"), apply, yaml).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "an agent does not do for an apply: {body}");
    let (status, _) =
        send(&frontend, "PATCH", &format!("{maps}/e?fieldManager=me&force=false"), apply, yaml).await;
    assert_eq!(status, StatusCode::CREATED);
    let merge = "application/merge-patch+json";
    let (status, body) = send(&frontend, "PATCH", &format!("{maps}/e?force=false"), merge, "{}").await;
    assert_eq!(
        (status, body["reason"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("Invalid")),
        "{body}"
    );
}

#[cfg(feature = "remote")]
#[tokio::test]
async fn a_client_of_another_process_applies() {
    use k8s_openapi::api::core::v1::ConfigMap;

    let frontend = frontend().await;
    let registry = frontend.server.registry().clone();
    let client = crate::Client::remote(kube::Client::new(frontend, "default"), registry);
    let configs = client.namespaced::<ConfigMap>("default");
    let config = |value: &str| json!({ "data": { "x": value } });
    let made = configs.apply("a", "me", &config("1"), false).await.expect("made");
    assert_eq!(made.metadata.managed_fields, None, "typed objects come without");
    let error = configs.apply("a", "you", &config("2"), false).await.expect_err("a conflict");
    assert!(error.is_conflict());
    let causes = error.to_status().details.and_then(|d| d.causes).expect("causes");
    assert_eq!(causes[0].field.as_deref(), Some(".data.x"));
    let taken = configs.apply("a", "you", &config("2"), true).await.expect("forced");
    // Sent back without owners, it keeps them.
    let mut changed = (*taken).clone();
    changed.data.get_or_insert_default().insert("y".into(), "1".into());
    configs.update(&changed).await.expect("updated");
    let error = configs.apply("a", "me", &config("1"), false).await.expect_err("still somebody's");
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"you\": .data.x");
}

#[tokio::test]
async fn kube_rs_scales_and_evicts() {
    use k8s_openapi::api::apps::v1::StatefulSet;
    use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::{Api, EvictParams, Patch, PatchParams, PostParams};

    let client = kube::Client::new(frontend().await, "default");
    let sets: Api<StatefulSet> = Api::default_namespaced(client.clone());
    let set = json!({
        "metadata": { "name": "db" },
        "spec": {
            "serviceName": "db", "replicas": 1, "selector": { "matchLabels": { "app": "db" } },
            "template": {
                "metadata": { "labels": { "app": "db" } },
                "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
            },
        },
    });
    let set = serde_json::from_value(set).expect("a set");
    sets.create(&PostParams::default(), &set).await.expect("create");
    let mut scale = sets.get_scale("db").await.expect("a scale");
    scale.spec.get_or_insert_default().replicas = Some(4);
    let scale = sets.replace_scale("db", &PostParams::default(), &scale).await.expect("replace");
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(4));
    let patch = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    let scale = sets.patch_scale("db", &PatchParams::default(), &patch).await.expect("patch");
    assert_eq!(scale.status.and_then(|s| s.selector).as_deref(), Some("app=db"));
    let replicas = sets.get("db").await.expect("get").spec.replicas;
    assert_eq!(replicas, Some(2));

    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({
        "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams::default(), &pod).await.expect("create");
    pods.evict("a", &EvictParams::default()).await.expect("evicted");
    assert!(pods.get_opt("a").await.expect("get").is_none());

    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    let review = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let review = serde_json::from_value(review).expect("a review");
    let answer = reviews.create(&PostParams::default(), &review).await.expect("an answer");
    assert!(answer.status.is_some_and(|s| s.allowed));
}

#[tokio::test]
async fn kube_rs_defines_and_uses_a_kind() {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
    use kube::runtime::{conditions, wait::await_condition};
    use kube::{CustomResource, CustomResourceExt};

    #[derive(CustomResource, Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[kube(group = "clux.dev", version = "v1", kind = "Foo", namespaced, status = "FooStatus")]
    struct FooSpec {
        name: String,
        info: Option<String>,
    }
    #[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct FooStatus {
        is_bad: bool,
    }

    let frontend = frontend().await;
    let client = kube::Client::new(frontend.clone(), "default");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &Foo::crd()).await.expect("define");
    let established = await_condition(definitions, "foos.clux.dev", conditions::is_crd_established());
    established.await.expect("established");
    let foos: Api<Foo> = Api::default_namespaced(client);
    let spec = FooSpec { name: "n".into(), info: None };
    let made = foos.create(&PostParams::default(), &Foo::new("a", spec)).await.expect("create");
    assert_eq!(made.spec.name, "n");
    let status = json!({ "status": { "is_bad": true } });
    let patched =
        foos.patch_status("a", &PatchParams::default(), &Patch::Merge(status)).await.expect("patch");
    assert!(patched.status.is_some_and(|s| s.is_bad));
    let (_, group) = get(&frontend, "/apis/clux.dev/v1").await;
    let names: Vec<_> =
        group["resources"].as_array().expect("resources").iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["foos", "foos/status"]);
    let (_, index) = get(&frontend, "/openapi/v3").await;
    assert!(index["paths"].get("apis/clux.dev/v1").is_some());
    let (_, document) = get(&frontend, "/openapi/v3/apis/clux.dev/v1").await;
    let spec = &document["components"]["schemas"]["dev.clux.v1.Foo"]["properties"]["spec"];
    assert_eq!(spec["properties"]["info"]["nullable"], true, "{spec}");
    let (_, document) = get(&frontend, "/openapi/v2").await;
    let info = &document["definitions"]["dev.clux.v1.Foo"]["properties"]["spec"]["properties"]["info"];
    assert_eq!(info, &json!({}), "version 2 has no nulls");
    foos.delete("a", &DeleteParams::default()).await.expect("delete");
}

#[tokio::test]
async fn rights_in_a_namespace_do_not_reach_nodes() {
    let frontend = frontend().await;
    for path in ["namespaces/default/nodes/n1/proxy/healthz", "namespaces/default/nodes/n1", "pods/p/log"] {
        let (status, body) = get(&frontend, &format!("/api/v1/{path}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {body}");
        assert_eq!(body["message"], "the server could not find the requested resource", "{path}");
    }
}

#[tokio::test]
async fn who_is_impersonated_must_be_legible() {
    let frontend = frontend().await;
    for (name, expected) in [
        (&b"j\xc3\xbcrgen"[..], StatusCode::OK),
        (b"j\xfcrgen", StatusCode::BAD_REQUEST),
        (b"", StatusCode::BAD_REQUEST),
    ] {
        let request = Request::get("/api/v1/namespaces")
            .header("impersonate-user", http::HeaderValue::from_bytes(name).expect("a header"))
            .body(Full::new(Bytes::new()))
            .expect("a request");
        assert_eq!(frontend.handle(request).await.status(), expected, "{name:?}");
    }
}

#[tokio::test]
async fn who_asks_for_a_certificate_is_not_for_the_request_to_say() {
    let frontend = frontend().await;
    let base = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": { "name": "a" },
        "spec": {
            "username": "system:node:n1", "groups": ["system:nodes"], "usages": ["client auth"],
            "signerName": "example.dev/signer", "request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K",
        },
    });
    let apply = "application/apply-patch+yaml";
    let path = format!("{base}/a?fieldManager=me");
    let (status, body) = send(&frontend, "PATCH", &path, apply, request.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["spec"]["username"], "system:apiserver", "{body}");
}
