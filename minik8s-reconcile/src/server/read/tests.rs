use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use crate::ApiServer;
use crate::client::{Api, List};
use crate::request::{DeleteParams, ListParams, VersionMatch};
use crate::storage::memory::MemoryStorage;

/// A server with config maps `m0` to `m9` in `default`.
async fn ten() -> (ApiServer, Api<ConfigMap>) {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let maps = server.client().namespaced::<ConfigMap>("default");
    for index in 0..10 {
        maps.create(&map(&format!("m{index}"))).await.expect("create");
    }
    (server, maps)
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a config map")
}

fn names(list: &List<ConfigMap>) -> Vec<&str> {
    list.items.iter().filter_map(|m| m.metadata.name.as_deref()).collect()
}

#[tokio::test]
async fn a_token_outlives_writes_but_not_its_history() {
    let (server, maps) = ten().await;
    let mut params = ListParams { limit: 4, ..ListParams::default() };
    let first = maps.list(&params).await.expect("a page");
    maps.delete("m4", &DeleteParams::default()).await.expect("delete");
    maps.create(&map("m45")).await.expect("create");
    params.continue_.clone_from(&first.continue_);
    let second = maps.list(&params).await.expect("a page");
    assert_eq!(names(&second), ["m4", "m5", "m6", "m7"], "what is gone since is still on the page");
    assert_eq!(second.revision, first.revision);

    let revision = server.storage().revision().await.expect("a revision");
    server.storage().compact(revision).await.expect("compact");
    let error = maps.list(&params).await.expect_err("too old");
    assert_eq!((error.code(), error.reason()), (410, "Expired"));
    let token = error.to_status().metadata.continue_.expect("a token to go on with");
    params.continue_ = token;
    let rest = maps.list(&params).await.expect("a page");
    assert_eq!(names(&rest), ["m45", "m5", "m6", "m7"], "what is there now");
    assert_eq!(rest.revision, revision);
    params.continue_.clone_from(&rest.continue_);
    let last = maps.list(&params).await.expect("a page");
    assert_eq!((names(&last), last.continue_.as_str()), (vec!["m8", "m9"], ""));
}

#[tokio::test]
async fn lists_of_a_revision() {
    let (server, maps) = ten().await;
    let then = server.storage().revision().await.expect("a revision");
    maps.delete("m0", &DeleteParams::default()).await.expect("delete");
    let count = async |limit, resource_version, version_match| {
        let params = ListParams { limit, resource_version, version_match, ..ListParams::default() };
        maps.list(&params).await.map(|l| (l.items.len(), l.revision)).map_err(|e| (e.code(), e.to_string()))
    };
    assert_eq!(count(0, Some(then), VersionMatch::Exact).await, Ok((10, then)));
    assert_eq!(count(0, Some(then), VersionMatch::NotOlderThan).await, Ok((9, then + 1)));
    assert_eq!(count(0, Some(then), VersionMatch::Unset).await, Ok((9, then + 1)));
    assert_eq!(count(5, Some(then), VersionMatch::Unset).await, Ok((5, then)), "with a limit it is exact");
    assert_eq!(count(5, Some(0), VersionMatch::Unset).await, Ok((5, then + 1)));
    assert_eq!(count(5, Some(then), VersionMatch::NotOlderThan).await, Ok((5, then + 1)));
    let too_large = format!("Too large resource version: {}, current: {}", then + 9, then + 1);
    for version_match in [VersionMatch::Exact, VersionMatch::NotOlderThan, VersionMatch::Unset] {
        assert_eq!(count(0, Some(then + 9), version_match).await, Err((504, too_large.clone())));
    }
    let params = ListParams { resource_version: Some(then + 9), ..ListParams::default() };
    let status = maps.list(&params).await.expect_err("too new").to_status();
    let details = status.details.expect("details");
    assert_eq!(details.retry_after_seconds, Some(1));
    assert_eq!(details.causes.expect("a cause")[0].reason.as_deref(), Some("ResourceVersionTooLarge"));
}

#[tokio::test]
async fn tokens_that_do_not_fit_are_refused() {
    let (_, maps) = ten().await;
    let params = ListParams { limit: 4, ..ListParams::default() };
    let token = maps.list(&params).await.expect("a page").continue_;
    let with = |continue_: &str, resource_version| ListParams {
        continue_: continue_.to_owned(),
        resource_version,
        ..ListParams::default()
    };
    let error = maps.list(&with(&token, Some(5))).await.expect_err("both");
    assert_eq!(error.to_string(), "specifying resource version is not allowed when using continue");
    assert!(maps.list(&with(&token, Some(0))).await.is_ok());
    assert_eq!(maps.list(&with("nonsense", None)).await.expect_err("no token").code(), 400);
}
