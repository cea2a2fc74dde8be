use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use tokio_util::sync::CancellationToken;

use super::{Caches, Dirty};
use crate::ApiServer;
use crate::key::Key;
use crate::queue::Priority;
use crate::request::{DeleteParams, Patch};
use crate::storage::Retention;
use crate::storage::memory::MemoryStorage;

fn config(name: &str, owner: &str) -> ConfigMap {
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": name }, "data": { "owner": owner },
    }))
    .expect("a config map")
}

fn by_owner(config: &ConfigMap) -> Vec<String> {
    config.data.iter().filter_map(|d| d.get("owner").cloned()).collect()
}

#[tokio::test]
async fn a_cache_follows_and_indexes() {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let configs = client.namespaced::<ConfigMap>("default");
    configs.create(&config("a", "x")).await.expect("create");
    let stop = CancellationToken::new();
    let caches = Caches::new(client.clone(), stop.clone());
    let cache = caches.of::<ConfigMap>();
    cache.index("owner", by_owner);
    caches.synced().await;
    assert_eq!(cache.by_index("owner", "x").len(), 1);

    let made = configs.create(&config("b", "x")).await.expect("create");
    let revision =
        made.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).expect("a revision");
    cache.wait_for(revision).await;
    assert_eq!(cache.by_index("owner", "x").len(), 2);
    assert!(Arc::ptr_eq(&made, &cache.get(&Key::new("default", "b")).expect("b")), "one copy for all");

    let patch = Patch::merge(&serde_json::json!({ "data": { "owner": "y" } }));
    let moved = configs.patch("b", patch).await.expect("patch");
    let revision =
        moved.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).expect("a revision");
    cache.wait_for(revision).await;
    assert_eq!((cache.by_index("owner", "x").len(), cache.by_index("owner", "y").len()), (1, 1));
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_fell_behind_lists_anew_and_tells_what_went() {
    let server = ApiServer::new(MemoryStorage::with_retention(Retention { changes: 2 }));
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let configs = client.namespaced::<ConfigMap>("default");
    configs.create(&config("a", "x")).await.expect("create");
    let caches = Caches::new(client.clone(), CancellationToken::new());
    let cache = caches.of::<ConfigMap>();
    caches.synced().await;
    let dirty = Arc::new(Dirty::default());
    cache.listen(|object: &ConfigMap, out| out(Key::of(object)), dirty.clone());
    assert_eq!(dirty.take().into_values().collect::<Vec<_>>(), [Priority::Resync], "what was there before");

    // All of this happens before the informer runs again: more than the history keeps.
    configs.delete("a", &DeleteParams::default()).await.expect("delete");
    for index in 0..10 {
        configs.create(&config(&format!("b{index}"), "x")).await.expect("create");
    }
    let current = server.storage().revision().await.expect("a revision");
    tokio::time::timeout(Duration::from_secs(60), cache.wait_for(current)).await.expect("it catches up");
    assert_eq!(cache.list().len(), 10);
    let told = dirty.take();
    assert!(told.contains_key(&Key::new("default", "a")), "the end of a was not seen, but is told: {told:?}");
}
