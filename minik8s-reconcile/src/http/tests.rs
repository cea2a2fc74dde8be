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
