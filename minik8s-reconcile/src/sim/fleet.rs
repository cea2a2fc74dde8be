//! Nodes that are not there: they register, renew their Leases, and "run" the pods that are bound to them.
//!
//! What a pod does follows from a script ([`Behaviour`]); what becomes of its status, and when its object goes, is as a node's
//! agent does it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, Node, Pod,
    PodCondition, PodIP,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::process::Process;
use crate::client::Client;
use crate::clock::Clock;
use crate::controller::Controller;
use crate::cx::Cx;
use crate::error::ApiError;
use crate::key::Key;
use crate::placement::{self, is_over, node_of};
use crate::queue::Backoff;
use crate::reconciler::{Action, Reconciler, Result};
use crate::request::DeleteParams;
use crate::rng::Rng;

/// Between two renewals of a Lease. Seldom: it is what most of a quiet hour consists of.
const RENEWED: Duration = Duration::from_secs(30);
/// How long a Lease says that its node is to be believed in.
const BELIEVED_S: i32 = 120;
/// How often pods of a node that is away are looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// What a pod does, once it is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// From being bound to running and ready.
    pub starts_after: Duration,
    /// From running to the end of its containers, and their exit code; `None` for ever.
    pub ends: Option<(Duration, i32)>,
    /// From being asked to end to having ended.
    pub stops_after: Duration,
}

/// What pods do: a function of the pod, and of chance of its own.
pub(super) type Script = Arc<dyn Fn(&Pod, &Rng) -> Behaviour + Send + Sync>;

/// Starts within two seconds, runs for ever, and stops within two seconds.
pub(super) fn steady(_: &Pod, rng: &Rng) -> Behaviour {
    let short = || Duration::from_millis(rng.below(2000));
    Behaviour { starts_after: short(), ends: None, stops_after: short() }
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// At work.
    On,
    /// At work, and cut off from the server.
    CutOff,
    /// Without power: nothing runs on it.
    Off,
}

/// The nodes of a run. Cheap to clone; clones are the same nodes.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    nodes: Mutex<BTreeMap<String, Machine>>,
    script: Script,
    capacity: serde_json::Value,
    rng: Rng,
}

struct Machine {
    power: Power,
    /// How often it has been switched on.
    boots: u64,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Fleet {
    pub(super) fn new(count: usize, capacity: serde_json::Value, script: Script, rng: Rng) -> Self {
        let machine = |n| (format!("n{n}"), Machine { power: Power::On, boots: 0 });
        let nodes = Mutex::new((1..=count).map(machine).collect());
        Self(Arc::new(Inner { nodes, script, capacity, rng }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Machine>> {
        self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the nodes: `n1`, `n2` and so on.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// How a node is; `None` if there is no such node.
    pub fn power(&self, node: &str) -> Option<Power> {
        self.lock().get(node).map(|m| m.power)
    }

    /// Switches a node on or off, or takes it off the network. Others than the fleet's are left alone.
    pub fn set_power(&self, node: &str, power: Power) {
        if let Some(machine) = self.lock().get_mut(node) {
            if machine.power == Power::Off && power != Power::Off {
                machine.boots += 1;
            }
            machine.power = power;
        }
    }

    /// All nodes are at work.
    pub(super) fn heal(&self) {
        self.names().iter().for_each(|node| self.set_power(node, Power::On));
    }

    fn boots(&self, node: &str) -> Option<u64> {
        self.lock().get(node).map(|m| m.boots)
    }

    /// Is the nodes' agents.
    pub(super) async fn run(self, process: Process) {
        let agents = Agents { fleet: self.clone(), pods: Mutex::default() };
        let backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(5) };
        // A node that has been switched on again says so in its status.
        let controller = Controller::new("kubelet", agents).backoff(backoff).concurrency(64).maps_with(
            |node: &Node, pods| {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                placement::on(pods, name).iter().map(|pod| Key::of(&**pod)).collect()
            },
        );
        let manager = process.manager().controller(controller);
        let heartbeats = self.heartbeats(process.client.clone(), process.clock.clone(), process.stop.clone());
        tokio::join!(manager.run(process.stop), heartbeats);
    }

    async fn heartbeats(self, client: Client, clock: Clock, stop: CancellationToken) {
        let beat = async {
            loop {
                for node in self.names() {
                    if self.power(&node) == Some(Power::On)
                        && let Err(error) = self.beat(&node, &client, clock.now()).await
                    {
                        tracing::debug!(node, %error, "no heartbeat");
                    }
                }
                tokio::time::sleep(RENEWED).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = beat => {}
        }
    }

    /// Renews a node's Lease; registers the node first, if it is not.
    async fn beat(&self, node: &str, client: &Client, now: Timestamp) -> Result<(), ApiError> {
        let nodes = client.all::<Node>();
        if nodes.get_opt(node).await?.is_none() {
            nodes.create(&self.describe(node)).await?;
        }
        self.vouch(node, client, now).await?;
        let leases = client.namespaced::<Lease>("kube-node-lease");
        let found = leases.get_opt(node).await?;
        let mut lease = found.as_deref().cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(node.to_owned()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(BELIEVED_S),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        });
        if found.is_some() {
            leases.update(&lease).await?
        } else {
            leases.create(&lease).await?
        };
        Ok(())
    }

    /// Says that the node is ready, and how often it was switched on, where its status does not.
    async fn vouch(&self, node: &str, client: &Client, now: Timestamp) -> Result<(), ApiError> {
        let nodes = client.all::<Node>();
        let mut found = (*nodes.get(node).await?).clone();
        let status = found.status.get_or_insert_default();
        let boot = self.boots(node).unwrap_or(0).to_string();
        let conditions = status.conditions.get_or_insert_default();
        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
            && status.node_info.as_ref().is_some_and(|info| info.boot_id == boot)
        {
            return Ok(());
        }
        status.node_info.get_or_insert_default().boot_id = boot;
        let wanted = self.describe(node);
        let mut wanted = wanted.status.and_then(|s| s.conditions).unwrap_or_default();
        for condition in &mut wanted {
            condition.last_heartbeat_time = Some(seconds(now));
            condition.last_transition_time = Some(seconds(now));
        }
        conditions.retain(|c| wanted.iter().all(|w| w.type_ != c.type_));
        conditions.append(&mut wanted);
        nodes.update_status(&found).await.map(drop)
    }

    fn describe(&self, node: &str) -> Node {
        let condition =
            |type_: &str, status: &str| json!({ "type": type_, "status": status, "reason": "Simulated" });
        let described = json!({
            "metadata": { "name": node, "labels": { "kubernetes.io/hostname": node } },
            "status": {
                "capacity": self.0.capacity,
                "allocatable": self.0.capacity,
                "conditions": [
                    condition("Ready", "True"),
                    condition("MemoryPressure", "False"),
                    condition("DiskPressure", "False"),
                    condition("PIDPressure", "False"),
                ],
            },
        });
        serde_json::from_value(described).expect("a node")
    }
}

/// The agents of all nodes of a fleet, as one reconciler of pods.
struct Agents {
    fleet: Fleet,
    /// What is known of the pods that are on nodes.
    pods: Mutex<BTreeMap<Key, Known>>,
}

/// What an agent knows of a pod.
#[derive(Clone)]
struct Known {
    uid: String,
    seen: Timestamp,
    running: Option<Running>,
    /// When it was told to end.
    ending: Option<Timestamp>,
    restarts: i32,
}

#[derive(Clone, Copy)]
struct Running {
    since: Timestamp,
    boot: u64,
}

impl Agents {
    fn known(&self, key: &Key, pod: &Pod, now: Timestamp) -> Known {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Known { uid: uid.clone(), seen: now, running: None, ending: None, restarts: 0 };
        let known = pods.entry(key.clone()).or_insert_with(|| fresh.clone());
        if known.uid != uid {
            *known = fresh;
        }
        known.clone()
    }

    fn learn(&self, key: &Key, known: Known) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), known);
    }

    fn forget(&self, key: &Key) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Ends a pod: its containers stop, and then its object goes.
    async fn end(
        &self,
        key: &Key,
        mut known: Known,
        stops_after: Duration,
        pod: &Pod,
        cx: &Cx,
    ) -> Result<Action> {
        let now = cx.now();
        let since = *known.ending.get_or_insert(now);
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0).unsigned_abs();
        let stopped = known.running.is_none() || is_over(pod);
        let left = if stopped { Duration::ZERO } else { stops_after.min(Duration::from_secs(grace)) };
        let done = now.duration_since(since) >= signed(left);
        let uid = known.uid.clone();
        self.learn(key, known);
        if !done {
            return Ok(Action::RequeueAfter(left.saturating_sub(unsigned(now.duration_since(since)))));
        }
        let params = DeleteParams { uid: Some(uid), ..DeleteParams::now() };
        match cx.client().namespaced::<Pod>(key.namespace()).delete(key.name(), &params).await {
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            other => other?,
        }
        Ok(Action::Done)
    }
}

impl Reconciler for Agents {
    type Object = Pod;

    async fn reconcile(&self, pod: Arc<Pod>, cx: Cx) -> Result<Action> {
        let (key, now, node) = (Key::of(&*pod), cx.now(), node_of(&pod));
        let Some(boot) = self.fleet.boots(node) else { return Ok(Action::Done) };
        if self.fleet.power(node) != Some(Power::On) {
            return Ok(Action::RequeueAfter(AGAIN));
        }
        let mut known = self.known(&key, &pod, now);
        // The same for the same pod, whoever asks and how often.
        let chance = self.fleet.0.rng.child(&known.uid);
        let behaviour = (self.fleet.0.script)(&pod, &chance);
        if pod.metadata.deletion_timestamp.is_some() {
            return self.end(&key, known, behaviour.stops_after, &pod, &cx).await;
        }
        if is_over(&pod) {
            return Ok(Action::Done);
        }
        let begun = known.seen.saturating_add(signed(behaviour.starts_after)).unwrap_or(now);
        let Some(running) = known.running else {
            if now < begun {
                self.learn(&key, known);
                return Ok(Action::RequeueAfter(unsigned(begun.duration_since(now))));
            }
            let status = started(&pod, &known, now);
            cx.client().namespaced::<Pod>(key.namespace()).update_status(&status).await?;
            known.running = Some(Running { since: now, boot });
            self.learn(&key, known);
            return Ok(Action::RequeueAfter(Duration::ZERO));
        };
        let restarts = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
        let ended = match behaviour.ends {
            _ if running.boot != boot => Some(137),
            Some((after, code)) if now.duration_since(running.since) >= signed(after) => Some(code),
            Some((after, _)) => {
                let left = after.saturating_sub(unsigned(now.duration_since(running.since)));
                return Ok(Action::RequeueAfter(left));
            }
            None => return Ok(Action::Done),
        };
        let code = ended.unwrap_or(0);
        if restarts == "Always" || (restarts == "OnFailure" && code != 0) {
            known.restarts += 1;
            known.running = None;
            known.seen = now;
            self.learn(&key, known);
            return Ok(Action::RequeueAfter(Duration::ZERO));
        }
        let status = finished(&pod, running, code, now);
        cx.client().namespaced::<Pod>(key.namespace()).update_status(&status).await?;
        Ok(Action::Done)
    }

    async fn deleted(&self, key: Key, _: Cx) -> Result<Action> {
        self.forget(&key);
        Ok(Action::Done)
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn unsigned(duration: SignedDuration) -> Duration {
    duration.try_into().unwrap_or(Duration::ZERO)
}

/// As the API writes times.
fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// An address that no other pod is likely to have.
fn address(uid: &str) -> String {
    let n = uid.bytes().fold(0_u32, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
    let [_, b, c, d] = n.to_be_bytes();
    format!("10.{b}.{c}.{d}")
}

fn set_conditions(pod: &mut Pod, ready: bool, reason: Option<&str>, now: Timestamp) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
        let good = ready || type_ == "Initialized";
        let status = if good { "True" } else { "False" };
        let old = conditions.iter().find(|c| c.type_ == type_ && c.status == status);
        let since = old.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| seconds(now));
        conditions.retain(|c| c.type_ != type_);
        conditions.push(PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.filter(|_| !good).map(ToOwned::to_owned),
            last_transition_time: Some(since),
            ..PodCondition::default()
        });
    }
}

fn set_containers(pod: &mut Pod, restarts: i32, state: &ContainerState) {
    let ready = state.running.is_some();
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let statuses = containers.map(|c| ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        ready,
        started: Some(ready),
        restart_count: restarts,
        state: Some(state.clone()),
        ..ContainerStatus::default()
    });
    let statuses = statuses.collect();
    pod.status.get_or_insert_default().container_statuses = Some(statuses);
}

/// The pod, running.
fn started(pod: &Pod, known: &Known, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let running = ContainerStateRunning { started_at: Some(seconds(now)) };
    set_containers(
        &mut pod,
        known.restarts,
        &ContainerState { running: Some(running), ..ContainerState::default() },
    );
    set_conditions(&mut pod, true, None, now);
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Running".to_owned());
    let ip = address(&known.uid);
    status.pod_ips = Some(vec![PodIP { ip: ip.clone() }]);
    status.pod_ip = Some(ip);
    status.start_time.get_or_insert_with(|| seconds(now));
    pod
}

/// The pod, with all its containers ended.
fn finished(pod: &Pod, running: Running, code: i32, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let terminated = ContainerStateTerminated {
        exit_code: code,
        reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
        started_at: Some(seconds(running.since)),
        finished_at: Some(seconds(now)),
        ..ContainerStateTerminated::default()
    };
    let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
    let restarts =
        pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).map(|c| c.restart_count);
    let restarts = restarts.max().unwrap_or(0);
    set_containers(&mut pod, restarts, &state);
    let (phase, reason) = if code == 0 { ("Succeeded", "PodCompleted") } else { ("Failed", "PodFailed") };
    set_conditions(&mut pod, false, Some(reason), now);
    pod.status.get_or_insert_default().phase = Some(phase.to_owned());
    pod
}
