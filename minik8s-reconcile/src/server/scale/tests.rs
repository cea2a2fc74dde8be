use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use minik8s_api::Kind;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::client::Client;
use crate::error::ApiError;
use crate::request::{ApiRequest, Operation, Patch, PatchFormat, Payload, ResponseBody, WriteParams};
use crate::storage::memory::MemoryStorage;

async fn server() -> (Client, Arc<Kind>) {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
            },
        },
    }))
    .expect("a deployment");
    client.namespaced::<Deployment>("default").create(&deployment).await.expect("create");
    let kind = server.registry().of::<Deployment>().expect("built in").clone();
    (client, kind)
}

async fn scale(client: &Client, kind: &Arc<Kind>, operation: Operation) -> Result<Value, ApiError> {
    let request = ApiRequest {
        name: Some("web".to_owned()),
        subresource: Some("scale".to_owned()),
        ..client.request(kind.clone(), Some("default"), operation)
    };
    match client.call(request).await?.body {
        ResponseBody::Object { object, .. } => Ok(serde_json::from_slice(object.json()).expect("JSON")),
        other => panic!("{other:?}"),
    }
}

fn put(scale: &Value) -> Operation {
    Operation::Update(Payload::Json(scale.to_string().into()), WriteParams::default())
}

fn patch(format: PatchFormat, body: &Value) -> Operation {
    let patch = Patch { format, body: body.to_string().into(), force: false };
    Operation::Patch(patch, WriteParams::default())
}

#[tokio::test]
async fn a_scale_is_read_and_replaced() {
    let (client, kind) = server().await;
    let mut shown = scale(&client, &kind, Operation::Get).await.expect("a scale");
    assert_eq!(
        (shown["kind"].as_str(), shown["apiVersion"].as_str()),
        (Some("Scale"), Some("autoscaling/v1"))
    );
    assert_eq!(
        (&shown["spec"], &shown["status"]["selector"]),
        (&json!({ "replicas": 2 }), &json!("app=web"))
    );
    shown["spec"]["replicas"] = 5.into();
    let replaced = scale(&client, &kind, put(&shown)).await.expect("put");
    assert_eq!(replaced["spec"]["replicas"], 5);
    assert_ne!(replaced["metadata"]["resourceVersion"], shown["metadata"]["resourceVersion"]);
    let deployments = client.namespaced::<Deployment>("default");
    let deployment = deployments.get("web").await.expect("get");
    assert_eq!((deployment.spec.replicas, deployment.metadata.generation), (Some(5), Some(2)));

    assert!(scale(&client, &kind, put(&shown)).await.expect_err("stale").is_conflict());
    shown["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    shown["spec"]["replicas"] = (-1).into();
    let error = scale(&client, &kind, put(&shown)).await.expect_err("negative");
    assert_eq!(
        error.to_string(),
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    shown["metadata"]["name"] = "other".into();
    assert_eq!(scale(&client, &kind, put(&shown)).await.expect_err("another name").code(), 400);
    let delete = Operation::Delete(Default::default());
    assert_eq!(scale(&client, &kind, delete).await.expect_err("no").code(), 405);
}

#[tokio::test]
async fn a_scale_is_patched_in_every_language() {
    let (client, kind) = server().await;
    for (format, body, replicas) in [
        (PatchFormat::Merge, json!({ "spec": { "replicas": 3 } }), 3),
        (PatchFormat::StrategicMerge, json!({ "spec": { "replicas": 4 } }), 4),
        (PatchFormat::Json, json!([{ "op": "replace", "path": "/spec/replicas", "value": 0 }]), 0),
    ] {
        let patched = scale(&client, &kind, patch(format, &body)).await.expect("patch");
        assert_eq!(patched["spec"]["replicas"], replicas, "{format:?}");
    }
    let stale = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 9 } });
    assert!(scale(&client, &kind, patch(PatchFormat::Merge, &stale)).await.expect_err("stale").is_conflict());
    let params = WriteParams { dry_run: true, ..WriteParams::default() };
    let dry = Operation::Patch(Patch::merge(&json!({ "spec": { "replicas": 7 } })), params);
    assert_eq!(scale(&client, &kind, dry).await.expect("dry run")["spec"]["replicas"], 7);
    let now = scale(&client, &kind, Operation::Get).await.expect("a scale");
    assert_eq!(now["spec"]["replicas"], 0, "a dry run changes nothing");
}

#[tokio::test]
async fn a_scale_is_applied_and_owned() {
    let (client, kind) = server().await;
    let config = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "spec": { "replicas": 3 } });
    let apply = |manager: &str, force: bool| {
        let params = WriteParams { field_manager: manager.to_owned(), ..WriteParams::default() };
        let patch = Patch { format: PatchFormat::Apply, body: config.to_string().into(), force };
        Operation::Patch(patch, params)
    };
    // Whoever made it owns how many there are.
    let error = scale(&client, &kind, apply("scaler", false)).await.expect_err("a conflict");
    assert!(error.is_apply_conflict(), "{error}");
    let applied = scale(&client, &kind, apply("scaler", true)).await.expect("forced");
    assert_eq!(applied["spec"]["replicas"], 3);
    let request = ApiRequest {
        name: Some("web".to_owned()),
        ..client.request(kind.clone(), Some("default"), Operation::Get)
    };
    let ResponseBody::Object { object, .. } = client.call(request).await.expect("get").body else { panic!() };
    let object: Value = serde_json::from_slice(object.json()).expect("JSON");
    let managers = object["metadata"]["managedFields"].as_array().expect("managers");
    let own = managers.iter().find(|m| m["manager"] == "scaler").expect("the applier");
    assert_eq!((&own["operation"], &own["subresource"]), (&json!("Apply"), &json!("scale")));
    assert_eq!(own["fieldsV1"], json!({ "f:spec": { "f:replicas": {} } }));
    let nobody = scale(&client, &kind, apply("", false)).await.expect_err("nobody");
    assert_eq!(nobody.code(), 422);
}
