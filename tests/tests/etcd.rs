//! The etcd storage on a real etcd: the conformance suite, several servers, members that die, and what clients saw of
//! it, judged.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use minik8s_reconcile::request::User;
use minik8s_reconcile::rng::Rng;
use minik8s_reconcile::server::authorizer::Union;
use minik8s_reconcile::server::rbac;
use minik8s_reconcile::storage::etcd::{EtcdOptions, EtcdStorage};
use minik8s_reconcile::storage::history::{self, Load};
use minik8s_reconcile::storage::{
    Compare, Draft, Op, Query, Storage, StorageError, Txn, TxnOutcome, conformance,
};
use minik8s_reconcile::{ApiServer, Client};
use minik8s_tests::{Etcd, PATIENCE};
use serde_json::json;
use tokio_util::sync::CancellationToken;

async fn storage(etcd: &Etcd, prefix: &str) -> anyhow::Result<EtcdStorage> {
    let mut options = EtcdOptions::new(etcd.endpoints());
    options.prefix = prefix.to_owned();
    Ok(EtcdStorage::connect(options).await?)
}

async fn conforms(members: usize) -> anyhow::Result<()> {
    let etcd = Etcd::start(members).await?;
    let count = Cell::new(0);
    conformance::all(async || {
        count.set(count.get() + 1);
        storage(&etcd, &format!("/part-{}", count.get())).await.expect("connects")
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_conforms() -> anyhow::Result<()> {
    conforms(1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_conform() -> anyhow::Result<()> {
    conforms(3).await
}

fn draft(text: &str) -> Draft {
    let head = format!("{{\"text\":\"{text}\",\"metadata\":{{\"resourceVersion\":\"");
    Draft::new(format!("{head}\"}}}}").into_bytes(), head.len())
}

fn put(key: &str, text: &str) -> Txn {
    Txn { compare: vec![], ops: vec![Op::Put(key.to_owned(), draft(text))] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_writes_the_other_reads() -> anyhow::Result<()> {
    let etcd = Etcd::start(1).await?;
    let (a, b) = (storage(&etcd, "/registry").await?, storage(&etcd, "/registry").await?);
    let start = b.revision().await?;
    let mut watch = b.watch("a/", start).await?;
    for step in 0..200 {
        let (writer, reader) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let text = step.to_string();
        let TxnOutcome::Committed(written) = writer.txn(put("a/1", &text)).await? else {
            anyhow::bail!("refused");
        };
        let seen = reader.get("a/1").await?.context("it is there")?;
        ensure!(seen.json() == written[0].json() && seen.revision() == written[0].revision(), "step {step}");
    }
    let mut told = 0;
    while told < 200 {
        told += tokio::time::timeout(PATIENCE, watch.next()).await??.len();
    }
    // People can read it, too.
    let text = etcd.ctl(&["get", "/registry/a/1", "--print-value-only"]).await?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(value["text"] == "199", "{text}");
    // What somebody else writes there by hand is seen as well.
    etcd.ctl(&["put", "/registry/a/2", r#"{"metadata":{"resourceVersion":""},"text":"by hand"}"#]).await?;
    let seen = tokio::time::timeout(PATIENCE, watch.next()).await??;
    ensure!(&*seen[0].key == "a/2" && a.get("a/2").await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_knows_the_history_and_compaction_ends_it() -> anyhow::Result<()> {
    let etcd = Etcd::start(1).await?;
    let first = storage(&etcd, "/registry").await?;
    let mut revisions = Vec::new();
    for step in 0..20 {
        first.txn(put("a/1", &step.to_string())).await?;
        revisions.push(first.revision().await?);
    }
    let second = storage(&etcd, "/registry").await?;
    let mut resumed = second.watch("a/", revisions[4]).await?;
    let mut told = Vec::new();
    while told.len() < 15 {
        told.extend(resumed.next().await?.iter().map(|c| c.revision()));
    }
    ensure!(told == revisions[5..], "{told:?}");
    second.compact(revisions[10]).await?;
    let third = storage(&etcd, "/registry").await?;
    for storage in [&second, &third] {
        let refused = |e: StorageError| matches!(e, StorageError::Compacted { .. });
        ensure!(storage.watch("a/", revisions[5]).await.is_err_and(refused));
        let past = Query { at: Some(revisions[5]), ..Query::prefix("a/") };
        ensure!(storage.list(&past).await.is_err_and(refused));
        let past = Query { at: Some(revisions[12]), ..Query::prefix("a/") };
        ensure!(storage.list(&past).await?.items[0].1.revision() == revisions[12]);
    }
    Ok(())
}

/// Writes until it is acknowledged.
async fn insist(storage: &EtcdStorage, key: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while let Err(error) = storage.txn(put(key, "x")).await {
        ensure!(began.elapsed() < PATIENCE, "writes do not resume: {error}");
    }
    Ok(began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_may_die_one_at_a_time_and_clients_see_one_storage() -> anyhow::Result<()> {
    let mut etcd = Etcd::start(3).await?;
    let servers = [storage(&etcd, "/registry").await?, storage(&etcd, "/registry").await?];
    let load = Load { clients: 8, calls: 400, keys: 8 };
    let rng = Rng::from_seed(5);
    let over = CancellationToken::new();
    let record = async {
        let history = history::record(&servers, load, &rng).await;
        over.cancel();
        history
    };
    let faults = async {
        let mut kills = 0;
        while !over.is_cancelled() {
            let leader = etcd.leader().await?;
            // The leader, and another one, by turns.
            let victim = (leader + kills) % etcd.len();
            etcd.kill_member(victim)?;
            insist(&servers[0], "other/1").await?;
            etcd.start_member(victim)?;
            etcd.leader().await?;
            insist(&servers[1], "other/2").await?;
            kills += 1;
        }
        anyhow::Ok(kills)
    };
    let (history, kills) = tokio::join!(record, faults);
    let (history, kills) = (history?, kills?);
    ensure!(kills > 0 && history.order.len() > 100, "{kills} kills, {} changes", history.order.len());
    history::check(&history).map_err(anyhow::Error::msg)
}

async fn api_server(etcd: &Etcd) -> anyhow::Result<ApiServer> {
    let storage: Arc<dyn Storage> = Arc::new(storage(etcd, "/registry").await?);
    let access = Union::of_cluster(storage.clone()).await?;
    let server = ApiServer::builder().authorizer(access).build(storage);
    server.bootstrap().await?;
    rbac::bootstrap(&server.client()).await?;
    Ok(server)
}

fn named(client: &Client, name: &str) -> impl Future<Output = Result<(), minik8s_reconcile::ApiError>> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let maps = client.namespaced::<ConfigMap>("default");
    async move { maps.create(&map).await.map(drop) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_on_one_etcd_are_one_cluster() -> anyhow::Result<()> {
    let etcd = Etcd::start(1).await?;
    let (a, b) = (api_server(&etcd).await?, api_server(&etcd).await?);
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let follower = b.clone();
    tokio::spawn(async move { follower.follow_definitions(stop).await });
    // Rights that one server is told of are in force at the other one at once.
    let jane = User::authenticated("jane", vec![]);
    let denied = named(&b.client().user(jane.clone()), "one").await.expect_err("she may not");
    ensure!(denied.code() == 403, "{denied}");
    let binding: k8s_openapi::api::rbac::v1::ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "jane" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
        "subjects": [{ "kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io" }],
    }))?;
    a.client().all().create(&binding).await?;
    named(&b.client().user(jane), "one").await?;
    // So are definitions, soon.
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": { "name": "things.example.dev" },
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": { "plural": "things", "singular": "thing", "kind": "Thing" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    }))?;
    a.client().all().create(&definition).await?;
    let kinds = b.kinds().clone();
    let served = async {
        loop {
            let registry = kinds.current();
            if registry.find("things").is_some() {
                return;
            }
            kinds.changed(&registry).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.context("the other server serves it")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_there_already_is_said_so_by_any_server() -> anyhow::Result<()> {
    let etcd = Etcd::start(1).await?;
    let (a, b) = (storage(&etcd, "/registry").await?, storage(&etcd, "/registry").await?);
    a.txn(put("a/1", "x")).await?;
    let txn = Txn { compare: vec![Compare::Absent("a/1".into())], ..put("a/1", "y") };
    match b.txn(txn).await? {
        TxnOutcome::Refused { index: 0, current: Some(current) } => {
            ensure!(current.revision() == a.get("a/1").await?.context("there")?.revision());
        }
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}
