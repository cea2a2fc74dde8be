use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_api::{Object, Resource};
use serde_json::{Value, json};

use crate::request::{ApiRequest, ApiResponse, Operation, Payload, ResponseBody, WriteParams};
use crate::server::call::fake::Hook;
use crate::storage::memory::MemoryStorage;
use crate::{ApiError, ApiServer};

fn patch(ops: Value) -> Option<Value> {
    let patch = BASE64_STANDARD.encode(ops.to_string());
    Some(json!({ "allowed": true, "patchType": "JSONPatch", "patch": patch }))
}

fn read<K: Resource>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

/// A configuration of one webhook about config maps, with `rest` in it.
fn configuration<K: Resource>(name: &str, client: Value, rest: Value) -> K {
    let mut hook = json!({
        "name": format!("{name}.example.dev"),
        "clientConfig": client,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
                    "operations": ["CREATE", "UPDATE", "DELETE"] }],
    });
    hook.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    read(json!({ "metadata": { "name": name }, "webhooks": [hook] }))
}

async fn server() -> ApiServer {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    server
}

async fn install<K: Resource>(server: &ApiServer, object: &K) {
    server.client().all::<K>().create(object).await.expect("a configuration");
}

async fn create(server: &ApiServer, name: &str, params: WriteParams) -> Result<ApiResponse, ApiError> {
    let kind = server.registry().of::<ConfigMap>().expect("config maps").clone();
    let map: ConfigMap = read(json!({ "metadata": { "name": name }, "data": { "k": "v" } }));
    let operation = Operation::Create(Payload::Typed(Box::new(map)), params);
    let client = server.client();
    let request: ApiRequest = client.request(kind, Some("default"), operation);
    client.call(request).await
}

async fn make(server: &ApiServer, name: &str) -> Result<ApiResponse, ApiError> {
    create(server, name, WriteParams::default()).await
}

fn made(response: &ApiResponse) -> Value {
    let ResponseBody::Object { object, .. } = &response.body else { panic!("an object") };
    serde_json::from_slice(object.json()).expect("JSON")
}

#[tokio::test]
async fn one_changes_and_one_decides() {
    let server = server().await;
    let changes = Hook::serve(|request| {
        assert_eq!(request["operation"], "CREATE");
        assert_eq!(request["resource"], json!({ "group": "", "version": "v1", "resource": "configmaps" }));
        assert_eq!(request["userInfo"]["username"], "system:apiserver");
        patch(json!([{ "op": "add", "path": "/data/added", "value": "yes" }]))
    })
    .await;
    let decides = Hook::serve(|request| {
        let added = request["object"]["data"]["added"] == "yes";
        Some(match request["name"].as_str() {
            Some("bad") => json!({ "allowed": false, "status": { "message": "it is bad", "code": 422 } }),
            _ => json!({ "allowed": added, "warnings": ["careful"], "auditAnnotations": { "seen": "true" } }),
        })
    })
    .await;
    install::<MutatingWebhookConfiguration>(&server, &configuration("changes", changes.client(), json!({ "rules": [
        { "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"], "operations": ["CREATE"] }] })))
    .await;
    install::<ValidatingWebhookConfiguration>(
        &server,
        &configuration("decides", decides.client(), json!({})),
    )
    .await;
    let response = make(&server, "good").await.expect("allowed");
    assert_eq!(made(&response)["data"], json!({ "k": "v", "added": "yes" }));
    assert_eq!(response.warnings, ["careful"]);
    assert_eq!(response.annotations["decides.example.dev/seen"], "true");
    let mutated = &response.annotations["mutation.webhook.admission.k8s.io/round_0_index_0"];
    assert_eq!(mutated, r#"{"configuration":"changes","mutated":true,"webhook":"changes.example.dev"}"#);
    let error = make(&server, "bad").await.expect_err("refused");
    assert_eq!((error.code(), error.reason()), (422, "Invalid"));
    assert_eq!(error.to_string(), "admission webhook \"decides.example.dev\" denied the request: it is bad");
    assert!(
        server.client().namespaced::<ConfigMap>("default").get("bad").await.is_err(),
        "nothing is written"
    );
    // Others are not asked about.
    let before = (changes.asked(), decides.asked());
    let namespace: Namespace = read(json!({ "metadata": { "name": "other" } }));
    server.client().all::<Namespace>().create(&namespace).await.expect("a namespace");
    assert_eq!(before, (changes.asked(), decides.asked()));
}

#[tokio::test]
async fn failures_are_the_requests_or_nobodys() {
    let server = server().await;
    let gone = {
        let hook = Hook::serve(|_| None).await;
        hook.client()
    };
    // The listener closes when its task next runs.
    tokio::task::yield_now().await;
    install::<ValidatingWebhookConfiguration>(
        &server,
        &configuration("gone", gone, json!({ "failurePolicy": "Ignore" })),
    )
    .await;
    let response = make(&server, "a").await.expect("ignored");
    let key = "failed-open.validating.webhook.admission.k8s.io/round_0_index_0";
    assert_eq!(response.annotations[key], "gone.example.dev");
    let silent = Hook::serve(|_| None).await;
    install::<ValidatingWebhookConfiguration>(
        &server,
        &configuration("silent", silent.client(), json!({ "timeoutSeconds": 1 })),
    )
    .await;
    let error = make(&server, "b").await.expect_err("it fails");
    assert_eq!(error.code(), 500);
    assert_eq!(
        error.to_string(),
        "Internal error occurred: failed calling webhook \"silent.example.dev\": failed to call webhook: no answer \
         within 1 s (timeoutSeconds)"
    );
    let stranger = Hook::serve(|_| Some(json!({ "allowed": true }))).await;
    let mut client = stranger.client();
    client["caBundle"] = silent.ca.clone().into();
    let server = self::server().await;
    install::<ValidatingWebhookConfiguration>(&server, &configuration("stranger", client, json!({}))).await;
    let error = make(&server, "c").await.expect_err("it fails").to_string();
    assert!(error.contains("tls: invalid peer certificate"), "{error}");
    assert_eq!(stranger.asked(), 0);
}

#[tokio::test]
async fn a_service_is_found_by_its_endpoints() {
    let server = server().await;
    let hook = Hook::serve(|_| Some(json!({ "allowed": false, "status": { "message": "found" } }))).await;
    let client = json!({ "caBundle": hook.ca,
        "service": { "namespace": "default", "name": "hook", "path": "/admit" } });
    install::<ValidatingWebhookConfiguration>(&server, &configuration("found", client, json!({}))).await;
    let error = make(&server, "a").await.expect_err("no service").to_string();
    assert!(
        error.ends_with("Post \"https://hook.default.svc:443/admit\": service \"hook\" not found"),
        "{error}"
    );
    let service: Service = read(json!({ "metadata": { "name": "hook" },
        "spec": { "clusterIP": "None", "ports": [{ "name": "https", "port": 443, "targetPort": 8443 }] } }));
    server.client().namespaced::<Service>("default").create(&service).await.expect("a service");
    let error = make(&server, "a").await.expect_err("no endpoints").to_string();
    assert!(error.ends_with("no endpoints available for service \"hook\""), "{error}");
    let slice: EndpointSlice = read(json!({
        "metadata": { "name": "hook-1", "labels": { "kubernetes.io/service-name": "hook" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": hook.address.port() }],
    }));
    server.client().namespaced::<EndpointSlice>("default").create(&slice).await.expect("a slice");
    let error = make(&server, "a").await.expect_err("refused").to_string();
    assert_eq!(error, "admission webhook \"found.example.dev\" denied the request: found");
}

#[tokio::test]
async fn selectors_conditions_and_dry_runs_say_who_is_asked() {
    let server = server().await;
    let hook = Hook::serve(|_| Some(json!({ "allowed": false }))).await;
    let selected = json!({ "namespaceSelector": { "matchLabels": { "checked": "true" } } });
    install::<ValidatingWebhookConfiguration>(&server, &configuration("a", hook.client(), selected)).await;
    let condition = json!({ "matchConditions": [
        { "name": "named", "expression": "object.metadata.name.startsWith('x')" }] });
    install::<ValidatingWebhookConfiguration>(&server, &configuration("b", hook.client(), condition)).await;
    make(&server, "a").await.expect("nobody is asked");
    assert_eq!(hook.asked(), 0);
    let error = make(&server, "x").await.expect_err("refused").to_string();
    assert_eq!(error, "admission webhook \"b.example.dev\" denied the request without explanation");
    let namespaces = server.client().all::<Namespace>();
    let mut namespace = (*namespaces.get("default").await.expect("a namespace")).clone();
    namespace.metadata.labels.get_or_insert_default().insert("checked".to_owned(), "true".to_owned());
    namespaces.update(&namespace).await.expect("a label");
    let error = make(&server, "c").await.expect_err("refused").to_string();
    assert!(error.contains("a.example.dev"), "{error}");
    // What has effects of its own is not let in at all, since it could not be asked in a dry run.
    let effects = configuration("c", hook.client(), json!({ "sideEffects": "Some" }));
    let refused = server.client().all::<ValidatingWebhookConfiguration>().create(&effects).await;
    let error = refused.expect_err("it has effects").to_string();
    assert!(error.contains("webhooks[0].sideEffects: Unsupported value: \"Some\""), "{error}");
    let before = hook.asked();
    let dry = WriteParams { dry_run: true, ..WriteParams::default() };
    assert!(create(&server, "xd", dry).await.is_err());
    assert_eq!(hook.asked(), before + 2, "those without are asked in a dry run too");
}

#[tokio::test]
async fn who_wants_to_sees_what_others_have_changed() {
    let server = server().await;
    let counts = Hook::serve(|request| {
        let fields = request["object"]["data"].as_object().map_or(0, serde_json::Map::len);
        patch(json!([{ "op": "add", "path": "/metadata/annotations", "value": { "fields": fields.to_string() } }]))
    })
    .await;
    let adds = Hook::serve(|_| patch(json!([{ "op": "add", "path": "/data/more", "value": "1" }]))).await;
    let again = json!({ "reinvocationPolicy": "IfNeeded" });
    install::<MutatingWebhookConfiguration>(&server, &configuration("a", counts.client(), again)).await;
    install::<MutatingWebhookConfiguration>(&server, &configuration("b", adds.client(), json!({}))).await;
    let response = make(&server, "a").await.expect("allowed");
    assert_eq!(made(&response)["metadata"]["annotations"]["fields"], "2");
    assert_eq!((counts.asked(), adds.asked()), (2, 1));
    let object = server.client().namespaced::<ConfigMap>("default").get("a").await.expect("stored");
    assert_eq!(object.to_value()["data"]["more"], "1");
}
