//! Servers that are held up for longer than a lease, and then go on as if nothing had happened.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use minik8s_tests::{Etcd, PATIENCE};
use serde_json::json;

use crate::load::Load;
use crate::server::Server;

/// Of two servers on one etcd, the one whose controllers work is held up, and the other one takes over.
pub(crate) async fn pauses(times: usize) -> anyhow::Result<String> {
    let etcd = Etcd::start(1).await?;
    let servers = Server::two(&etcd).await?;
    let maps = [servers[0].maps().await?, servers[1].maps().await?];
    let mut longest = Duration::ZERO;
    let seen = Load::run(&maps, async |load| {
        for time in 0..times {
            // The first one began first, so its controllers do the work.
            let (held, other) = (&servers[time % 2], &servers[(time + 1) % 2]);
            let client = other.client().await?;
            let before = holder(&client).await?;
            held.pause()?;
            let began = Instant::now();
            worked(&client, &format!("paused-{time}")).await?;
            longest = longest.max(began.elapsed());
            let after = holder(&client).await?;
            ensure!(before != after, "{before} is held up, and still the leader");
            held.resume()?;
            // It serves on, and what it holds for its lease does not matter any more.
            worked(&held.client().await?, &format!("resumed-{time}")).await?;
            load.acknowledged(50).await?;
            ensure!(holder(&client).await? == after, "{after} leads, and loses it to one that was held up");
        }
        Ok(())
    })
    .await?;
    Ok(format!("{}; the other one's controllers at work after {longest:.1?}", seen.judge()?))
}

async fn holder(client: &kube::Client) -> anyhow::Result<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let lease = leases.get("minik8s-controllers").await?;
    lease.spec.and_then(|spec| spec.holder_identity).context("somebody leads")
}

/// Makes a namespace and waits until a controller has given it its account.
async fn worked(client: &kube::Client, name: &str) -> anyhow::Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    let deadline = Instant::now() + PATIENCE;
    while accounts.get_opt("default").await?.is_none() {
        ensure!(Instant::now() < deadline, "no controller looks after {name}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
