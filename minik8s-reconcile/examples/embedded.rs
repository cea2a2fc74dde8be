//! A Kubernetes API server, a controller and two kinds of client in one process: `cargo run --example embedded`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_reconcile::http::Frontend;
use minik8s_reconcile::reconciler::Result;
use minik8s_reconcile::storage::memory::MemoryStorage;
use minik8s_reconcile::{Action, ApiServer, Controller, Cx, Manager, reconcile_fn};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Sees to it that every ConfigMap with a `who` has a `greeting`.
async fn greet(config: Arc<ConfigMap>, cx: Cx) -> Result<Action> {
    let data = config.data.clone().unwrap_or_default();
    let Some(who) = data.get("who") else { return Ok(Action::Done) };
    let greeting = format!("hello, {who}");
    if data.get("greeting") == Some(&greeting) {
        return Ok(Action::Done);
    }
    let mut greeted = (*config).clone();
    greeted.data.get_or_insert_default().insert("greeting".to_owned(), greeting);
    let namespace = config.metadata.namespace.as_deref().unwrap_or_default();
    cx.client().namespaced::<ConfigMap>(namespace).update(&greeted).await?;
    Ok(Action::Done)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await?;

    let stop = CancellationToken::new();
    let manager = Manager::new(server.client()).controller(Controller::new("greeter", reconcile_fn(greet)));
    let controllers = tokio::spawn(manager.run(stop.clone()));

    // kube-rs, on the server itself: no socket, no kubeconfig.
    let kube = kube::Client::new(Frontend::new(server), "default");
    let configs: kube::Api<ConfigMap> = kube::Api::default_namespaced(kube);
    let config: ConfigMap = serde_json::from_value(json!({
        "metadata": { "name": "hello" },
        "data": { "who": "world" },
    }))?;
    configs.create(&kube::api::PostParams::default(), &config).await?;
    let greeted = |config: Option<&ConfigMap>| {
        config.and_then(|c| c.data.as_ref()).is_some_and(|data| data.contains_key("greeting"))
    };
    let config = kube::runtime::wait::await_condition(configs, "hello", greeted).await?;
    let greeting = config.and_then(|c| c.data?.remove("greeting"));
    assert_eq!(greeting.as_deref(), Some("hello, world"));

    stop.cancel();
    controllers.await?;
    Ok(())
}
