//! What goes wrong in the world at large: processes, the server, nodes and pods.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use minik8s_api::Resource;
use tokio::time::Instant;

use super::World;
use super::faults::Line;
use super::fleet::Power;
use crate::client::Api;
use crate::request::DeleteParams;
use crate::rng::Rng;

/// How long the server is away when it is restarted, at most.
const RESTART: Duration = Duration::from_secs(4);
/// How long a node is lost, at most: longer than it is believed in.
const LOST: Duration = Duration::from_secs(400);

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mishap {
    ProcessKilled,
    ProcessFrozen,
    ServerRestarted,
    Compacted,
    NodeLost,
    PodFailed,
    PodDeleted,
}

/// Has things go wrong for `length`.
pub(super) async fn run(world: &World, lines: &[Line], rng: &Rng, length: Duration) {
    let end = Instant::now() + length;
    let faults = &world.faults;
    let mut plan: Vec<(Instant, Mishap, Duration)> = [
        (Mishap::ProcessKilled, faults.process_killed),
        (Mishap::ProcessFrozen, faults.process_frozen),
        (Mishap::ServerRestarted, faults.server_restarted),
        (Mishap::Compacted, faults.compacted),
        (Mishap::NodeLost, faults.node_lost),
        (Mishap::PodFailed, faults.pod_failed),
        (Mishap::PodDeleted, faults.pod_deleted),
    ]
    .into_iter()
    .filter_map(|(mishap, mean)| mean.map(|mean| (Instant::now() + wait(rng, mean), mishap, mean)))
    .collect();
    while let Some(next) = plan.iter_mut().min() {
        let (at, mishap, mean) = *next;
        if at >= end {
            break;
        }
        next.0 = at + wait(rng, mean);
        tokio::time::sleep_until(at).await;
        world.weather.strike();
        happen(mishap, world, lines, rng).await;
    }
    tokio::time::sleep_until(end).await;
}

/// Up to twice the mean.
fn wait(rng: &Rng, mean: Duration) -> Duration {
    mean.mul_f64(2.0 * rng.fraction())
}

async fn happen(mishap: Mishap, world: &World, lines: &[Line], rng: &Rng) {
    match mishap {
        Mishap::ProcessKilled => {
            if let Some(line) = pick(lines, rng) {
                line.kill();
            }
        }
        Mishap::ProcessFrozen => {
            if let Some(line) = pick(lines, rng) {
                line.freeze((world.faults.lateness * 10).mul_f64(rng.fraction()));
            }
        }
        Mishap::ServerRestarted => {
            let away = RESTART.mul_f64(rng.fraction());
            if let Err(error) = world.restart_server(away).await {
                world.history.violated("a server starts on what it has stored", error.to_string());
            }
        }
        Mishap::Compacted => {
            let revision = world.storage.revision().await.unwrap_or(0);
            let _ = world.storage.compact(revision).await;
        }
        Mishap::NodeLost => {
            if let Some(node) = pick(&world.fleet.names(), rng) {
                let how = if rng.below(2) == 0 { Power::CutOff } else { Power::Off };
                world.fleet.set_power(node, how);
                let (fleet, node, length) = (world.fleet.clone(), node.clone(), LOST.mul_f64(rng.fraction()));
                tokio::spawn(async move {
                    tokio::time::sleep(length).await;
                    fleet.set_power(&node, Power::On);
                });
            }
        }
        Mishap::PodFailed => {
            let pods = world.pods(|pod| on_a_node(pod) && phase(pod) == "Running");
            if let Some(pod) = pick(&pods, rng) {
                let mut failed = pod.clone();
                let status = failed.status.get_or_insert_default();
                status.phase = Some("Failed".to_owned());
                status.reason = Some("Evicted".to_owned());
                for condition in status.conditions.iter_mut().flatten() {
                    if condition.type_.ends_with("Ready") {
                        condition.status = "False".to_owned();
                    }
                }
                // Somebody may have been first.
                let _ = api(world, pod).update_status(&failed).await;
            }
        }
        Mishap::PodDeleted => {
            let pods = world.pods(|pod| pod.metadata.deletion_timestamp.is_none());
            if let Some(pod) = pick(&pods, rng) {
                let name = pod.metadata.name.clone().unwrap_or_default();
                let _ = api(world, pod).delete(&name, &DeleteParams::default()).await;
            }
        }
    }
}

fn api<K: Resource>(world: &World, object: &K) -> Api<K> {
    world.client().namespaced(object.meta().namespace.as_deref().unwrap_or_default())
}

fn on_a_node(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()) && pod.metadata.deletion_timestamp.is_none()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn pick<'a, T>(from: &'a [T], rng: &Rng) -> Option<&'a T> {
    from.get(usize::try_from(rng.below(from.len() as u64)).unwrap_or(0))
}

/// When simulated time begins: any moment will do, and this one is not special to calendars.
pub(super) fn beginning() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time")
}
