//! Watches, many and for long.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use minik8s_tests::{PATIENCE, Scene};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// How many watch at once.
const WATCHERS: usize = 1000;
/// How many changes there are while the one does not read.
const CHANGES: usize = 40;

async fn made(configs: &Api<ConfigMap>, name: &str) -> anyhow::Result<String> {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let config = ConfigMap { metadata, ..ConfigMap::default() };
    configs.create(&PostParams::default(), &config).await?.resource_version().context("a version")
}

fn turn(index: usize, padding: &str) -> Value {
    json!({ "data": { "turn": index.to_string(), "padding": padding } })
}

pub(super) async fn blocked(scene: Scene) -> anyhow::Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(scene.kube(), scene.namespace());
    let version = made(&configs, "watched").await?;
    // By name: the namespace gets a ConfigMap with the cluster's certificates at a moment of the server's choice.
    let path = format!(
        "/api/v1/namespaces/{}/configmaps?watch=1&resourceVersion={version}&timeoutSeconds=240\
         &fieldSelector=metadata.name%3Dwatched",
        scene.namespace()
    );
    let open = || async {
        let request = http::Request::get(&path).body(Vec::new())?;
        anyhow::Ok(scene.kube().request_stream(request).await?)
    };
    let server = scene.cluster().process("minik8s server")?.context("a server")?;
    let before = resident(server)?;
    // Opened and never read: what is written to it stays with the server, or with the kernel.
    let _blocked = open().await?;
    let mut watchers = Vec::new();
    while watchers.len() + 1 < WATCHERS {
        let some = try_join_all((0..37.min(WATCHERS - 1 - watchers.len())).map(|_| open())).await?;
        watchers.extend(some);
    }
    let reading = watchers.into_iter().map(|watch| {
        tokio::spawn(async move {
            let mut lines = watch.lines();
            let mut turns = Vec::new();
            while turns.len() < CHANGES {
                let line = lines.try_next().await?.context("the watch has ended")?;
                let event: Value = serde_json::from_str(&line)?;
                turns.push(event["object"]["data"]["turn"].as_str().unwrap_or_default().to_owned());
            }
            anyhow::Ok(turns)
        })
    });
    let reading: Vec<_> = reading.collect();
    // Together more than a connection holds.
    let padding = "x".repeat(100_000);
    for index in 0..CHANGES {
        let change = turn(index, if index % 4 == 0 { &padding } else { "" });
        configs.patch("watched", &PatchParams::default(), &Patch::Merge(&change)).await?;
    }
    let expected: Vec<String> = (0..CHANGES).map(|index| index.to_string()).collect();
    for turns in
        timeout(PATIENCE, try_join_all(reading)).await.context("some watchers wait for the blocked one")??
    {
        let turns = turns?;
        ensure!(turns == expected, "events are missing or out of order: {turns:?}");
    }
    let grown = resident(server)?.saturating_sub(before);
    ensure!(grown < 400 * 1024, "the server has grown by {grown} KiB");
    Ok(())
}

/// A process's memory, in KiB.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("a size")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

pub(super) async fn restart(scene: Scene) -> anyhow::Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(scene.kube(), scene.namespace());
    let mut version = made(&configs, "written").await?;
    const WRITES: usize = 300;
    let writer = {
        let configs = configs.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for index in 0..WRITES {
                let deadline = Instant::now() + PATIENCE;
                let change = turn(index, "");
                // A write whose answer was lost may have happened: to repeat it changes nothing then.
                loop {
                    match configs.patch("written", &PatchParams::default(), &Patch::Merge(&change)).await {
                        Ok(config) => {
                            break acknowledged.push(config.resource_version().context("a version")?);
                        }
                        Err(kube::Error::Api(status)) => anyhow::bail!("{status:?}"),
                        Err(_) => ensure!(Instant::now() < deadline, "the server does not come back"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            anyhow::Ok(acknowledged)
        })
    };
    let (mut seen, mut kills, mut breaks) = (Vec::new(), 0, 0);
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < WRITES {
        ensure!(Instant::now() < deadline, "{} of {WRITES} events", seen.len());
        let Ok(watch) =
            configs.watch(&WatchParams::default().fields("metadata.name=written"), &version).await
        else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut watch = std::pin::pin!(watch);
        loop {
            match timeout(PATIENCE, watch.try_next()).await.context("a silent watch")? {
                Ok(Some(WatchEvent::Modified(config))) => {
                    version = config.resource_version().context("a version")?;
                    seen.push((config.data.unwrap_or_default()["turn"].clone(), version.clone()));
                }
                Ok(Some(WatchEvent::Error(status))) => anyhow::bail!("{status:?}"),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
            if seen.len() == WRITES {
                break;
            }
            if kills < 3 && seen.len() >= (kills + 1) * 60 {
                kills += 1;
                scene.cluster().kill("minik8s server")?;
            }
        }
        breaks += 1;
    }
    let acknowledged = writer.await??;
    ensure!(kills == 3 && breaks > 3, "{kills} kills, {breaks} watches");
    let turns: Vec<_> = seen.iter().map(|(turn, _)| turn.clone()).collect();
    let expected: Vec<_> = (0..WRITES).map(|index| index.to_string()).collect();
    ensure!(turns == expected, "a gap or a repetition: {turns:?}");
    let versions: Vec<_> = seen.into_iter().map(|(_, version)| version).collect();
    ensure!(versions == acknowledged, "events at other versions than the writes");
    Ok(())
}
