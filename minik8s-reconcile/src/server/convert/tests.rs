use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::request::{
    ApiRequest, EventType, ListParams, Operation, Payload, ResponseBody, WatchParams, WriteParams,
};
use crate::server::call::fake::Hook;
use crate::storage::memory::MemoryStorage;
use crate::{ApiError, ApiServer};
use futures::StreamExt;

/// A definition of two versions: `size` is a text in the first and a number in the second, which is stored.
fn definition(hook: &Hook) -> CustomResourceDefinition {
    let version = |name: &str, type_: &str, storage: bool| {
        json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema": {
            "type": "object", "properties": { "spec": { "type": "object",
                "properties": { "size": { "type": type_ } } } } } } })
    };
    serde_json::from_value(json!({
        "metadata": { "name": "boxes.example.dev" },
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": { "plural": "boxes", "kind": "Box" },
            "versions": [version("v1", "string", false), version("v2", "integer", true)],
            "conversion": { "strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": hook.client() } },
        },
    }))
    .expect("a definition")
}

/// Converts boxes; of one that is called `bad` it cannot.
async fn converter() -> Hook {
    Hook::serve(|request| {
        let wanted = request["desiredAPIVersion"].as_str().unwrap();
        let mut objects = request["objects"].as_array().unwrap().clone();
        for object in &mut objects {
            if object["metadata"]["name"] == "bad" {
                return Some(json!({ "result": { "status": "Failed", "message": "it is bad" } }));
            }
            object["apiVersion"] = wanted.into();
            let size = object["spec"]["size"].clone();
            object["spec"]["size"] = match size {
                Value::String(text) => text.parse::<i64>().unwrap().into(),
                number => number.to_string().into(),
            };
        }
        Some(json!({ "result": { "status": "Success" }, "convertedObjects": objects }))
    })
    .await
}

async fn call(
    server: &ApiServer,
    version: &str,
    name: Option<&str>,
    operation: Operation,
) -> Result<ResponseBody, ApiError> {
    let kind = server.registry().by_path("example.dev", version, "boxes").expect("a kind").clone();
    let client = server.client();
    let request: ApiRequest = client.request(kind, Some("default"), operation);
    Ok(client.call(ApiRequest { name: name.map(ToOwned::to_owned), ..request }).await?.body)
}

async fn create(server: &ApiServer, version: &str, name: &str, size: Value) -> Result<Value, ApiError> {
    let object = json!({ "apiVersion": format!("example.dev/{version}"), "kind": "Box",
        "metadata": { "name": name }, "spec": { "size": size } });
    let payload = Payload::Json(object.to_string().into());
    shown(call(server, version, None, Operation::Create(payload, WriteParams::default())).await?)
}

fn shown(body: ResponseBody) -> Result<Value, ApiError> {
    let ResponseBody::Object { object, .. } = body else { panic!("an object") };
    Ok(serde_json::from_slice(object.json()).expect("JSON"))
}

#[tokio::test]
async fn objects_are_written_and_read_in_every_version() {
    let hook = converter().await;
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    server.client().all::<CustomResourceDefinition>().create(&definition(&hook)).await.expect("define");
    let made = create(&server, "v1", "a", json!("5")).await.expect("create");
    assert_eq!((&made["apiVersion"], &made["spec"]["size"]), (&json!("example.dev/v1"), &json!("5")));
    let key = "boxes.example.dev/default/a";
    let stored = server.storage().get(key).await.expect("storage").expect("stored");
    let stored: Value = serde_json::from_slice(stored.json()).expect("JSON");
    assert_eq!((&stored["apiVersion"], &stored["spec"]["size"]), (&json!("example.dev/v2"), &json!(5)));
    assert_eq!(stored["metadata"]["uid"], made["metadata"]["uid"]);
    let read = shown(call(&server, "v2", Some("a"), Operation::Get).await.expect("get")).unwrap();
    assert_eq!(read["spec"]["size"], 5);
    for (name, size) in [("b", 6), ("c", 7)] {
        create(&server, "v2", name, json!(size)).await.expect("create");
    }
    // A list asks once for all.
    let before = hook.asked();
    let list = call(&server, "v1", None, Operation::List(ListParams::default())).await.expect("list");
    let ResponseBody::List(list) = list else { panic!("a list") };
    let size = |o: &crate::Stored| serde_json::from_slice::<Value>(o.json()).unwrap()["spec"]["size"].clone();
    assert_eq!(list.items.iter().map(size).collect::<Vec<_>>(), ["5", "6", "7"]);
    assert!(hook.asked() - before <= 1, "{} calls", hook.asked() - before);
    let before = hook.asked();
    call(&server, "v1", None, Operation::List(ListParams::default())).await.expect("list");
    assert_eq!(hook.asked(), before, "what has been converted is kept");
    // A watch of one version shows what is written in another.
    let params = WatchParams { resource_version: Some(list.revision), ..WatchParams::default() };
    let watch = call(&server, "v1", None, Operation::Watch(params)).await.expect("watch");
    let ResponseBody::Watch(mut events) = watch else { panic!("a watch") };
    create(&server, "v2", "d", json!(8)).await.expect("create");
    let event = events.next().await.expect("an event").expect("no error");
    assert_eq!((event.event, size(&event.object)), (EventType::Added, json!("8")));
    // Changes and deletions.
    let patch = crate::request::Patch::merge(&json!({ "spec": { "size": "50" } }));
    call(&server, "v1", Some("a"), Operation::Patch(patch, WriteParams::default())).await.expect("patch");
    let read = shown(call(&server, "v2", Some("a"), Operation::Get).await.expect("get")).unwrap();
    assert_eq!(read["spec"]["size"], 50);
    call(&server, "v1", Some("a"), Operation::Delete(Default::default())).await.expect("delete");
    assert!(call(&server, "v2", Some("a"), Operation::Get).await.is_err_and(|e| e.is_not_found()));
    // What cannot be converted says why.
    let error = create(&server, "v1", "bad", json!("1")).await.expect_err("it fails");
    assert_eq!(
        error.to_string(),
        "Internal error occurred: conversion webhook for example.dev/v1, Kind=Box failed: it is bad"
    );
}

#[test]
fn answers_are_checked() {
    let read = |answer: Value| super::read(answer.to_string().as_bytes(), "1", "example.dev/v2", 1);
    let success = json!({ "status": "Success" });
    let object = json!({ "apiVersion": "example.dev/v2" });
    let answer = |objects: Value| json!({ "response": { "uid": "1", "result": success, "convertedObjects": objects } });
    assert_eq!(read(answer(json!([object]))).unwrap().len(), 1);
    for (wrong, words) in [
        (json!({}), "no response provided"),
        (json!({ "response": { "uid": "2" } }), "expected response.uid=\"1\", got \"2\""),
        (json!({ "response": { "uid": "1", "result": { "status": "Failed" } } }), "it does not say why"),
        (answer(json!([])), "expected 1 converted objects, got 0"),
        (
            answer(json!([{ "apiVersion": "example.dev/v1" }])),
            "converted object 0 is not of version example.dev/v2",
        ),
    ] {
        assert_eq!(read(wrong).unwrap_err(), words);
    }
    let (before, after) = (json!({ "metadata": { "name": "a" } }), json!({ "metadata": { "name": "b" } }));
    assert!(super::kept(&before, after).unwrap_err().contains("metadata.name must not be changed"));
}
