//! Lists in pages.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplate};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use minik8s_tests::Scene;
use serde_json::{Value, json};

/// How many write at once, each its own object.
const WRITERS: usize = 20;

fn named(name: String) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

pub(super) async fn pages(scene: Scene) -> anyhow::Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(scene.kube(), scene.namespace());
    let names: BTreeSet<String> = (0..200).map(|index| format!("kept-{index:03}")).collect();
    futures::stream::iter(names.clone())
        .map(|name| {
            let configs = configs.clone();
            async move { configs.create(&PostParams::default(), &named(name)).await }
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    let over = AtomicBool::new(false);
    let storm = async {
        let mut writes = 0;
        while !over.load(Ordering::Relaxed) {
            // Before, between and after those that are being listed.
            let name = format!("{}-{writes}", ["a", "kept-100", "z"][writes % 3]);
            configs.create(&PostParams::default(), &named(name.clone())).await?;
            let patch = json!({ "data": { "turn": writes.to_string() } });
            let victim = format!("kept-{:03}", writes % 150);
            configs.patch(&victim, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            configs.delete(&name, &DeleteParams::default()).await?;
            configs.delete(&format!("kept-{:03}", 199 - writes.min(40)), &DeleteParams::default()).await.ok();
            writes += 1;
        }
        anyhow::Ok(writes)
    };
    let reader = async {
        let (mut seen, mut versions, mut params) =
            (Vec::new(), BTreeSet::new(), ListParams::default().limit(10));
        loop {
            let page = configs.list(&params).await?;
            versions.extend(page.metadata.resource_version.clone());
            seen.extend(page.items.iter().map(ResourceExt::name_any));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        over.store(true, Ordering::Relaxed);
        anyhow::Ok((seen, versions))
    };
    let (writes, (seen, versions)) = futures::future::try_join(storm, reader).await?;
    ensure!(writes > 0, "nobody wrote meanwhile");
    ensure!(versions.len() == 1, "pages of different moments: {versions:?}");
    let distinct: BTreeSet<&String> = seen.iter().collect();
    ensure!(distinct.len() == seen.len(), "something was listed twice");
    let missing: Vec<_> = names.iter().take(150).filter(|n| !distinct.contains(n)).collect();
    ensure!(missing.is_empty(), "not listed: {missing:?}");
    Ok(())
}

pub(super) async fn expired(scene: Scene) -> anyhow::Result<()> {
    // A kind that no other case writes: what is forgotten is forgotten for all of its watchers.
    let templates: Api<PodTemplate> = Api::namespaced(scene.kube(), scene.namespace());
    let names: Vec<String> = (0..WRITERS).map(|index| format!("one-{index:02}")).collect();
    for name in &names {
        let template = PodTemplate {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            template: Some(serde_json::from_value(
                json!({ "spec": { "containers": [{ "name": "main", "image": "x" }] } }),
            )?),
        };
        templates.create(&PostParams::default(), &template).await?;
    }
    let first = templates.list(&ListParams::default().limit(1)).await?;
    let token = first.metadata.continue_.context("there is more")?;
    let again = templates.list(&ListParams::default().limit(1).continue_token(&token)).await?;
    ensure!(again.items[0].name_any() == names[1], "{again:?}");
    futures::future::try_join_all(names.iter().map(|name| {
        let templates = templates.clone();
        async move {
            // Together more than a server remembers of one kind.
            for turn in 0..5000 / WRITERS {
                let patch = json!({ "metadata": { "labels": { "turn": turn.to_string() } } });
                templates.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            }
            Ok::<_, kube::Error>(())
        }
    }))
    .await?;
    let path = format!("/api/v1/namespaces/{}/podtemplates?limit=1&continue={token}", scene.namespace());
    let request = http::Request::get(&path).body(kube::client::Body::empty())?;
    let answer = scene.kube().send(request).await?;
    ensure!(answer.status() == 410, "{}", answer.status());
    let status: Value = serde_json::from_slice(&answer.into_body().collect_bytes().await?)?;
    ensure!(status["reason"] == "Expired", "{status}");
    let fresh = status["metadata"]["continue"].as_str().context("a token to go on with")?;
    let rest = templates.list(&ListParams::default().continue_token(fresh)).await?;
    let left: Vec<_> = rest.items.iter().map(ResourceExt::name_any).collect();
    ensure!(left == names[1..], "{left:?}");
    Ok(())
}
