//! Keeps the rules of NetworkPolicies on a node. Pods and namespaces are followed only while there is a policy.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use minik8s_net::policy::{self, Table};
use minik8s_reconcile::Client;
use minik8s_reconcile::cache::{Cache, Caches};
use tokio_util::sync::CancellationToken;

/// How often rules are set again that nobody should have touched.
const REPAIR: Duration = Duration::from_secs(30);
/// What failed is tried again after that.
const RETRY: Duration = Duration::from_secs(1);
/// What to do where policies cannot be enforced.
const UNREAD: &str = "it cannot list policies, namespaces and pods; unless the server is away, allow nodes that with \
    `kubectl create clusterrolebinding network-policy --clusterrole=system:minik8s:network-policy --group=system:nodes`";
/// The program that sets them.
const NFT: &str = "nft";

/// What policies are about.
struct Subjects {
    pods: Cache<Pod>,
    namespaces: Cache<Namespace>,
    stop: CancellationToken,
}

impl Subjects {
    fn follow(client: &Client, stop: &CancellationToken) -> Self {
        let stop = stop.child_token();
        let caches = Caches::new(client.clone(), stop.clone());
        Self { pods: caches.of(), namespaces: caches.of(), stop }
    }

    /// Waits until anything is newer than these revisions.
    async fn changed(&self, seen: (u64, u64)) {
        tokio::select! {
            () = self.pods.wait_for(seen.0 + 1) => {}
            () = self.namespaces.wait_for(seen.1 + 1) => {}
        }
    }
}

/// Keeps the rules of the node called `node` until `stop`. They stay as they are then, and while the server is away.
pub async fn enforce(node: String, client: Client, stop: CancellationToken) {
    let policies = Caches::new(client.clone(), stop.clone()).of::<NetworkPolicy>();
    let mut subjects: Option<Subjects> = None;
    let mut applied: Option<Table> = None;
    let (mut seen, mut seen_subjects) = (0, (0, 0));
    let (mut failing, mut told) = (false, false);
    loop {
        let mut again = failing;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = policies.wait_for(seen + 1) => {}
            () = changed(&subjects, seen_subjects) => {}
            () = tokio::time::sleep(if failing { RETRY } else { REPAIR }) => again = true,
        }
        seen = policies.revision();
        let rules = policies.list();
        if seen == 0 {
            // Nobody has said yet what is to be.
            if again && !std::mem::replace(&mut told, true) {
                tracing::error!("network policies are not enforced on this node: {UNREAD}");
            }
            continue;
        }
        let table = if rules.is_empty() {
            if let Some(subjects) = subjects.take() {
                subjects.stop.cancel();
            }
            Table::default()
        } else {
            let subjects = subjects.get_or_insert_with(|| Subjects::follow(&client, &stop));
            seen_subjects = (subjects.pods.revision(), subjects.namespaces.revision());
            if seen_subjects.0 == 0 || seen_subjects.1 == 0 {
                if again && !std::mem::replace(&mut told, true) {
                    tracing::error!("network policies are not enforced on this node: {UNREAD}");
                }
                continue;
            }
            told = false;
            Table::compile(&node, &subjects.pods.list(), &subjects.namespaces.list(), &rules)
        };
        let same = applied.as_ref() == Some(&table);
        if same && (!again || table.is_empty()) {
            continue;
        }
        let nft = Path::new(NFT);
        let done =
            if table.is_empty() { policy::remove(nft).await } else { policy::apply(nft, &table).await };
        match done {
            Ok(()) => {
                if !same {
                    let (into, out) = (table.ingress.len(), table.egress.len());
                    tracing::debug!(ingress = into, egress = out, "rules of network policies set");
                }
                applied = Some(table);
                failing = false;
            }
            Err(error) => {
                if !failing {
                    tracing::error!("the rules of network policies cannot be set: {error}");
                }
                failing = true;
            }
        }
    }
}

async fn changed(subjects: &Option<Subjects>, seen: (u64, u64)) {
    match subjects {
        Some(subjects) => subjects.changed(seen).await,
        None => std::future::pending().await,
    }
}
