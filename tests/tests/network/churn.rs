//! Pods come and go on all nodes while agents die in the middle of it.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use kube::api::{DeleteParams, ListParams};
use minik8s_tests::{NodeState, PATIENCE, Program, Scene};
use tokio::time::Instant;

use super::reach::idle;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// What the environment says, or `usual`: `CHURN_PODS=300 CHURN_ROUNDS=10` is for a quiet afternoon.
fn asked(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Kills the agent of a node. The node's init starts it again.
async fn kill(scene: &Scene, node: &str) -> anyhow::Result<()> {
    if let Some(agent) = scene.cluster().process_on(node, "minik8s node")? {
        // It may have ended already, by an earlier one.
        Program::new("kill").args(["-9", &agent.to_string()]).run().await?;
    }
    Ok(())
}

pub(super) async fn churn(scene: Scene) -> anyhow::Result<()> {
    let (pods, rounds) = (asked("CHURN_PODS", 30), asked("CHURN_ROUNDS", 2));
    let mut before = Vec::new();
    for node in NODES {
        before.push(NodeState::of_node(scene.cluster(), node).await?);
    }
    for round in 0..rounds {
        let began = Instant::now();
        let names: Vec<(String, &str)> =
            (0..pods).map(|n| (format!("p{round}-{n}"), NODES[n % NODES.len()])).collect();
        for part in names.chunks(50) {
            scene.apply(&part.iter().map(|(name, node)| idle(name, node)).collect::<String>()).await?;
            // One after the other, in the middle of it.
            kill(&scene, NODES[round % NODES.len()]).await?;
        }
        let mut addresses = BTreeSet::new();
        for (number, (name, node)) in names.iter().enumerate() {
            if number % 20 == 10 {
                kill(&scene, node).await?;
            }
            let pod = scene.until_ready(name).await.with_context(|| format!("round {round}"))?;
            let ip = pod.status.and_then(|s| s.pod_ip).context("an address")?;
            ensure!(addresses.insert(ip.clone()), "{ip} was given away twice");
        }
        let up = began.elapsed();
        let now = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
        scene.pods().delete_collection(&now, &ListParams::default()).await?;
        kill(&scene, NODES[(round + 1) % NODES.len()]).await?;
        let deadline = Instant::now() + PATIENCE * 4;
        while !scene.pods().list(&ListParams::default()).await?.items.is_empty() {
            ensure!(Instant::now() < deadline, "pods do not go");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        use std::io::Write;
        let gone = (began.elapsed() - up).as_secs_f32();
        let up = up.as_secs_f32();
        let _ = writeln!(
            std::io::stdout(),
            "figure {pods} pods, agents killed: ready {up:.1} s, gone {gone:.1} s"
        );
    }
    for (node, before) in NODES.iter().zip(&before) {
        NodeState::back_to(before, scene.cluster(), node, &[]).await.with_context(|| format!("on {node}"))?;
    }
    Ok(())
}
