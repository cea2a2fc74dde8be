use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use minik8s_api::{Kind, Registry};
use tokio_util::sync::CancellationToken;

use super::{Change, Plan, Planned, Planner};
use crate::cache::Caches;
use crate::key::Key;
use crate::request::DeleteParams;
use crate::storage::memory::MemoryStorage;
use crate::{ApiServer, Controller, Manager};

/// Keeps a Secret beside every ConfigMap that has a `secret`, with what it says; and none beside the others.
struct Secrets {
    kind: Arc<Kind>,
}

impl Planner for Secrets {
    type Object = ConfigMap;
    type World = Option<Arc<Secret>>;

    fn observe(&self, config: &ConfigMap, caches: &Caches) -> Self::World {
        caches.of::<Secret>().get(&Key::of(config))
    }

    fn plan(&self, config: &ConfigMap, secret: &Self::World, _now: Timestamp) -> Plan {
        let wanted = config.data.as_ref().and_then(|d| d.get("secret"));
        let mut plan = Plan::default();
        let metadata = &config.metadata;
        let place =
            || (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let holds = |secret: &Secret| secret.data.as_ref().and_then(|d| d.get("text").map(|t| t.0.clone()));
        match (wanted, secret) {
            (Some(text), Some(present)) if holds(present) == Some(text.clone().into_bytes()) => {}
            (Some(text), present) => {
                let mut secret = present.as_deref().cloned().unwrap_or_default();
                secret.metadata.name.clone_from(&metadata.name);
                secret.metadata.namespace.clone_from(&metadata.namespace);
                let text = k8s_openapi::ByteString(text.clone().into_bytes());
                secret.data.get_or_insert_default().insert("text".to_owned(), text);
                let change = if present.is_some() { Change::Update } else { Change::Create };
                plan.changes.push(change(Box::new(secret), self.kind.clone()));
            }
            (None, Some(_)) => {
                let (namespace, name) = place();
                plan.changes.push(Change::Delete(
                    self.kind.clone(),
                    namespace,
                    name,
                    DeleteParams::default(),
                ));
            }
            (None, None) => {}
        }
        plan
    }
}

fn planner() -> Secrets {
    Secrets { kind: Registry::builtin().of::<Secret>().expect("built in").clone() }
}

fn config(secret: Option<&str>) -> ConfigMap {
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": "a", "namespace": "default" }, "data": { "secret": secret },
    }))
    .unwrap_or_else(|_| {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "a", "namespace": "default" } }))
            .expect("a config map")
    })
}

fn secret(text: &str) -> Option<Arc<Secret>> {
    let mut secret = Secret::default();
    let text = k8s_openapi::ByteString(text.as_bytes().to_vec());
    secret.data.get_or_insert_default().insert("text".to_owned(), text);
    Some(Arc::new(secret))
}

#[test]
fn a_world_in_gives_a_plan_out() {
    let plan = |config: &ConfigMap, world: Option<Arc<Secret>>| {
        let plan = planner().plan(config, &world, Timestamp::UNIX_EPOCH);
        plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(plan(&config(Some("x")), None), ["create secret a"]);
    assert_eq!(plan(&config(Some("x")), secret("y")), ["update secret a"]);
    assert!(
        plan(&config(Some("x")), secret("x")).is_empty(),
        "what has been carried out is not planned again"
    );
    assert_eq!(plan(&config(None), secret("x")), ["delete secret a"]);
    assert!(plan(&config(None), None).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_carried_out_and_then_nothing_happens() {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let stop = CancellationToken::new();
    let controller =
        Controller::new("secrets", Planned(planner())).maps(|secret: &Secret| vec![Key::of(secret)]);
    let running = tokio::spawn(Manager::new(client.clone()).controller(controller).run(stop.clone()));
    client.namespaced::<ConfigMap>("default").create(&config(Some("x"))).await.expect("create");
    let secrets = client.namespaced::<Secret>("default");
    let appeared = async {
        while secrets.get_opt("a").await.expect("get").is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), appeared).await.expect("the secret is made");
    // Somebody meddles; it is put right.
    secrets.delete("a", &DeleteParams::default()).await.expect("delete");
    let again = async {
        while secrets.get_opt("a").await.expect("get").is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("the secret is made again");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.storage().revision().await.expect("a revision");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(server.storage().revision().await.expect("a revision"), before, "an hour without a write");
    stop.cancel();
    running.await.expect("the manager ends");
}
