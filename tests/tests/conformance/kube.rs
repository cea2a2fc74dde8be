//! The `kube` crate: its client, and its runtime's controllers, finalizers, events and waits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Event, ObjectReference};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, CustomResource, CustomResourceExt, Resource, ResourceExt};
use minik8s_tests::{PATIENCE, Scene};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

/// A note, kept in a configuration of the same name.
#[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[kube(group = "tests.minik8s.dev", version = "v1", kind = "Memo", namespaced, status = "MemoStatus")]
#[kube(shortname = "memo", printcolumn = r#"{"name":"Text","type":"string","jsonPath":".spec.text"}"#)]
struct MemoSpec {
    /// What it says.
    #[schemars(length(min = 1))]
    text: String,
    #[serde(default = "one")]
    copies: u32,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
struct MemoStatus {
    kept: bool,
}

struct Operator {
    kube: kube::Client,
    recorder: Recorder,
}

#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self(error.to_string())
    }
}

const MANAGER: &str = "memo-operator";

async fn reconcile(memo: Arc<Memo>, operator: Arc<Operator>) -> Result<Action, Failure> {
    let namespace = memo.namespace().unwrap_or_default();
    let memos: Api<Memo> = Api::namespaced(operator.kube.clone(), &namespace);
    let done = finalizer(&memos, "tests.minik8s.dev/memo", memo, |event| async {
        match event {
            Finalizer::Apply(memo) => keep(&memo, &operator, &memos, &namespace).await,
            Finalizer::Cleanup(memo) => {
                let note = "forgotten".to_owned();
                publish(&operator, &memo, "Forgotten", note).await?;
                Ok(Action::await_change())
            }
        }
    });
    done.await.map_err(|e: kube::runtime::finalizer::Error<Failure>| Failure(e.to_string()))
}

async fn keep(
    memo: &Memo,
    operator: &Operator,
    memos: &Api<Memo>,
    namespace: &str,
) -> Result<Action, Failure> {
    let name = memo.name_any();
    let configs: Api<ConfigMap> = Api::namespaced(operator.kube.clone(), namespace);
    let child = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "ownerReferences": [memo.controller_owner_ref(&()).expect("it is stored")] },
        "data": { "text": memo.spec.text },
    });
    configs.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&child)).await?;
    let status = json!({ "apiVersion": "tests.minik8s.dev/v1", "kind": "Memo", "status": { "kept": true } });
    memos.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&status)).await?;
    publish(operator, memo, "Kept", format!("kept in {name}")).await?;
    Ok(Action::requeue(Duration::from_secs(3600)))
}

async fn publish(operator: &Operator, memo: &Memo, reason: &str, note: String) -> Result<(), Failure> {
    let event = kube::runtime::events::Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let about: ObjectReference = memo.object_ref(&());
    Ok(operator.recorder.publish(&event, &about).await?)
}

/// Waits, for no longer than is reasonable.
async fn soon<T, E: std::error::Error + Send + Sync + 'static>(
    what: &str,
    condition: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    Ok(timeout(PATIENCE, condition).await.with_context(|| format!("in vain: {what}"))??)
}

pub(super) async fn controller(scene: Scene) -> anyhow::Result<()> {
    let kube = scene.kube();
    let definitions: Api<CustomResourceDefinition> = Api::all(kube.clone());
    let apply = PatchParams::apply(MANAGER).force();
    definitions.patch(Memo::crd_name(), &apply, &Patch::Apply(Memo::crd())).await?;
    let established =
        await_condition(definitions.clone(), Memo::crd_name(), conditions::is_crd_established());
    timeout(PATIENCE, established).await.context("the definition is not established")??;

    let memos: Api<Memo> = Api::namespaced(kube.clone(), scene.namespace());
    let configs: Api<ConfigMap> = Api::namespaced(kube.clone(), scene.namespace());
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: None };
    let operator = Arc::new(Operator { kube: kube.clone(), recorder: Recorder::new(kube.clone(), reporter) });
    let running = Controller::new(memos.clone(), watcher::Config::default())
        .owns(configs.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), operator)
        // What fails is tried again; what fails for ever is noticed below.
        .for_each(|_| std::future::ready(()));
    let running = tokio::spawn(running);

    let memo = Memo::new("first", serde_json::from_value(json!({ "text": "hello" }))?);
    memos.create(&PostParams::default(), &memo).await?;
    let kept = |memo: Option<&Memo>| memo.and_then(|m| m.status.as_ref()).is_some_and(|s| s.kept);
    let memo =
        soon("the memo is kept", await_condition(memos.clone(), "first", kept)).await?.context("a memo")?;
    ensure!(memo.spec.copies == 1 && memo.finalizers() == ["tests.minik8s.dev/memo"], "{memo:?}");
    let text = |wanted: &'static str| {
        move |config: Option<&ConfigMap>| {
            config.and_then(|c| c.data.as_ref()).is_some_and(|d| d.get("text").is_some_and(|t| t == wanted))
        }
    };
    soon("the child is there", await_condition(configs.clone(), "first", text("hello"))).await?;
    // What somebody else did to the child is undone, and the child that is deleted comes back.
    let meddle = json!({ "data": { "text": "something else" } });
    configs.patch("first", &PatchParams::default(), &Patch::Merge(&meddle)).await?;
    soon("what was done to the child is undone", await_condition(configs.clone(), "first", text("hello")))
        .await?;
    configs.delete("first", &DeleteParams::default()).await?;
    soon("the deleted child is back", await_condition(configs.clone(), "first", text("hello"))).await?;
    let change = json!({ "spec": { "text": "goodbye" } });
    memos.patch("first", &PatchParams::default(), &Patch::Merge(&change)).await?;
    soon("the child follows", await_condition(configs.clone(), "first", text("goodbye"))).await?;
    let bad = json!({ "spec": { "text": "" } });
    let refused = memos.patch("first", &PatchParams::default(), &Patch::Merge(&bad)).await;
    ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422), "{refused:?}");

    let (uid, child) = (memo.uid().context("a uid")?, configs.get("first").await?.uid().context("a uid")?);
    memos.delete("first", &DeleteParams::default()).await?;
    soon("the memo is gone", await_condition(memos.clone(), "first", conditions::is_deleted(&uid))).await?;
    soon("the child is gone", await_condition(configs, "first", conditions::is_deleted(&child))).await?;
    let events: Api<Event> = Api::namespaced(kube, scene.namespace());
    let told = events.list(&ListParams::default().fields("involvedObject.kind=Memo")).await?;
    let reasons: Vec<_> = told.items.iter().filter_map(|e| e.reason.as_deref()).collect();
    ensure!(reasons.contains(&"Kept") && reasons.contains(&"Forgotten"), "{reasons:?}");
    running.abort();
    definitions.delete(Memo::crd_name(), &DeleteParams::default()).await?;
    Ok(())
}

pub(super) async fn waits(scene: Scene) -> anyhow::Result<()> {
    scene.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: { name: waited }\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers: [{ name: main, image: \"localhost/busybox:1\", command: [sleep, \"3600\"] }]\n",
    )
    .await?;
    let pods = scene.pods();
    let running = await_condition(pods.clone(), "waited", conditions::is_pod_running());
    let pod = timeout(PATIENCE, running).await??.context("a pod")?;
    let uid = pod.uid().context("a uid")?;
    pods.delete("waited", &DeleteParams::default()).await?;
    timeout(PATIENCE, await_condition(pods, "waited", conditions::is_deleted(&uid))).await??;
    Ok(())
}

pub(super) async fn apply_loops(scene: Scene) -> anyhow::Result<()> {
    const MANAGERS: usize = 4;
    let configs: Api<ConfigMap> = Api::namespaced(scene.kube(), scene.namespace());
    let body = |manager: usize, round: usize| {
        let (key, value) = (format!("of-{manager}"), round.to_string());
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "shared" },
            "data": { key: value },
        })
    };
    let loops = (0..MANAGERS).map(|manager| {
        let configs = configs.clone();
        async move {
            let params = PatchParams::apply(&format!("manager-{manager}"));
            for round in 0..20 {
                configs.patch("shared", &params, &Patch::Apply(&body(manager, round))).await?;
            }
            Ok::<_, kube::Error>(())
        }
    });
    futures::future::try_join_all(loops).await?;
    let settled = configs.get("shared").await?;
    let data = settled.data.clone().unwrap_or_default();
    ensure!(data.len() == MANAGERS && data.values().all(|v| v == "19"), "{data:?}");
    ensure!(settled.managed_fields().len() == MANAGERS, "{:?}", settled.managed_fields());
    for manager in 0..MANAGERS {
        let params = PatchParams::apply(&format!("manager-{manager}"));
        let again = configs.patch("shared", &params, &Patch::Apply(&body(manager, 19))).await?;
        ensure!(again.resource_version() == settled.resource_version(), "a write that changes nothing");
    }
    Ok(())
}

pub(super) async fn streaming_lists(scene: Scene) -> anyhow::Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(scene.kube(), scene.namespace());
    for name in ["one", "two"] {
        let mut config = ConfigMap::default();
        config.metadata.name = Some(name.to_owned());
        configs.create(&PostParams::default(), &config).await?;
    }
    // Every namespace has one more, which comes when it comes.
    let own = watcher::Config::default().fields("metadata.name!=kube-root-ca.crt");
    let stream = watcher::watcher(configs.clone(), own.streaming_lists());
    pin_mut!(stream);
    let mut names = Vec::new();
    let initial = async {
        while let Some(event) = stream.try_next().await? {
            match event {
                watcher::Event::InitApply(config) => names.push(config.name_any()),
                watcher::Event::InitDone => break,
                _ => {}
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, initial).await.context("the initial list does not end")??;
    ensure!(names == ["one", "two"], "{names:?}");
    configs.delete("one", &DeleteParams::default()).await?;
    let next = timeout(PATIENCE, stream.try_next()).await??;
    ensure!(matches!(&next, Some(watcher::Event::Delete(c)) if c.name_any() == "one"), "{next:?}");
    Ok(())
}
