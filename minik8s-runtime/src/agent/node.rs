//! Telling the server of the node itself: registration, conditions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_reconcile::ApiError;
use minik8s_reconcile::request::Patch;
use serde_json::json;

use super::context::Context;
use super::machine::{architecture, available_memory, disk, processes};
use super::pod_fsm::instance::seconds;

/// How often the node looks at itself.
const LOOK: Duration = Duration::from_secs(10);
/// A failed write is tried again after that.
const RETRY: Duration = Duration::from_secs(1);
/// Somebody else wrote (a taint, an annotation): look again after that.
const CONFLICT: Duration = Duration::from_millis(50);
/// Not more images than this are listed in the status.
const IMAGES: usize = 50;
/// Less memory than this is pressure.
const LEAST_MEMORY: u64 = 100 << 20;
/// Less disk than a tenth of it is pressure; of a large one, less than this.
const LEAST_DISK: u64 = 10 << 30;

/// The labels that every node has of itself.
pub(crate) fn labels(ctx: &Context) -> BTreeMap<String, String> {
    let mut labels = ctx.config.labels.clone();
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/os"), "linux".to_owned());
        labels.insert(format!("{prefix}/arch"), architecture().to_owned());
    }
    labels.insert("kubernetes.io/hostname".to_owned(), ctx.node_name.clone());
    labels
}

/// Registers the node and keeps its status up to date for ever.
pub(crate) async fn report(ctx: Arc<Context>) {
    let mut written: Option<Timestamp> = None;
    loop {
        let pause = match report_once(&ctx, &mut written).await {
            Ok(()) => LOOK,
            Err(e) if e.is_conflict() => CONFLICT,
            Err(e) => {
                tracing::warn!("the node's status could not be written: {e}");
                RETRY
            }
        };
        tokio::select! {
            biased;
            () = ctx.returned.report.notified() => {}
            () = ctx.network.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn report_once(ctx: &Context, written: &mut Option<Timestamp>) -> Result<(), ApiError> {
    let api = ctx.client.all::<Node>();
    let known = match api.get_opt(&ctx.node_name).await? {
        Some(known) => known,
        None => match api.create(&fresh(ctx)).await {
            Err(e) if e.is_already_exists() => api.get(&ctx.node_name).await?,
            made => made?,
        },
    };
    let labels = labels(ctx);
    let has = known.metadata.labels.as_ref();
    if labels.iter().any(|(key, value)| has.and_then(|m| m.get(key)) != Some(value)) {
        api.patch(&ctx.node_name, Patch::merge(&json!({"metadata": {"labels": labels}}))).await?;
        // The status below must be based on the version that this made.
        return Box::pin(report_once(ctx, written)).await;
    }
    ctx.set_labels(known.metadata.labels.clone().unwrap_or_default());
    let now = ctx.config.clock.now();
    let before = known.status.clone().unwrap_or_default();
    let after = status(before.clone(), &observe(ctx).await, now);
    let due = written.is_none_or(|at| {
        now.duration_since(at) >= ctx.config.status_period.try_into().unwrap_or(jiff::SignedDuration::MAX)
    });
    if due || without_heartbeats(&before) != without_heartbeats(&after) {
        let mut node = Node::clone(&known);
        node.status = Some(after);
        api.update_status(&node).await?;
        *written = Some(now);
    }
    Ok(())
}

fn fresh(ctx: &Context) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(ctx.node_name.clone()),
            labels: Some(labels(ctx)),
            annotations: Some(ctx.config.annotations.clone()).filter(|a| !a.is_empty()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!ctx.config.taints.is_empty()).then(|| ctx.config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// What the node looks like now.
#[derive(Clone, Debug, Default)]
struct Observed {
    capacity: BTreeMap<String, Quantity>,
    allocatable: BTreeMap<String, Quantity>,
    addresses: Vec<NodeAddress>,
    info: NodeSystemInfo,
    images: Vec<ContainerImage>,
    port: i32,
    /// Type, status, reason and message.
    conditions: Vec<(&'static str, bool, &'static str, String)>,
}

async fn observe(ctx: &Context) -> Observed {
    let machine = &ctx.machine;
    let version = ctx.runtime.version().await;
    let network = ctx.network.ready().await;
    let quantities = |cpu: u64, memory: u64| {
        BTreeMap::from([
            ("cpu".to_owned(), cpu_quantity(cpu)),
            ("memory".to_owned(), Quantity(format!("{}Ki", memory >> 10))),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", machine.storage >> 10))),
            ("pods".to_owned(), Quantity(ctx.config.max_pods.to_string())),
        ])
    };
    let mut addresses: Vec<NodeAddress> = ctx
        .config
        .addresses
        .iter()
        .map(|ip| NodeAddress { address: ip.to_string(), type_: "InternalIP".to_owned() })
        .collect();
    addresses.push(NodeAddress { address: ctx.node_name.clone(), type_: "Hostname".to_owned() });
    let ready = match (&version, &network) {
        (Err(e), _) => (false, "KubeletNotReady", format!("container runtime is down: {e}")),
        (_, Err(e)) => (false, "KubeletNotReady", format!("container runtime network not ready: {e}")),
        _ => (true, "KubeletReady", "the node agent is posting ready status".to_owned()),
    };
    let short_memory = available_memory().is_some_and(|free| free < LEAST_MEMORY);
    let short_disk = disk(&ctx.config.pods_dir).is_some_and(|d| d.free < (d.total / 10).min(LEAST_DISK));
    let short_pids = processes().is_some_and(|(now, most)| now > most - most / 10);
    let pressure = |short: bool, yes: &'static str, no: &'static str, what: &str| {
        let (reason, has) = if short { (yes, "insufficient") } else { (no, "sufficient") };
        (short, reason, format!("the node has {has} {what}"))
    };
    let memory = pressure(
        short_memory,
        "KubeletHasInsufficientMemory",
        "KubeletHasSufficientMemory",
        "memory available",
    );
    let disk = pressure(short_disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk space");
    let pids = pressure(short_pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PIDs available");
    let mut images: Vec<_> = ctx.images.list().await.unwrap_or_default();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.reference.cmp(&b.reference)));
    Observed {
        capacity: quantities(machine.cpu_milli, machine.memory),
        allocatable: quantities(machine.allocatable_cpu_milli(), machine.allocatable_memory()),
        addresses,
        info: NodeSystemInfo {
            architecture: architecture().to_owned(),
            operating_system: "linux".to_owned(),
            kernel_version: machine.kernel.clone(),
            os_image: machine.os_image.clone(),
            machine_id: machine.machine_id.clone(),
            boot_id: machine.boot_id.clone(),
            system_uuid: machine.system_uuid.clone(),
            container_runtime_version: version.unwrap_or_default(),
            kubelet_version: concat!("v", env!("CARGO_PKG_VERSION"), "-minik8s").to_owned(),
            ..NodeSystemInfo::default()
        },
        images: images
            .into_iter()
            .take(IMAGES)
            .map(|image| ContainerImage {
                names: Some(vec![image.id, image.reference]),
                size_bytes: i64::try_from(image.size).ok(),
            })
            .collect(),
        port: ctx.config.port.into(),
        conditions: [
            ("MemoryPressure", memory),
            ("DiskPressure", disk),
            ("PIDPressure", pids),
            ("Ready", ready),
        ]
        .into_iter()
        .map(|(type_, (status, reason, message))| (type_, status, reason, message))
        .collect(),
    }
}

/// Whole CPUs where they are whole.
fn cpu_quantity(milli: u64) -> Quantity {
    Quantity(if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") })
}

/// The status after `before`; what others write into it stays.
fn status(before: NodeStatus, observed: &Observed, now: Timestamp) -> NodeStatus {
    let mut conditions: Vec<NodeCondition> = before.conditions.clone().unwrap_or_default();
    for (type_, holds, reason, message) in &observed.conditions {
        let status = if *holds { "True" } else { "False" };
        let old = conditions.iter().find(|c| c.type_ == *type_ && c.status == status);
        let since = old.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| seconds(now));
        let fresh = NodeCondition {
            type_: (*type_).to_owned(),
            status: status.to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some(message.clone()),
            last_heartbeat_time: Some(seconds(now)),
            last_transition_time: Some(since),
        };
        match conditions.iter_mut().find(|c| c.type_ == *type_) {
            Some(known) => *known = fresh,
            None => conditions.push(fresh),
        }
    }
    // A plugin's extended resources are not ours to drop.
    let with = |known: &Option<BTreeMap<String, Quantity>>, own: &BTreeMap<String, Quantity>| {
        let mut all = known.clone().unwrap_or_default();
        all.extend(own.clone());
        Some(all)
    };
    NodeStatus {
        capacity: with(&before.capacity, &observed.capacity),
        allocatable: with(&before.allocatable, &observed.allocatable),
        addresses: Some(observed.addresses.clone()),
        node_info: Some(observed.info.clone()),
        images: (!observed.images.is_empty()).then(|| observed.images.clone()),
        daemon_endpoints: (observed.port > 0).then_some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: observed.port }),
        }),
        conditions: Some(conditions),
        ..before
    }
}

fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    #[test]
    fn heartbeats_alone_are_no_change_and_transitions_are_kept() {
        let mut observed = Observed {
            capacity: BTreeMap::from([("cpu".to_owned(), cpu_quantity(1500))]),
            conditions: vec![("Ready", true, "KubeletReady", "fine".to_owned())],
            ..Observed::default()
        };
        let gpus = BTreeMap::from([("x.io/gpu".to_owned(), Quantity("2".to_owned()))]);
        let before = NodeStatus { capacity: Some(gpus), ..NodeStatus::default() };
        let first = status(before, &observed, at(0));
        assert_eq!(first.capacity.as_ref().unwrap().len(), 2);
        assert_eq!(first.capacity.as_ref().unwrap()["cpu"].0, "1500m");
        let second = status(first.clone(), &observed, at(60));
        assert_eq!(without_heartbeats(&first), without_heartbeats(&second));
        assert_ne!(first, second);
        observed.conditions[0].1 = false;
        let third = status(second, &observed, at(120));
        let ready = &third.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (ready.status.as_str(), ready.last_transition_time.as_ref().unwrap().0),
            ("False", at(120))
        );
    }
}
