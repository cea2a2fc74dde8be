use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::client::{Api, Client};
use crate::clock::Clock;
use crate::error::ApiError;
use crate::request::{
    ApiRequest, ApiResponse, Operation, Patch, PatchFormat, Payload, ResponseBody, User, WriteParams,
};
use crate::storage::memory::MemoryStorage;
use crate::stored::Stored;

/// A server whose time stands still unless it is moved.
struct World {
    server: ApiServer,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::tokio(Timestamp::from_second(1_700_000_000).expect("a time"));
        let server = ApiServer::builder().clock(clock).build(MemoryStorage::new());
        server.bootstrap().await.expect("bootstrap");
        Self { server }
    }

    fn client(&self, manager: &str) -> Client {
        self.server.client().field_manager(manager)
    }

    fn configs(&self, manager: &str) -> Api<ConfigMap> {
        self.client(manager).namespaced("default")
    }

    fn deployments(&self, manager: &str) -> Api<Deployment> {
        self.client(manager).namespaced("default")
    }

    async fn send(
        &self,
        path: (&str, &str, Option<&str>),
        operation: Operation,
    ) -> Result<ApiResponse, ApiError> {
        let (plural, name, subresource) = path;
        let registry = self.server.registry();
        let kind = registry.find(plural).expect("a kind").clone();
        let request = ApiRequest {
            namespace: kind.namespaced.then(|| "default".to_owned()),
            kind,
            name: (!name.is_empty()).then(|| name.to_owned()),
            subresource: subresource.map(ToOwned::to_owned),
            operation,
            user: User::internal(),
        };
        self.server.handle(request).await
    }

    async fn stored(&self, plural: &str, name: &str) -> Stored {
        match self.send((plural, name, None), Operation::Get).await.expect("it exists").body {
            ResponseBody::Object { object, .. } => object,
            other => panic!("no object: {other:?}"),
        }
    }

    async fn object(&self, plural: &str, name: &str) -> Value {
        serde_json::from_slice(self.stored(plural, name).await.json()).expect("JSON")
    }

    /// The owners of an object: manager, operation, subresource and fields.
    async fn owners(&self, plural: &str, name: &str) -> Vec<(String, String, String, Value)> {
        let object = self.object(plural, name).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entry = |e: &Value| {
            assert_eq!((e["fieldsType"].as_str(), e["time"].is_string()), (Some("FieldsV1"), true), "{e}");
            (text(&e["manager"]), text(&e["operation"]), text(&e["subresource"]), e["fieldsV1"].clone())
        };
        object["metadata"]["managedFields"].as_array().into_iter().flatten().map(entry).collect()
    }
}

fn config_map(data: Value) -> Value {
    json!({ "data": data })
}

fn deployment(replicas: Option<i32>, image: &str) -> Value {
    let mut deployment = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": image }] },
            },
        },
    });
    if let Some(replicas) = replicas {
        deployment["spec"]["replicas"] = replicas.into();
    }
    deployment
}

fn typed<K: minik8s_api::Resource>(mut json: Value, name: &str) -> K {
    json["metadata"]["name"] = name.into();
    serde_json::from_value(json).expect("an object")
}

#[tokio::test(start_paused = true)]
async fn an_apply_makes_and_then_changes() {
    let world = World::new().await;
    let configs = world.configs("any");
    let made =
        configs.apply("a", "me", &config_map(json!({ "x": "1", "y": "2" })), false).await.expect("made");
    assert!(made.metadata.uid.is_some() && made.metadata.managed_fields.is_none());
    let me = |fields| vec![("me".to_owned(), "Apply".to_owned(), String::new(), json!({ "f:data": fields }))];
    assert_eq!(world.owners("configmaps", "a").await, me(json!({ "f:x": {}, "f:y": {} })));

    tokio::time::advance(Duration::from_secs(60)).await;
    let before = world.stored("configmaps", "a").await;
    let again =
        configs.apply("a", "me", &config_map(json!({ "x": "1", "y": "2" })), false).await.expect("again");
    assert_eq!(again.metadata.resource_version, made.metadata.resource_version, "nothing was written");
    assert_eq!(world.stored("configmaps", "a").await.json(), before.json());

    let changed = configs.apply("a", "me", &config_map(json!({ "x": "3" })), false).await.expect("changed");
    assert_eq!(changed.data, Some([("x".to_owned(), "3".to_owned())].into()), "y was given up");
    assert_eq!(world.owners("configmaps", "a").await, me(json!({ "f:x": {} })));
    let time = |object: Value| object["metadata"]["managedFields"][0]["time"].clone();
    assert_eq!(time(world.object("configmaps", "a").await), "2023-11-14T22:14:20Z");
}

#[tokio::test(start_paused = true)]
async fn two_managers_conflict_or_share() {
    let world = World::new().await;
    let configs = world.configs("any");
    configs.apply("a", "one", &config_map(json!({ "x": "1", "y": "1" })), false).await.expect("made");
    configs.apply("a", "two", &config_map(json!({ "x": "1" })), false).await.expect("the same value");
    assert_eq!(world.owners("configmaps", "a").await.len(), 2);

    let error = configs.apply("a", "two", &config_map(json!({ "x": "2", "y": "2" })), false).await;
    let error = error.expect_err("a conflict");
    assert!(error.is_conflict());
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.x\n- .data.y"
    );
    let causes = error.to_status().details.and_then(|d| d.causes).expect("causes");
    let cause = serde_json::to_value(&causes[0]).expect("JSON");
    let expected =
        json!({ "reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.x" });
    assert_eq!(cause, expected);

    let forced = configs.apply("a", "two", &config_map(json!({ "x": "2", "y": "2" })), true).await;
    assert_eq!(forced.expect("forced").data.as_ref().map(|d| d["y"].as_str()), Some("2"));
    let owners = world.owners("configmaps", "a").await;
    assert_eq!(owners.iter().map(|o| o.0.as_str()).collect::<Vec<_>>(), ["two"]);

    // What two have is gone when both have let go.
    configs.apply("a", "one", &config_map(json!({ "y": "2" })), false).await.expect("shared");
    let left = configs.apply("a", "two", &config_map(json!({ "x": "2" })), false).await.expect("let go");
    assert!(left.data.as_ref().is_some_and(|d| d.contains_key("y")));
    let left = configs.apply("a", "one", &config_map(json!({})), false).await.expect("let go");
    assert!(left.data.as_ref().is_some_and(|d| !d.contains_key("y")));
}

#[tokio::test(start_paused = true)]
async fn writes_of_all_kinds_own_what_they_change() {
    let world = World::new().await;
    let deployments = world.deployments("maker");
    let made = deployments.create(&typed(deployment(Some(1), "i:1"), "web")).await.expect("made");
    let owners = world.owners("deployments", "web").await;
    assert_eq!((owners.len(), owners[0].0.as_str(), owners[0].1.as_str()), (1, "maker", "Update"));
    let fields = &owners[0].3;
    assert!(fields["f:spec"]["f:progressDeadlineSeconds"].is_object(), "defaults are the maker's: {fields}");
    assert!(fields.get("f:status").is_none() && fields["f:metadata"].get("f:uid").is_none(), "{fields}");
    assert!(fields["f:spec"].get(".").is_none() && fields["f:spec"]["f:template"].get(".").is_none());

    tokio::time::advance(Duration::from_secs(1)).await;
    let scale = Patch::merge(&json!({ "spec": { "replicas": 3 } }));
    world.deployments("scaler").patch("web", scale).await.expect("scaled");
    let mut status = (*made).clone();
    status.metadata.resource_version = None;
    status.status.get_or_insert_default().replicas = Some(3);
    world.deployments("controller").update_status(&status).await.expect("status");
    let owners = world.owners("deployments", "web").await;
    let of = |name: &str| owners.iter().find(|o| o.0 == name).unwrap_or_else(|| panic!("{name}: {owners:?}"));
    assert_eq!(of("scaler").3, json!({ "f:spec": { "f:replicas": {} } }));
    assert_eq!(
        (of("controller").2.as_str(), &of("controller").3),
        ("status", &json!({ "f:status": { "f:replicas": {} } }))
    );
    assert!(of("maker").3["f:spec"].get("f:replicas").is_none());

    let config = json!({ "spec": { "replicas": 4 } });
    let error = deployments.apply("web", "applier", &config, false).await.expect_err("it is the scaler's");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
    );
    let error =
        deployments.apply_status("web", "applier", &json!({ "status": { "replicas": 9 } }), false).await;
    assert_eq!(
        error.expect_err("it is the controller's").to_string(),
        "Apply failed with 1 conflict: conflict with \"controller\" with subresource \"status\" using apps/v1: \
         .status.replicas"
    );
}

#[tokio::test(start_paused = true)]
async fn the_status_is_applied_apart() {
    let world = World::new().await;
    let deployments = world.deployments("any");
    let mut config = deployment(Some(1), "i:1");
    config["status"] = json!({ "replicas": 7 });
    let absent = deployments.apply_status("web", "me", &json!({ "status": {} }), false).await;
    assert!(absent.expect_err("there is none").is_not_found());
    let made = deployments.apply("web", "me", &config, false).await.expect("made");
    assert_ne!(made.status.as_ref().and_then(|s| s.replicas), Some(7));
    assert!(world.owners("deployments", "web").await[0].3.get("f:status").is_none());

    let status = json!({ "spec": { "replicas": 9 }, "status": { "replicas": 2, "conditions": [
        { "type": "Available", "status": "True" },
    ] } });
    let applied = deployments.apply_status("web", "me", &status, false).await.expect("applied");
    assert_eq!(applied.spec.replicas, Some(1));
    let more = json!({ "status": { "conditions": [{ "type": "Progressing", "status": "True" }] } });
    let applied = deployments.apply_status("web", "other", &more, false).await.expect("applied");
    let conditions = applied.status.as_ref().and_then(|s| s.conditions.as_ref()).expect("conditions");
    assert_eq!(conditions.len(), 2);
    let owners = world.owners("deployments", "web").await;
    assert_eq!(owners.iter().map(|o| o.2.as_str()).collect::<Vec<_>>(), ["", "status", "status"]);
    assert_eq!(applied.status.as_ref().and_then(|s| s.replicas), Some(2));
}

#[tokio::test(start_paused = true)]
async fn lists_belong_to_those_who_list() {
    let world = World::new().await;
    let deployments = world.deployments("any");
    deployments.apply("web", "one", &deployment(None, "i:1"), false).await.expect("made");
    let sidecar = json!({
        "metadata": { "finalizers": ["example.dev/two"] },
        "spec": { "template": { "spec": {
            "containers": [{ "name": "c", "env": [{ "name": "A", "value": "1" }] }, { "name": "proxy", "image": "p" }],
            "tolerations": [{ "key": "k", "operator": "Exists" }],
        } } },
    });
    let both = deployments.apply("web", "two", &sidecar, false).await.expect("another container");
    let pod = both.spec.template.spec.as_ref().expect("a pod");
    let names: Vec<_> = pod.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!((names, pod.containers[0].image.as_deref()), (vec!["c", "proxy"], Some("i:1")));

    let mut more = deployment(None, "i:1");
    more["metadata"]["finalizers"] = json!(["example.dev/one"]);
    let merged = deployments.apply("web", "one", &more, false).await.expect("a set");
    assert_eq!(merged.metadata.finalizers.as_ref().map(Vec::len), Some(2));

    more["spec"]["template"]["spec"]["tolerations"] = json!([]);
    let error = deployments.apply("web", "one", &more, false).await.expect_err("a whole");
    assert!(error.to_string().ends_with("conflict with \"two\": .spec.template.spec.tolerations"), "{error}");

    let gone = deployments.apply("web", "two", &json!({}), false).await.expect("let go");
    let pod = gone.spec.template.spec.as_ref().expect("a pod");
    assert_eq!((pod.containers.len(), &pod.containers[0].env, &pod.tolerations), (1, &None, &None));
    assert_eq!(gone.metadata.finalizers.as_deref(), Some(["example.dev/one".to_owned()].as_slice()));
    assert_eq!(world.owners("deployments", "web").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn owners_may_be_changed_and_cleared_by_hand() {
    let world = World::new().await;
    let configs = world.configs("me");
    configs.create(&typed(config_map(json!({ "x": "1" })), "a")).await.expect("made");
    // Who knows nothing of owners takes none away.
    let mut seen = (*configs.get("a").await.expect("get")).clone();
    seen.data.get_or_insert_default().insert("y".into(), "2".into());
    let object = configs.update(&seen).await.expect("updated");
    assert_eq!(world.owners("configmaps", "a").await.len(), 1);

    let renamed = json!([{ "op": "replace", "path": "/metadata/managedFields/0/manager", "value": "you" }]);
    let patch = Patch { format: PatchFormat::Json, body: renamed.to_string().into(), force: false };
    configs.patch("a", patch).await.expect("patched");
    assert_eq!(world.owners("configmaps", "a").await[0].0, "you");

    for empty in [json!([]), json!([{}])] {
        let clear = json!({ "metadata": { "managedFields": empty } });
        configs.patch("a", Patch::merge(&clear)).await.expect("cleared");
        assert!(world.owners("configmaps", "a").await.is_empty());
        let grow = json!({ "metadata": { "labels": { empty.to_string().len().to_string(): "" } } });
        configs.patch("a", Patch::merge(&grow)).await.expect("a label");
        assert_eq!(world.owners("configmaps", "a").await.len(), 1);
    }
    let mut cleared = (*object).clone();
    cleared.metadata.resource_version = None;
    cleared.metadata.managed_fields = Some(Vec::new());
    cleared.metadata.labels = Some([("2".to_owned(), String::new()), ("4".to_owned(), String::new())].into());
    configs.update(&cleared).await.expect("cleared");
    assert!(world.owners("configmaps", "a").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn owners_outlive_what_is_not_written_by_anyone() {
    let world = World::new().await;
    let pods = world.client("me").namespaced::<Pod>("default");
    let spec = json!({ "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    pods.create(&typed(spec, "p")).await.expect("made");
    let before = world.owners("pods", "p").await;
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "target": { "kind": "Node", "name": "n" } });
    pods.create_subresource("p", "binding", binding.to_string().into_bytes()).await.expect("bound");
    assert_eq!(world.owners("pods", "p").await, before, "Kubernetes notes no owner of a binding");
    pods.delete("p", &Default::default()).await.expect("deleted");
    assert_eq!(world.owners("pods", "p").await, before);
    tokio::time::advance(Duration::from_secs(5)).await;
    let running = Patch::merge(&json!({ "status": { "phase": "Running" } }));
    world.client("agent").namespaced::<Pod>("default").patch_status("p", running).await.expect("status");
    let owners = world.owners("pods", "p").await;
    assert_eq!(
        owners[1],
        ("agent".into(), "Update".into(), "status".into(), json!({ "f:status": { "f:phase": {} } }))
    );

    let namespaces = world.client("me").all::<Namespace>();
    namespaces.create(&typed(json!({}), "n")).await.expect("made");
    let owners = world.owners("namespaces", "n").await;
    assert!(
        owners.iter().all(|o| o.3.get("f:spec").is_none() && o.3.get("f:status").is_none()),
        "{owners:?}"
    );
}

fn raw(format: PatchFormat, body: Value, force: bool, manager: &str) -> Operation {
    let params = WriteParams { field_manager: manager.to_owned(), ..WriteParams::default() };
    Operation::Patch(Patch { format, body: body.to_string().into(), force }, params)
}

#[tokio::test(start_paused = true)]
async fn requests_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let at = ("configmaps", "a", None);
    let config = |metadata: Value| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    let good = config(json!({ "name": "a" }));
    let mut cases = vec![
        (
            raw(PatchFormat::Apply, good.clone(), false, ""),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            raw(PatchFormat::Merge, good.clone(), true, "me"),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        ),
        (
            raw(PatchFormat::Apply, config(json!({ "name": "a", "managedFields": [] })), false, "me"),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            raw(PatchFormat::Apply, config(json!({ "name": "b" })), false, "me"),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            raw(PatchFormat::Apply, config(json!({ "name": "a", "uid": "u" })), false, "me"),
            409,
            "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid u, and \
             no existing object was found",
        ),
        (
            raw(PatchFormat::Apply, config(json!({ "name": "a", "resourceVersion": "3" })), false, "me"),
            404,
            "configmaps \"a\" not found",
        ),
        (
            raw(PatchFormat::Apply, json!({ "apiVersion": "v2", "kind": "ConfigMap" }), false, "me"),
            400,
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
    ];
    let mut unknown = good.clone();
    unknown["dato"] = json!({});
    cases.push((
        raw(PatchFormat::Apply, unknown, false, "me"),
        400,
        "failed to create typed patch object (default/a; v1, Kind=ConfigMap): .dato: field not declared in schema",
    ));
    for (operation, code, message) in cases {
        let error = world.send(at, operation).await.expect_err(message);
        assert_eq!((error.code(), error.to_string().as_str()), (code, message));
    }
    let long = "m".repeat(129);
    let params = WriteParams { field_manager: long, ..WriteParams::default() };
    let payload = Payload::Json(good.to_string().into());
    let error =
        world.send(("configmaps", "", None), Operation::Create(payload, params)).await.expect_err("too long");
    assert_eq!(
        error.to_string(),
        "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"
    );
    let error =
        world.send(at, raw(PatchFormat::Apply, good.clone(), false, "a\nb")).await.expect_err("a line break");
    assert!(error.to_string().contains("should only contain printable characters"), "{error}");

    // A version in a configuration must be the present one.
    world.send(at, raw(PatchFormat::Apply, good, false, "me")).await.expect("made");
    let stale = raw(PatchFormat::Apply, config(json!({ "name": "a", "resourceVersion": "1" })), false, "me");
    assert!(world.send(at, stale).await.expect_err("stale").is_conflict());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_writes_nothing() {
    let world = World::new().await;
    let config =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "x": "1" } });
    let dry = |config: &Value| {
        let params = WriteParams { field_manager: "me".into(), dry_run: true, ..WriteParams::default() };
        let patch = Patch { format: PatchFormat::Apply, body: config.to_string().into(), force: false };
        Operation::Patch(patch, params)
    };
    let at = ("configmaps", "a", None);
    let answer = world.send(at, dry(&config)).await.expect("a dry run");
    assert!(matches!(answer.body, ResponseBody::Object { created: true, .. }));
    assert!(world.send(at, Operation::Get).await.expect_err("nothing there").is_not_found());
    world.configs("x").apply("a", "you", &json!({ "data": { "x": "1" } }), false).await.expect("made");
    let before = world.stored("configmaps", "a").await;
    world.send(at, dry(&config)).await.expect("a dry run");
    assert_eq!(world.stored("configmaps", "a").await.json(), before.json());
    let mut other = config;
    other["data"]["x"] = "2".into();
    assert!(world.send(at, dry(&other)).await.expect_err("a dry run tells of conflicts").is_conflict());
}

#[tokio::test(start_paused = true)]
async fn yaml_is_read_and_who_says_nothing_is_unknown() {
    let world = World::new().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: \"1\" # one\n";
    let patch = Patch { format: PatchFormat::Apply, body: body.into(), force: false };
    let params = WriteParams { field_manager: "me".into(), ..WriteParams::default() };
    world.send(("configmaps", "a", None), Operation::Patch(patch, params)).await.expect("applied");
    let change = raw(PatchFormat::Merge, json!({ "data": { "y": "2" } }), false, "");
    world.send(("configmaps", "a", None), change).await.expect("patched");
    let owners = world.owners("configmaps", "a").await;
    assert_eq!(owners.iter().map(|o| o.0.as_str()).collect::<Vec<_>>(), ["me", "unknown"]);
}
