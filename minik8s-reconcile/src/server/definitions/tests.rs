use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use minik8s_api::crd::names;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Event};
use crate::request::{
    ApiRequest, DeleteParams, FieldValidation, ListParams, Operation, Patch, Payload, ResponseBody,
    WatchParams, WriteParams,
};
use crate::storage::memory::MemoryStorage;
use crate::{ApiError, ApiServer, Manager, controllers};

/// A schedule, as a program would define it in Rust.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "stable.example.com", version = "v1", kind = "CronTab", namespaced, status = "CronTabStatus")]
#[kube(shortname = "ct", printcolumn = r#"{"name":"Spec","type":"string","jsonPath":".spec.cronSpec"}"#)]
#[kube(scale(
    spec_replicas_path = ".spec.replicas",
    status_replicas_path = ".status.replicas",
    label_selector_path = ".status.labelSelector"
))]
#[serde(rename_all = "camelCase")]
struct CronTabSpec {
    #[schemars(regex(pattern = r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"))]
    cron_spec: String,
    image: Option<String>,
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    replicas: i32,
}

fn one() -> i32 {
    1
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct CronTabStatus {
    replicas: Option<i32>,
    label_selector: Option<String>,
}

fn cron_tab(name: &str) -> CronTab {
    let spec = CronTabSpec { cron_spec: "* * * * */5".into(), image: None, replicas: 1 };
    CronTab::new(name, spec)
}

async fn server() -> ApiServer {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    server
}

fn things(versions: &Value) -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": { "name": "things.example.dev" },
        "spec": {
            "group": "example.dev", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": versions,
        },
    }))
    .expect("a definition")
}

fn version(name: &str, storage: bool, spec: &Value) -> Value {
    let schema =
        json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": spec } } });
    json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema": schema } })
}

/// A request about the kind at `version`, for objects that have no type here.
async fn ask(
    client: &Client,
    version: &str,
    name: Option<&str>,
    operation: Operation,
) -> Result<Value, ApiError> {
    let registry = client.registry();
    let kind = registry.by_path("example.dev", version, "things").ok_or_else(ApiError::no_such_resource)?;
    let request = client.request(kind.clone(), Some("default"), operation);
    let response = client.call(ApiRequest { name: name.map(Into::into), ..request }).await?;
    Ok(match response.body {
        ResponseBody::Object { object, .. } => serde_json::from_slice(object.json()).expect("JSON"),
        ResponseBody::List(list) => {
            list.items.iter().map(|o| serde_json::from_slice::<Value>(o.json()).expect("JSON")).collect()
        }
        other => panic!("{other:?}"),
    })
}

fn create(object: &Value) -> Operation {
    Operation::Create(Payload::Json(object.to_string().into()), WriteParams::default())
}

fn strictly(object: &Value) -> Operation {
    let params = WriteParams { field_validation: FieldValidation::Strict, ..WriteParams::default() };
    Operation::Create(Payload::Json(object.to_string().into()), params)
}

#[tokio::test]
async fn a_derived_kind_is_served_once_it_is_defined() {
    let client = server().await.client();
    let made = client.all::<CustomResourceDefinition>().create(&CronTab::crd()).await.expect("define");
    assert!(
        names::is_established(&made) && names::has_condition(&made, "NamesAccepted"),
        "{:?}",
        made.status
    );
    let status = made.status.clone().expect("a status");
    assert_eq!(status.stored_versions, Some(vec!["v1".to_owned()]));
    assert_eq!(status.accepted_names.and_then(|n| n.singular).as_deref(), Some("crontab"));

    let tabs = client.namespaced::<CronTab>("default");
    let one = tabs.create(&cron_tab("a")).await.expect("create");
    assert_eq!(one.metadata.generation, Some(1));
    let mut changed = (*one).clone();
    changed.spec.replicas = 3;
    changed.status = Some(CronTabStatus { replicas: Some(7), label_selector: None });
    let changed = tabs.update(&changed).await.expect("update");
    assert_eq!((changed.metadata.generation, changed.status.as_ref()), (Some(2), None));
    let patch = Patch::merge(&json!({ "status": { "replicas": 3 }, "spec": { "replicas": 9 } }));
    let patched = tabs.patch_status("a", patch).await.expect("patch");
    assert_eq!((patched.metadata.generation, patched.spec.replicas), (Some(2), 3));
    assert_eq!(patched.status.as_ref().and_then(|s| s.replicas), Some(3));

    let mut wrong = cron_tab("b");
    wrong.spec.replicas = 11;
    wrong.spec.cron_spec = "never".into();
    let error = tabs.create(&wrong).await.expect_err("invalid");
    let text = error.to_string();
    for part in [
        "CronTab.stable.example.com \"b\" is invalid: ",
        "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        "spec.cronSpec: Invalid value: \"never\": spec.cronSpec in body should match '^",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(client.registry().find("ct").map(|k| k.plural.to_string()).as_deref(), Some("crontabs"));
}

#[tokio::test]
async fn the_schema_prunes_fills_in_and_complains() {
    let client = server().await.client();
    let spec = json!({
        "size": { "type": "integer", "default": 2 },
        "mode": { "type": "string", "enum": ["fast", "slow"] },
    });
    let define = client.all::<CustomResourceDefinition>();
    define.create(&things(&json!([version("v1", true, &spec)]))).await.expect("define");
    let thing = json!({ "metadata": { "name": "a" }, "spec": { "mode": "fast", "colour": "red" } });
    let made = ask(&client, "v1", None, create(&thing)).await.expect("create");
    assert_eq!(made["spec"], json!({ "mode": "fast", "size": 2 }));
    assert_eq!((&made["apiVersion"], &made["kind"]), (&json!("example.dev/v1"), &json!("Thing")));
    let error = ask(&client, "v1", None, strictly(&thing)).await.expect_err("strict");
    assert!(error.to_string().contains("unknown field \"spec.colour\""), "{error}");
    let bad = json!({ "metadata": { "name": "b" }, "spec": { "mode": "odd", "size": "big" } });
    let error = ask(&client, "v1", None, create(&bad)).await.expect_err("invalid");
    assert_eq!(
        error.to_string(),
        "Thing.example.dev \"b\" is invalid: [spec.mode: Unsupported value: \"odd\": supported values: \"fast\", \
         \"slow\", spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"]"
    );
}

#[tokio::test]
async fn a_new_schema_counts_at_once_and_for_what_is_stored() {
    let client = server().await.client();
    let definitions = client.all::<CustomResourceDefinition>();
    let v1 = |spec: Value| things(&json!([version("v1", true, &spec)]));
    definitions.create(&v1(json!({ "old": { "type": "string" } }))).await.expect("define");
    let thing = json!({ "metadata": { "name": "a" }, "spec": { "old": "x" } });
    ask(&client, "v1", None, create(&thing)).await.expect("create");
    let registry = client.registry();
    let kind = registry.find("things").expect("served").clone();
    let watch = client.request(kind, Some("default"), Operation::Watch(WatchParams::default()));
    let ResponseBody::Watch(mut events) = client.call(watch).await.expect("watch").body else {
        panic!("no watch")
    };
    assert!(events.next().await.is_some_and(|e| e.is_ok()));

    let mut changed = v1(json!({ "new": { "type": "integer", "default": 5 } }));
    changed.metadata.name = Some("things.example.dev".into());
    definitions.update(&changed).await.expect("update");
    let found = ask(&client, "v1", Some("a"), Operation::Get).await.expect("get");
    assert_eq!(found["spec"], json!({ "new": 5 }), "pruned and filled in on reading");
    assert!(events.next().await.is_none(), "a watch in the old form ends");
}

#[tokio::test]
async fn versions_are_converted() {
    let client = server().await.client();
    let definitions = client.all::<CustomResourceDefinition>();
    let old = version("v1beta1", false, &json!({ "size": { "type": "integer" } }));
    let new = json!({ "size": { "type": "integer" }, "colour": { "type": "string", "default": "red" } });
    let both = json!([old, version("v1", true, &new)]);
    definitions.create(&things(&both)).await.expect("define");
    let thing = json!({ "metadata": { "name": "a" }, "spec": { "size": 1 } });
    let made = ask(&client, "v1beta1", None, create(&thing)).await.expect("create");
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.dev/v1beta1"), &json!({ "size": 1 })));
    let new = ask(&client, "v1", Some("a"), Operation::Get).await.expect("get");
    assert_eq!(
        (&new["apiVersion"], &new["spec"]),
        (&json!("example.dev/v1"), &json!({ "size": 1, "colour": "red" }))
    );
    let list = ask(&client, "v1beta1", None, Operation::List(ListParams::default())).await.expect("list");
    assert_eq!(list[0]["apiVersion"], "example.dev/v1beta1");
    let patch = Operation::Patch(Patch::merge(&json!({ "spec": { "size": 4 } })), WriteParams::default());
    let patched = ask(&client, "v1beta1", Some("a"), patch).await.expect("patch");
    assert_eq!(
        (&patched["apiVersion"], &patched["spec"]),
        (&json!("example.dev/v1beta1"), &json!({ "size": 4 }))
    );

    let webhook = json!({
        "strategy": "Webhook",
        "webhook": { "clientConfig": { "url": "https://127.0.0.1:1/" }, "conversionReviewVersions": ["v1"] },
    });
    let patch = Patch::merge(&json!({ "spec": { "conversion": webhook } }));
    definitions.patch("things.example.dev", patch).await.expect("patch");
    let error = ask(&client, "v1beta1", Some("a"), Operation::Get).await.expect_err("no webhook");
    assert!(
        error.to_string().contains("conversion webhook for example.dev/v1, Kind=Thing failed"),
        "{error}"
    );
    ask(&client, "v1", Some("a"), Operation::Get).await.expect("the stored version needs none");
}

#[tokio::test]
async fn the_stored_version_may_change() {
    let client = server().await.client();
    let definitions = client.all::<CustomResourceDefinition>();
    let size = json!({ "size": { "type": "integer" } });
    let both = |new: bool| json!([version("v1", !new, &size), version("v2", new, &size)]);
    definitions.create(&things(&both(false))).await.expect("define");
    let thing = json!({ "metadata": { "name": "a" }, "spec": { "size": 1 } });
    ask(&client, "v2", None, create(&thing)).await.expect("create");
    let made = definitions.update(&things(&both(true))).await.expect("update");
    let stored = made.status.as_ref().and_then(|s| s.stored_versions.clone());
    assert_eq!(stored, Some(vec!["v1".to_owned(), "v2".to_owned()]));
    for version in ["v1", "v2"] {
        let found = ask(&client, version, Some("a"), Operation::Get).await.expect("get");
        assert_eq!(found["apiVersion"], format!("example.dev/{version}"));
    }
    let only = things(&json!([version("v2", true, &size)]));
    let error = definitions.update(&only).await.expect_err("objects may be stored in v1");
    assert!(error.to_string().contains("status.storedVersions[0]: Invalid value: \"v1\""), "{error}");
    let migrated = Patch::merge(&json!({ "status": { "storedVersions": ["v2"] } }));
    definitions.patch_status("things.example.dev", migrated).await.expect("migrate");
    definitions.update(&only).await.expect("update");
    assert!(ask(&client, "v1", Some("a"), Operation::Get).await.expect_err("not served").is_not_found());
    ask(&client, "v2", Some("a"), Operation::Get).await.expect("what is stored as v1 is still read");
}

#[tokio::test]
async fn names_belong_to_one_definition() {
    let client = server().await.client();
    let definitions = client.all::<CustomResourceDefinition>();
    let versions = json!([version("v1", true, &json!({}))]);
    definitions.create(&things(&versions)).await.expect("define");
    let mut rival = things(&versions);
    rival.metadata.name = Some("objects.example.dev".into());
    rival.spec.names.plural = "objects".into();
    let rival = definitions.create(&rival).await.expect("stored, but not served");
    let conditions = rival.status.clone().and_then(|s| s.conditions).expect("conditions");
    let words: Vec<_> =
        conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref())).collect();
    assert_eq!(
        words,
        [("NamesAccepted", "False", Some("SingularConflict")), ("Established", "False", Some("NotAccepted"))]
    );
    assert!(client.registry().find("objects").is_none());
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let manager = Manager::new(client.clone()).controller(controllers::custom_resources::controller());
    tokio::spawn(manager.run(stop));
    definitions.delete("things.example.dev", &DeleteParams::default()).await.expect("delete");
    until(
        &client,
        |e| matches!(e, Event::Applied(d) if d.spec.names.plural == "objects" && names::is_established(d)),
    )
    .await;
    assert!(client.registry().find("objects").is_some());
}

async fn until(client: &Client, seen: impl Fn(&Event<CustomResourceDefinition>) -> bool) {
    let definitions = client.all::<CustomResourceDefinition>();
    let mut events = definitions.watch(&WatchParams::default()).await.expect("watch");
    let found = async { while !seen(&events.next().await.expect("no end").expect("no error")) {} };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("it happens in time");
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let client = server().await.client();
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let manager = Manager::new(client.clone()).controller(controllers::custom_resources::controller());
    tokio::spawn(manager.run(stop));
    let definitions = client.all::<CustomResourceDefinition>();
    definitions.create(&CronTab::crd()).await.expect("define");
    let tabs = client.namespaced::<CronTab>("default");
    let mut held = cron_tab("held");
    held.metadata.finalizers = Some(vec!["example.dev/wait".into()]);
    tabs.create(&held).await.expect("create");
    tabs.create(&cron_tab("free")).await.expect("create");

    definitions.delete(CronTab::crd_name(), &DeleteParams::default()).await.expect("delete");
    let error = tabs.create(&cron_tab("late")).await.expect_err("too late");
    assert_eq!(error.code(), 405, "{error}");
    until(&client, |e| {
        let Event::Applied(d) = e else { return false };
        let conditions = d.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.reason.as_deref() == Some("InstanceDeletionInProgress"))
    })
    .await;
    assert!(tabs.get("free").await.expect_err("gone").is_not_found());
    let free = Patch::merge(&json!({ "metadata": { "finalizers": null } }));
    tabs.patch("held", free).await.expect("patch");
    let gone = async {
        while client.registry().of::<CronTab>().is_some() {
            client.kinds().changed(&client.registry()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it goes in time");
    assert!(tabs.get("held").await.expect_err("no such kind").is_not_found());
}

#[tokio::test]
async fn definitions_outlive_the_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("objects.redb");
    let open = || crate::storage::embedded::EmbeddedStorage::open(&file).expect("storage");
    {
        let server = ApiServer::new(open());
        server.bootstrap().await.expect("bootstrap");
        server.client().all::<CustomResourceDefinition>().create(&CronTab::crd()).await.expect("define");
        server.client().namespaced::<CronTab>("default").create(&cron_tab("a")).await.expect("create");
    }
    let server = ApiServer::new(open());
    server.bootstrap().await.expect("bootstrap");
    assert_eq!(
        server.client().namespaced::<CronTab>("default").get("a").await.expect("get").spec.replicas,
        1
    );
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    use k8s_openapi::api::autoscaling::{v1, v2};
    let client = server().await.client();
    let (old, new) = (
        client.namespaced::<v1::HorizontalPodAutoscaler>("default"),
        client.namespaced::<v2::HorizontalPodAutoscaler>("default"),
    );
    let mut web = v1::HorizontalPodAutoscaler::default();
    web.metadata.name = Some("web".into());
    web.spec.max_replicas = 3;
    web.spec.target_cpu_utilization_percentage = Some(60);
    web.spec.scale_target_ref.kind = "Deployment".into();
    web.spec.scale_target_ref.name = "web".into();
    let made = old.create(&web).await.expect("create");
    assert_eq!(made.spec.target_cpu_utilization_percentage, Some(60));
    let found = new.get("web").await.expect("get");
    let target =
        &found.spec.metrics.as_ref().expect("metrics")[0].resource.as_ref().expect("a resource").target;
    assert_eq!(
        (found.metadata.uid.clone(), target.average_utilization),
        (made.metadata.uid.clone(), Some(60))
    );

    let memory = json!([{ "type": "Resource", "resource": {
        "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" },
    } }]);
    new.patch("web", Patch::merge(&json!({ "spec": { "metrics": memory } }))).await.expect("patch");
    let patched =
        old.patch("web", Patch::merge(&json!({ "spec": { "maxReplicas": 5 } }))).await.expect("patch");
    assert_eq!((patched.spec.max_replicas, patched.spec.target_cpu_utilization_percentage), (5, None));
    let found = new.get("web").await.expect("get");
    let metrics = serde_json::to_value(&found.spec.metrics).expect("JSON");
    assert_eq!((found.spec.max_replicas, metrics), (5, memory), "what version 1 cannot say is kept");
    assert_eq!(found.metadata.annotations, None);
    assert_eq!(old.list(&ListParams::default()).await.expect("list").items.len(), 1);
}

#[tokio::test]
async fn an_event_is_one_object_in_two_groups() {
    use k8s_openapi::api::{core, events};
    let client = server().await.client();
    let (old, new) =
        (client.namespaced::<core::v1::Event>("default"), client.namespaced::<events::v1::Event>("default"));
    let event: core::v1::Event = serde_json::from_value(json!({
        "metadata": { "name": "e", "namespace": "default" }, "message": "hello", "reason": "Tested", "type": "Normal",
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
        "source": { "component": "test" },
    }))
    .expect("an event");
    old.create(&event).await.expect("create");
    let found = new.list(&ListParams::fields("regarding.name=p,reason=Tested")).await.expect("list").items;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].note.as_deref(), found[0].deprecated_source.is_some()), (Some("hello"), true));
    let mut watch = new.watch(&WatchParams::default()).await.expect("watch");
    assert!(matches!(watch.next().await, Some(Ok(Event::Applied(e))) if e.note.as_deref() == Some("hello")));
    old.patch("e", Patch::merge(&json!({ "message": "again" }))).await.expect("patch");
    assert!(matches!(watch.next().await, Some(Ok(Event::Applied(e))) if e.note.as_deref() == Some("again")));
    new.delete("e", &DeleteParams::default()).await.expect("delete");
    assert!(old.get("e").await.expect_err("gone").is_not_found());
}

#[tokio::test]
async fn the_collector_knows_custom_kinds() {
    use k8s_openapi::api::core::v1::ConfigMap;
    let client = server().await.client();
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let manager = Manager::new(client.clone())
        .task(|client, _, stop| controllers::garbage_collector::run(client, stop));
    tokio::spawn(manager.run(stop));
    client.all::<CustomResourceDefinition>().create(&CronTab::crd()).await.expect("define");
    let tabs = client.namespaced::<CronTab>("default");
    let owner = tabs.create(&cron_tab("owner")).await.expect("create");
    let reference = json!([{
        "apiVersion": "stable.example.com/v1", "kind": "CronTab", "name": "owner", "uid": owner.metadata.uid,
    }]);
    let mut owned = cron_tab("owned");
    owned.metadata.owner_references = serde_json::from_value(reference.clone()).expect("references");
    tabs.create(&owned).await.expect("create");
    let maps = client.namespaced::<ConfigMap>("default");
    let map = json!({ "metadata": { "name": "owned", "ownerReferences": reference } });
    maps.create(&serde_json::from_value(map).expect("a map")).await.expect("create");
    let mut gone = maps.watch(&WatchParams::default()).await.expect("watch");
    let mut gone_too = tabs.watch(&WatchParams::default()).await.expect("watch");
    tabs.delete("owner", &DeleteParams::default()).await.expect("delete");
    let both = async {
        while !matches!(gone.next().await, Some(Ok(Event::Deleted(_)))) {}
        let owned = |e: &CronTab| e.metadata.name.as_deref() == Some("owned");
        while !matches!(gone_too.next().await, Some(Ok(Event::Deleted(e))) if owned(&e)) {}
    };
    tokio::time::timeout(Duration::from_secs(10), both).await.expect("they go in time");
}
