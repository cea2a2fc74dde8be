//! The scheduler at work: follows nodes and pods, decides, and has its decisions carried out.
//!
//! Decisions are made one after the other, each on a snapshot that has the ones before it already; binding goes on
//! meanwhile, many at a time. A pod counts on its node from the decision on, and no longer if binding fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use minik8s_api::{Resource, Selector};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bind::{Effects, Unschedulable};
use super::demand::Demand;
use super::preempt::{Budget, Room, preempt};
use super::profile::{Decision, Profile};
use super::queue::{Change, SchedulingQueue};
use super::resources::Amounts;
use super::snapshot::{NodeInfo, Snapshot};
use crate::cache::{Cache, Dirty};
use crate::clock::sleep_until;
use crate::cx::Environment;
use crate::key::Key;
use crate::placement::{is_over, node_of};
use crate::queue::Backoff;

/// The `schedulerName` of pods that name none.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// Bindings and reports under way at once, at most.
const AT_ONCE: usize = 256;
/// Decisions in a row before what has changed meanwhile is looked at.
const IN_A_ROW: usize = 32;

/// A scheduler, to be given to [`crate::Manager::scheduler`].
///
/// It takes care of the pods whose `schedulerName` it has a profile for. Several schedulers with different names can run
/// side by side, in this process or in others.
#[must_use = "give it to a Manager"]
pub struct Scheduler {
    profiles: BTreeMap<String, Profile>,
    backoff: Backoff,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

impl Default for Scheduler {
    /// The stock profile, for pods of [`SCHEDULER_NAME`].
    fn default() -> Self {
        Self::empty().profile(SCHEDULER_NAME, Profile::default())
    }
}

impl Scheduler {
    /// A scheduler without a profile, which takes care of nobody.
    pub fn empty() -> Self {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(10) };
        Self { profiles: BTreeMap::new(), backoff }
    }

    /// Also takes care of pods whose `schedulerName` is `name`, by `profile`.
    pub fn profile(mut self, name: &str, profile: Profile) -> Self {
        self.profiles.insert(name.to_owned(), profile);
        self
    }

    /// How long a pod that fits nowhere, or could not be bound, waits at least before the next try. Default: from 100 ms to
    /// 10 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Subscribes to what it follows; the answer is to be run once the caches are full.
    pub(crate) fn start(self, environment: Environment) -> BoxFuture<'static, ()> {
        let watched = Watched {
            pods: Followed::new(&environment),
            nodes: Followed::new(&environment),
            namespaces: Followed::new(&environment),
            budgets: Followed::new(&environment),
        };
        let names: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
        let recorder = (environment.recorder)(names.first().copied().unwrap_or(SCHEDULER_NAME));
        let effects = Effects {
            client: environment.client.field_manager(SCHEDULER_NAME),
            clock: environment.clock.clone(),
            recorder,
        };
        let work = Work {
            queue: SchedulingQueue::new(self.backoff),
            profiles: self.profiles,
            watched,
            effects,
            cluster: Snapshot::default(),
            budgets: Vec::new(),
            assumed: BTreeSet::new(),
            changes: Vec::new(),
            tasks: JoinSet::new(),
            turn: 0,
        };
        let stop = environment.stop;
        work.run(stop).boxed()
    }
}

/// A cache, and which of its objects have changed.
struct Followed<K> {
    cache: Cache<K>,
    dirty: Arc<Dirty>,
}

impl<K: Resource> Followed<K> {
    fn new(environment: &Environment) -> Self {
        let (cache, dirty) = (environment.caches.of::<K>(), Arc::new(Dirty::default()));
        cache.listen(|object, out| out(Key::of(object)), dirty.clone());
        Self { cache, dirty }
    }

    /// What has changed since the last call, as it is now.
    fn changed(&self) -> Vec<(Key, Option<Arc<K>>)> {
        self.dirty.take().into_keys().map(|key| (key.clone(), self.cache.get(&key))).collect()
    }
}

struct Watched {
    pods: Followed<Pod>,
    nodes: Followed<Node>,
    namespaces: Followed<Namespace>,
    budgets: Followed<PodDisruptionBudget>,
}

/// What came of something that was carried out.
enum Done {
    Bound,
    /// It was not bound; nothing is if its pod is another one by now.
    NotBound {
        key: Key,
        uid: Option<String>,
    },
    Told,
}

struct Work {
    profiles: BTreeMap<String, Profile>,
    watched: Watched,
    effects: Effects,
    cluster: Snapshot,
    queue: SchedulingQueue,
    budgets: Vec<Budget>,
    /// Pods that were given to a node, which the cache does not show yet.
    assumed: BTreeSet<Key>,
    /// What has changed since parked pods were last woken.
    changes: Vec<Change>,
    tasks: JoinSet<Done>,
    /// Counts decisions, so that equally good nodes take turns.
    turn: u64,
}

impl Work {
    async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let origin = Instant::now();
        loop {
            self.follow();
            let mut more = true;
            for _ in 0..IN_A_ROW {
                more = self.tasks.len() < AT_ONCE && self.next(origin.elapsed());
                if !more {
                    break;
                }
            }
            self.wake(origin.elapsed());
            if more {
                while let Some(done) = self.tasks.try_join_next() {
                    self.done(done);
                }
                tokio::task::yield_now().await;
                if stop.is_cancelled() {
                    break;
                }
                continue;
            }
            let due = self.queue.next_due().filter(|_| self.tasks.len() < AT_ONCE);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.tasks.join_next() => self.done(done),
                () = self.watched.pods.dirty.added() => {}
                () = self.watched.nodes.dirty.added() => {}
                () = self.watched.namespaces.dirty.added() => {}
                () = self.watched.budgets.dirty.added() => {}
                () = sleep_until(due.map(|due| origin + due)) => {}
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Takes over what has changed.
    fn follow(&mut self) {
        for (key, namespace) in self.watched.namespaces.changed() {
            match namespace {
                Some(namespace) => {
                    if self.cluster.set_namespace(key.name(), namespace.metadata.labels.as_ref()) {
                        self.changes.push(Change::Namespace);
                    }
                }
                None => self.cluster.remove_namespace(key.name()),
            }
        }
        for (key, node) in self.watched.nodes.changed() {
            match node {
                Some(node) => self.changes.extend(set_node(&mut self.cluster, node)),
                None => {
                    self.cluster.remove_node(key.name());
                    // A domain that counts no longer.
                    self.changes.push(Change::Node { room: false, labels: true, taints: false });
                }
            }
        }
        if !self.watched.budgets.dirty.take().is_empty() {
            self.budgets = self.watched.budgets.cache.list().iter().filter_map(|b| budget(b)).collect();
        }
        for (key, pod) in self.watched.pods.changed() {
            self.follow_pod(&key, pod);
        }
    }

    fn follow_pod(&mut self, key: &Key, pod: Option<Arc<Pod>>) {
        let Some(pod) = pod.filter(|pod| !is_over(pod)) else {
            self.assumed.remove(key);
            self.queue.remove(key);
            self.cluster.forget_nomination(key);
            self.changes.extend(self.cluster.remove(key).map(Change::PodGone));
            return;
        };
        let known = self.cluster.place(key).map(|(node, demand)| (node.name().to_owned(), demand.clone()));
        let node = node_of(&pod);
        if !node.is_empty() {
            self.queue.remove(key);
            self.assumed.remove(key);
            self.cluster.forget_nomination(key);
            match known {
                Some((there, old)) if there == node && same(&old, &pod) => {}
                known => {
                    let demand = Arc::new(Demand::of(pod.clone()));
                    self.cluster.put(&demand, node);
                    self.changes.extend(known.map(|(_, old)| Change::PodGone(old)));
                    self.changes.push(Change::PodPlaced(demand));
                }
            }
            return;
        }
        let mut known = known;
        if known.as_ref().is_some_and(|(_, old)| old.pod().metadata.uid != pod.metadata.uid) {
            // Another pod of that name.
            self.assumed.remove(key);
            self.queue.remove(key);
            self.changes.extend(self.cluster.remove(key).map(Change::PodGone));
            known = None;
        }
        let name = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).unwrap_or(SCHEDULER_NAME);
        if !self.profiles.contains_key(name) || pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(key);
            self.cluster.forget_nomination(key);
            return;
        }
        if pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
        {
            self.queue.remove(key);
            let told = Unschedulable::gated();
            self.tell(pod, told);
            return;
        }
        if known.is_some() {
            // Given away already.
            return;
        }
        let old = self.queue.get(key);
        let renewed = old.is_some_and(|old| !same(old, &pod));
        let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.clone());
        let demand = Arc::new(Demand::of(pod));
        if nominated.is_some() {
            self.cluster.nominate(&demand, nominated.as_deref());
        }
        self.queue.offer(demand, renewed);
    }

    /// Decides about the next pod; `false` if there is none.
    fn next(&mut self, now: Duration) -> bool {
        let Some(demand) = self.queue.pop(now) else { return false };
        let name = demand.spec().scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME);
        let Some(profile) = self.profiles.get_mut(name) else { return true };
        match profile.decide(&demand, &mut self.cluster, self.turn) {
            Decision::Node(node) => {
                self.turn += 1;
                self.cluster.forget_nomination(demand.key());
                self.cluster.put(&demand, &node);
                self.assumed.insert(demand.key().clone());
                self.changes.push(Change::PodPlaced(demand.clone()));
                let effects = self.effects.clone();
                self.tasks.spawn(async move {
                    let pod = demand.pod();
                    match effects.bind(pod, &node).await {
                        Ok(()) => Done::Bound,
                        Err(error) => {
                            tracing::debug!(key = %demand.key(), node, %error, "a pod was not bound");
                            Done::NotBound { key: demand.key().clone(), uid: pod.metadata.uid.clone() }
                        }
                    }
                });
            }
            Decision::Nowhere(refusal) => {
                let room = preempt(profile, &demand, &mut self.cluster, &refusal, &self.budgets);
                let mut told = Unschedulable::because(refusal.to_string());
                match room {
                    Room::Coming => {
                        told.nominated =
                            demand.pod().status.as_ref().and_then(|s| s.nominated_node_name.clone())
                    }
                    Room::None(_) if refusal.nodes == 0 => {}
                    Room::None(words) => {
                        self.cluster.forget_nomination(demand.key());
                        told.message = format!("{} preemption: {words}", told.message);
                    }
                    Room::After(preemption) => {
                        self.cluster.nominate(&demand, Some(&preemption.node));
                        told.nominated = Some(preemption.node.clone());
                        for victim in preemption.victims.into_iter().filter(|v| !v.is_leaving()) {
                            let (effects, demand, node) =
                                (self.effects.clone(), demand.clone(), preemption.node.clone());
                            self.tasks.spawn(async move {
                                if let Err(error) = effects.preempt(victim.pod(), demand.pod(), &node).await {
                                    tracing::warn!(key = %victim.key(), %error, "a pod was not preempted");
                                }
                                Done::Told
                            });
                        }
                    }
                }
                self.queue.park(demand.key(), refusal.by);
                self.tell(demand.pod().clone(), told);
            }
        }
        true
    }

    /// Tells the pod's owner why it waits, if that is not known.
    fn tell(&mut self, pod: Arc<Pod>, told: Unschedulable) {
        if told.is_known(&pod) {
            return;
        }
        let effects = self.effects.clone();
        self.tasks.spawn(async move {
            if let Err(error) = effects.tell(&pod, &told).await {
                tracing::debug!(key = %Key::of(&*pod), %error, "why a pod waits was not told");
            }
            Done::Told
        });
    }

    /// Parked pods that what has changed may help are ready again.
    fn wake(&mut self, now: Duration) {
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let profiles = &self.profiles;
        self.queue.wake(now, |demand, by| {
            let name = demand.spec().scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME);
            let profile = profiles.get(name);
            profile.is_some_and(|profile| changes.iter().any(|change| profile.helps(demand, by, change)))
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Bound | Done::Told) => {}
            Ok(Done::NotBound { key, uid }) => {
                let place = self.cluster.place(&key);
                let mine = place.is_some_and(|(_, demand)| demand.pod().metadata.uid == uid);
                if mine && self.assumed.remove(&key) {
                    self.changes.extend(self.cluster.remove(&key).map(Change::PodGone));
                }
                self.queue.again(&key);
            }
            Err(error) => tracing::error!(%error, "a task of the scheduler was lost"),
        }
    }
}

/// Whether a pod asks for what it asked for before, and stays as it did.
fn same(old: &Demand, new: &Pod) -> bool {
    let before = old.pod();
    before.metadata.uid == new.metadata.uid
        && before.metadata.labels == new.metadata.labels
        && old.is_leaving() == new.metadata.deletion_timestamp.is_some()
        && before.spec == new.spec
}

/// Takes a node over; what about it may help pods that wait.
fn set_node(cluster: &mut Snapshot, node: Arc<Node>) -> Option<Change> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let Some(old) = cluster.find(&name).filter(|old| old.exists()) else {
        cluster.set_node(node);
        return Some(Change::Node { room: true, labels: true, taints: true });
    };
    let before = (old.allocatable.clone(), old.labels().clone(), old.taints().to_vec(), old.is_cordoned());
    let images = old.images.clone();
    let new = NodeInfo::new(node.clone(), []);
    let after = (new.allocatable.clone(), new.labels().clone(), new.taints().to_vec(), new.is_cordoned());
    if before == after && images == new.images && new.exists() {
        // A heartbeat.
        return None;
    }
    let more = |amounts: &Amounts| amounts.iter().any(|(name, amount)| amount > before.0.get(name));
    let change = Change::Node {
        room: more(&after.0),
        labels: before.1 != after.1,
        taints: (&before.2, before.3) != (&after.2, after.3),
    };
    cluster.set_node(node);
    Some(change)
}

fn budget(budget: &PodDisruptionBudget) -> Option<Budget> {
    let selector = budget.spec.as_ref()?.selector.as_ref()?;
    Some(Budget {
        namespace: budget.metadata.namespace.clone().unwrap_or_default(),
        selector: Selector::from_label_selector(selector).ok()?,
        allowed: budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
    })
}
