use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::request::{ApiRequest, Operation, Patch, PatchFormat, ResponseBody, WriteParams};
use crate::storage::memory::MemoryStorage;
use crate::{ApiError, ApiServer};

async fn server() -> ApiServer {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "web" }, "spec": { "containers": [
        { "name": "main", "image": "web:1", "resources": { "requests": { "cpu": "100m" } } }] } }))
    .expect("a pod");
    server.client().namespaced::<Pod>("default").create(&pod).await.expect("create");
    server
}

async fn patch(server: &ApiServer, part: &str, body: Value) -> Result<Value, ApiError> {
    let client = server.client();
    let kind = server.registry().of::<Pod>().expect("pods").clone();
    let patch = Patch { format: PatchFormat::StrategicMerge, body: body.to_string().into(), force: false };
    let operation = Operation::Patch(patch, WriteParams::default());
    let request = ApiRequest {
        name: Some("web".to_owned()),
        subresource: Some(part.to_owned()).filter(|p| !p.is_empty()),
        ..client.request(kind, Some("default"), operation)
    };
    let ResponseBody::Object { object, .. } = client.call(request).await?.body else { panic!("an object") };
    Ok(serde_json::from_slice(object.json()).expect("JSON"))
}

#[tokio::test]
async fn ephemeral_containers_come_by_a_way_of_their_own() {
    let server = server().await;
    let debug = |image: &str| {
        json!({ "metadata": { "labels": { "not": "taken" } },
            "spec": { "ephemeralContainers": [{ "name": "debug", "image": image, "stdin": true }] } })
    };
    assert!(patch(&server, "", debug("busybox")).await.is_err(), "not through the pod itself");
    let pod = patch(&server, "ephemeralcontainers", debug("busybox")).await.expect("added");
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["image"], "busybox");
    assert_eq!((&pod["metadata"]["generation"], &pod["metadata"]["labels"]), (&json!(2), &Value::Null));
    let error = patch(&server, "ephemeralcontainers", debug("other")).await.expect_err("changed");
    assert!(
        error.to_string().contains("existing ephemeral containers \"debug\" may not be changed"),
        "{error}"
    );
    let resize = json!({ "spec": { "ephemeralContainers": [{ "name": "more", "image": "busybox" }] } });
    let pod = patch(&server, "resize", resize).await.expect("nothing");
    assert_eq!(pod["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn resources_are_resized_by_a_way_of_their_own() {
    let server = server().await;
    let cpu = |amount: &str| {
        json!({ "spec": { "containers": [{ "name": "main", "image": "other",
            "resources": { "requests": { "cpu": amount } } }] } })
    };
    assert!(patch(&server, "", cpu("200m")).await.is_err(), "not through the pod itself");
    let pod = patch(&server, "resize", cpu("200m")).await.expect("resized");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"]["cpu"], "200m");
    assert_eq!((&container["image"], &pod["metadata"]["generation"]), (&json!("web:1"), &json!(2)));
    let all = json!({ "spec": { "containers": [{ "name": "main", "resources": {
        "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "cpu": "1", "memory": "1Gi" } } }] } });
    let error = patch(&server, "resize", all).await.expect_err("another class");
    assert!(error.to_string().contains("Pod QOS Class may not change as a result of resizing"), "{error}");
}
