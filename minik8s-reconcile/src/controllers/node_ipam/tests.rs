use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::request::{DeleteParams, ListParams};
use crate::storage::memory::MemoryStorage;
use crate::{ApiServer, Client, Manager};

fn blocks(cluster: &str, mask: u8) -> Blocks {
    Blocks::new(cluster.parse().expect("a block"), mask).expect("blocks")
}

fn planner() -> NodeIpam {
    let kind = Registry::builtin().of::<Node>().expect("built in").clone();
    NodeIpam { kind, blocks: blocks("10.244.0.0/16", 24), ledger: Mutex::default() }
}

fn node(name: &str, spec: Value) -> Node {
    let node = json!({ "metadata": { "name": name, "uid": format!("uid-{name}") }, "spec": spec });
    serde_json::from_value(node).expect("a node")
}

fn with(name: &str, cidr: &str) -> Arc<Node> {
    Arc::new(node(name, json!({ "podCIDR": cidr, "podCIDRs": [cidr] })))
}

fn without(name: &str) -> Arc<Node> {
    Arc::new(node(name, json!({})))
}

fn offer(ledger: &mut Ledger, blocks: &Blocks, name: &str, nodes: &[Arc<Node>]) -> Option<String> {
    ledger.offer(blocks, &without(name), nodes).map(|block| block.to_string())
}

#[test]
fn masks_that_do_not_fit_are_refused_in_words() {
    let refused = |cluster: &str, mask| {
        Blocks::new(cluster.parse().expect("a block"), mask).expect_err("no blocks").to_string()
    };
    let why = "10.244.0.0/16 has no blocks of /12: expected a mask of /16 to /30";
    assert_eq!(refused("10.244.0.0/16", 12), why);
    assert!(refused("10.244.0.0/16", 31).contains("/31"));
    assert!(refused("fd00::/48", 80).contains("/48 to /68"));
    assert!(Blocks::new("fd00::/48".parse().expect("a block"), 64).is_ok());
    assert!(Blocks::new("10.244.0.0/24".parse().expect("a block"), 24).is_ok(), "one node");
}

#[test]
fn blocks_go_round_and_never_overlap() {
    let blocks = blocks("10.0.0.0/22", 24);
    let mut ledger = Ledger::default();
    assert_eq!(offer(&mut ledger, &blocks, "a", &[without("a")]).as_deref(), Some("10.0.0.0/24"));
    // The cache has not seen it yet; another node asks.
    let both = [without("a"), without("b")];
    assert_eq!(offer(&mut ledger, &blocks, "b", &both).as_deref(), Some("10.0.1.0/24"));
    assert_eq!(offer(&mut ledger, &blocks, "a", &both).as_deref(), Some("10.0.0.0/24"), "the same again");
    // Somebody gave a node a block by hand, of another size.
    let nodes = [with("a", "10.0.0.0/24"), without("c"), with("x", "10.0.2.0/25")];
    assert_eq!(offer(&mut ledger, &blocks, "c", &nodes).as_deref(), Some("10.0.3.0/24"));
    // a is gone; its block is given out when those after it are taken.
    let nodes = [with("c", "10.0.3.0/24"), without("d"), with("x", "10.0.2.0/25")];
    assert_eq!(offer(&mut ledger, &blocks, "d", &nodes).as_deref(), Some("10.0.0.0/24"));
    let nodes = [with("d", "10.0.0.0/24"), without("e"), with("x", "10.0.1.0/24"), with("y", "10.0.2.0/23")];
    assert_eq!(offer(&mut ledger, &blocks, "e", &nodes), None);
}

#[test]
fn an_offer_that_somebody_else_took_is_replaced() {
    let blocks = blocks("10.0.0.0/22", 24);
    let mut ledger = Ledger::default();
    assert_eq!(offer(&mut ledger, &blocks, "a", &[without("a")]).as_deref(), Some("10.0.0.0/24"));
    let nodes = [without("a"), with("b", "10.0.0.0/24")];
    assert_eq!(offer(&mut ledger, &blocks, "a", &nodes).as_deref(), Some("10.0.1.0/24"));
}

#[test]
fn a_node_without_a_block_is_told() {
    let planner = planner();
    let now = Timestamp::UNIX_EPOCH;
    let mut plan = planner.plan(&without("a"), &None, now);
    assert_eq!((plan.requeue, plan.events.len()), (Some(AGAIN), 1));
    let Some(Change::UpdateStatus(object, _)) = plan.changes.pop() else { panic!("{plan:?}") };
    let told = object.downcast::<Node>().expect("a node");
    let condition = unavailable(&told).expect("a condition");
    assert!(condition.message.as_deref().is_some_and(|m| m.contains("10.244.0.0/16")), "{condition:?}");
    let again = planner.plan(&told, &None, now);
    assert!(again.changes.is_empty() && again.events.is_empty(), "said once: {again:?}");
    // A block is free: first it is written, then the condition follows.
    let block = "10.244.7.0/24".parse().ok();
    let mut plan = planner.plan(&told, &block, now);
    let Some(Change::Update(object, _)) = plan.changes.pop() else { panic!("{plan:?}") };
    let given = object.downcast::<Node>().expect("a node");
    let spec = given.spec.clone().expect("a spec");
    assert_eq!(spec.pod_cidr.as_deref(), Some("10.244.7.0/24"));
    assert_eq!(given.metadata.annotations.as_ref().expect("some")[CLUSTER_CIDR], "10.244.0.0/16");
    let mut plan = planner.plan(&given, &None, now);
    let Some(Change::UpdateStatus(object, _)) = plan.changes.pop() else { panic!("{plan:?}") };
    let fine = object.downcast::<Node>().expect("a node");
    assert_eq!(unavailable(&fine).map(|c| c.status.as_str()), Some("False"));
    assert!(planner.plan(&fine, &None, now).changes.is_empty());
}

async fn make(client: &Client, name: &str) {
    client.all::<Node>().create(&node(name, json!({}))).await.expect("a node");
}

/// All blocks, once as many nodes have one as there are blocks or nodes.
async fn settled(client: &Client, wanted: usize) -> Vec<(String, String)> {
    let all = async {
        loop {
            let nodes = client.all::<Node>().list(&ListParams::default()).await.expect("nodes").items;
            let cidr = |n: &Node| n.spec.clone().and_then(|s| s.pod_cidr).unwrap_or_default();
            let given: Vec<_> = nodes
                .iter()
                .map(|n| (n.metadata.name.clone().unwrap_or_default(), cidr(n)))
                .filter(|(_, cidr)| !cidr.is_empty())
                .collect();
            if given.len() == wanted {
                return given;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), all).await.expect("blocks")
}

#[tokio::test(start_paused = true)]
async fn every_node_has_its_own_over_restarts() {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let client = server.client();
    let run = |stop: &CancellationToken| {
        let controller = controller(&Registry::builtin(), blocks("10.9.0.0/21", 24));
        tokio::spawn(Manager::new(client.clone()).controller(controller).run(stop.clone()))
    };
    for n in 0..6 {
        make(&client, &format!("n{n}")).await;
    }
    let stop = CancellationToken::new();
    let first = run(&stop);
    let before = settled(&client, 6).await;
    stop.cancel();
    first.await.expect("the manager ends");
    // Another term: ten nodes for eight blocks.
    for n in 6..10 {
        make(&client, &format!("n{n}")).await;
    }
    let stop = CancellationToken::new();
    let second = run(&stop);
    let after = settled(&client, 8).await;
    assert!(before.iter().all(|kept| after.contains(kept)), "{before:?} {after:?}");
    let distinct: BTreeSet<_> = after.iter().map(|(_, cidr)| cidr).collect();
    assert_eq!(distinct.len(), 8);
    client.all::<Node>().delete("n0", &DeleteParams::default()).await.expect("a deletion");
    client.all::<Node>().delete("n1", &DeleteParams::default()).await.expect("a deletion");
    let after = settled(&client, 8).await;
    assert_eq!(after.iter().map(|(_, cidr)| cidr).collect::<BTreeSet<_>>().len(), 8);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = server.storage().revision().await.expect("a revision");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(server.storage().revision().await.expect("a revision"), before, "an hour without a write");
    stop.cancel();
    second.await.expect("the manager ends");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever part of the writes is seen, in whatever order, no two nodes are offered the same addresses.
    #[test]
    fn no_two_nodes_share_an_address(asks in proptest::collection::vec((0..12usize, any::<bool>()), 1..60)) {
        let blocks = blocks("10.0.0.0/21", 24);
        let mut ledger = Ledger::default();
        let mut seen: Vec<Option<String>> = vec![None; 12];
        let mut given: Vec<Option<String>> = vec![None; 12];
        for (who, shown) in asks {
            let nodes: Vec<_> = seen.iter().enumerate().map(|(n, cidr)| match cidr {
                Some(cidr) => with(&n.to_string(), cidr),
                None => without(&n.to_string()),
            }).collect();
            if seen[who].is_none() {
                let offered = offer(&mut ledger, &blocks, &who.to_string(), &nodes);
                if let (Some(before), Some(now)) = (&given[who], &offered) {
                    prop_assert_eq!(before, now);
                }
                given[who] = offered.or(given[who].take());
            }
            if shown {
                seen[who] = given[who].clone();
            }
            let all: Vec<_> = given.iter().flatten().collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
    }
}
