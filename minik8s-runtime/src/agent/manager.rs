//! The agent's own loop: workers come and go with the pods that the server has for this node.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use super::admission::{Room, admit};
use super::context::Context;
use super::pod_fsm::{Found, annotation};
use super::pods::{News, follow};
use super::termination;
use super::worker::{Begin, Input, Worker, WorkerHandle};
use super::{garbage, heartbeat, logs, node};
use crate::runtime::{Container, ContainerEvent, ContainerState};

/// Between attempts to reach the runtime at the start.
const RETRY: Duration = Duration::from_secs(1);

/// The pods of the node and what runs them.
pub(crate) struct Manager {
    ctx: Arc<Context>,
    workers: BTreeMap<String, WorkerHandle>,
    tasks: JoinSet<()>,
    uids: BTreeMap<Id, String>,
    /// The pods as last seen, by uid.
    pods: BTreeMap<String, Arc<Pod>>,
    /// Pods that the node did not take.
    refused: BTreeSet<String>,
    /// Pods that are through here, and that a late word of the server must not bring back.
    ended: BTreeSet<String>,
    /// What an earlier agent left, by pod.
    found: BTreeMap<String, Vec<Container>>,
    attached: BTreeSet<String>,
    /// Whether the server has said which pods there are.
    synced: bool,
}

impl Manager {
    pub(crate) fn new(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
            uids: BTreeMap::new(),
            pods: BTreeMap::new(),
            refused: BTreeSet::new(),
            ended: BTreeSet::new(),
            found: BTreeMap::new(),
            attached: BTreeSet::new(),
            synced: false,
        }
    }

    /// Runs until `shutdown`. Containers are left running.
    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        tokio::pin!(shutdown);
        // These end with the set.
        let mut beside = JoinSet::new();
        beside.spawn(node::report(self.ctx.clone()));
        beside.spawn(heartbeat::beat(self.ctx.clone()));
        // Subscribed before the list, so that nothing falls between them.
        let mut events = self.ctx.runtime.events();
        tokio::select! {
            () = self.take_stock() => {}
            () = &mut shutdown => return,
        }
        let (sender, mut news) = unbounded_channel();
        beside.spawn(follow(self.ctx.clone(), sender));
        let tick = |period: Duration| {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut housekeeping = tick(self.ctx.config.housekeeping);
        let mut refresh = tick(self.ctx.config.volume_refresh);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(item) = news.recv() => self.hear(item).await,
                Some(event) = events.next() => self.runtime_event(event),
                Some(ended) = self.tasks.join_next_with_id() => self.worker_ended(ended).await,
                _ = refresh.tick() => {
                    let now = self.ctx.config.clock.now();
                    self.workers.values().for_each(|w| w.tell(Input::Refresh(now)));
                }
                _ = housekeeping.tick() => self.keep_house().await,
            }
        }
        self.ctx.directory.clear();
    }

    /// Ends everything that runs here, as if the server had no pods for this node.
    pub(crate) async fn clear(mut self) {
        let mut events = self.ctx.runtime.events();
        self.take_stock().await;
        self.hear(News::All(BTreeMap::new())).await;
        while !self.workers.is_empty() {
            tokio::select! {
                biased;
                Some(event) = events.next() => self.runtime_event(event),
                Some(ended) = self.tasks.join_next_with_id() => self.worker_ended(ended).await,
            }
        }
        self.collect_garbage().await;
    }

    /// Learns what runs here. Nothing is touched before the server has been asked about it.
    async fn take_stock(&mut self) {
        let containers = loop {
            match self.ctx.runtime.list().await {
                Ok(containers) => break containers,
                Err(e) => {
                    tracing::warn!("cannot list containers: {e}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        self.attached = loop {
            match self.ctx.network.list().await {
                Ok(uids) => break uids.into_iter().collect(),
                Err(e) => {
                    tracing::warn!("cannot list pod networks: {e}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        self.ctx.directory.put_found(&containers, log_path);
        for container in containers {
            self.found.entry(container.labels.pod_uid.clone()).or_default().push(container);
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::All(all) => {
                let mut pods: Vec<_> = all.iter().map(|(uid, pod)| (uid.clone(), pod.clone())).collect();
                // Who came first is admitted first.
                pods.sort_by(|(a, x), (b, y)| {
                    let created = |p: &Pod| p.metadata.creation_timestamp.clone();
                    created(x).cmp(&created(y)).then_with(|| a.cmp(b))
                });
                for (uid, pod) in pods {
                    self.apply(uid, pod).await;
                }
                let gone: Vec<_> = self.pods.keys().filter(|uid| !all.contains_key(*uid)).cloned().collect();
                for uid in gone {
                    self.gone(&uid);
                }
                for (uid, containers) in std::mem::take(&mut self.found) {
                    self.adopt_orphan(&uid, containers);
                }
                if !std::mem::replace(&mut self.synced, true) {
                    self.collect_garbage().await;
                }
            }
            News::Applied(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                self.apply(uid, pod).await;
            }
            News::Deleted(pod) => self.gone(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    async fn apply(&mut self, uid: String, pod: Arc<Pod>) {
        if self.ended.contains(&uid) {
            return;
        }
        if let Some(worker) = self.workers.get(&uid) {
            worker.tell(Input::Pod(pod.clone()));
            self.pods.insert(uid, pod);
            return;
        }
        let found = self.found.remove(&uid).unwrap_or_default();
        let refused = self.refusal(&uid, &pod, found.is_empty()).await;
        if refused.is_some() {
            self.refused.insert(uid.clone());
        }
        self.pods.insert(uid.clone(), pod.clone());
        let begin = Begin {
            pod,
            found: found.into_iter().map(with_last_words).collect(),
            attached: self.attached.contains(&uid),
            refused,
            gone: false,
        };
        self.spawn(uid, begin);
    }

    /// Why the node cannot take the pod, if it is new and does not fit.
    async fn refusal(&self, uid: &str, pod: &Pod, nothing_runs: bool) -> Option<(String, String)> {
        let status = pod.status.as_ref();
        let known = status.is_some_and(|s| s.start_time.is_some());
        if known || !nothing_runs || pod.metadata.deletion_timestamp.is_some() || is_over(pod) {
            return None;
        }
        let here: Vec<&Pod> = self
            .pods
            .iter()
            .filter(|(other, pod)| *other != uid && !self.refused.contains(*other) && !is_over(pod))
            .map(|(_, pod)| pod.as_ref())
            .collect();
        let place = self.ctx.place(Vec::new());
        let mut room = Room {
            cpu_milli: place.cpu_milli,
            memory: place.memory,
            storage: place.storage,
            pods: self.ctx.config.max_pods.into(),
            node_name: self.ctx.node_name.clone(),
            labels: self.ctx.labels().unwrap_or_else(|| node::labels(&self.ctx)),
        };
        let refusal = admit(pod, here.iter().copied(), &room).err()?;
        if refusal.0 != "NodeAffinity" {
            return Some(refusal);
        }
        // Whoever bound the pod may know of a label that is newer than our last look.
        let node = self.ctx.client.all::<Node>().get(&self.ctx.node_name).await.ok()?;
        room.labels = node.metadata.labels.clone().unwrap_or_default();
        self.ctx.set_labels(room.labels.clone());
        admit(pod, here.into_iter(), &room).err()
    }

    fn gone(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.ended.remove(uid);
        if let Some(worker) = self.workers.get(uid) {
            worker.tell(Input::Gone);
        }
    }

    /// Ends containers of a pod that the server knows nothing of.
    fn adopt_orphan(&mut self, uid: &str, containers: Vec<Container>) {
        if self.workers.contains_key(uid) {
            return;
        }
        tracing::info!(uid, "removing the containers of a pod that is gone");
        let begin = Begin {
            pod: Arc::new(pod_of(&containers)),
            found: containers.into_iter().map(with_last_words).collect(),
            attached: self.attached.contains(uid),
            refused: None,
            gone: true,
        };
        self.spawn(uid.to_owned(), begin);
    }

    fn spawn(&mut self, uid: String, begin: Begin) {
        let (worker, handle) = Worker::new(self.ctx.clone(), begin);
        let task = self.tasks.spawn(worker.run());
        self.uids.insert(task.id(), uid.clone());
        self.workers.insert(uid, handle);
    }

    async fn worker_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, broke) = match ended {
            Ok((id, ())) => (id, false),
            Err(e) => {
                tracing::error!("a pod's worker failed: {e}");
                (e.id(), true)
            }
        };
        let Some(uid) = self.uids.remove(&id) else { return };
        self.workers.remove(&uid);
        self.attached.remove(&uid);
        if !broke {
            self.refused.remove(&uid);
            self.ctx.directory.remove(&uid);
            if self.pods.contains_key(&uid) {
                self.ended.insert(uid);
            }
            return;
        }
        // Another worker goes on from what there is, as another agent would.
        tokio::time::sleep(RETRY).await;
        let (Ok(containers), Ok(attached)) = (self.ctx.runtime.list().await, self.ctx.network.list().await)
        else {
            // Housekeeping finds it again.
            return;
        };
        let own: Vec<_> = containers.into_iter().filter(|c| c.labels.pod_uid == uid).collect();
        if attached.contains(&uid) {
            self.attached.insert(uid.clone());
        }
        match self.pods.get(&uid).cloned() {
            Some(pod) => {
                self.found.insert(uid.clone(), own);
                self.apply(uid, pod).await;
            }
            None => self.adopt_orphan(&uid, own),
        }
    }

    fn runtime_event(&self, event: ContainerEvent) {
        match event {
            ContainerEvent::Exited { id, exit } => {
                let owner = self.ctx.directory.owner(&id);
                match owner.and_then(|uid| self.workers.get(&uid)) {
                    Some(worker) => worker.tell(Input::Exited(id, exit)),
                    // One that has only just been started is not in the directory yet.
                    None => {
                        self.workers.values().for_each(|w| w.tell(Input::Exited(id.clone(), exit.clone())));
                    }
                }
            }
            ContainerEvent::Resync => self.workers.values().for_each(|w| w.tell(Input::Resync)),
        }
    }

    async fn keep_house(&mut self) {
        self.workers.values().for_each(|w| w.tell(Input::Resync));
        logs::rotate_all(&self.ctx).await;
        if self.synced {
            self.collect_garbage().await;
        }
    }

    async fn collect_garbage(&mut self) {
        match self.ctx.runtime.list().await {
            Ok(containers) => {
                let mut orphans: BTreeMap<String, Vec<Container>> = BTreeMap::new();
                for container in containers {
                    orphans.entry(container.labels.pod_uid.clone()).or_default().push(container);
                }
                for (uid, containers) in orphans {
                    match self.pods.get(&uid).cloned().filter(|_| !self.workers.contains_key(&uid)) {
                        Some(pod) => {
                            self.found.insert(uid.clone(), containers);
                            self.apply(uid, pod).await;
                        }
                        None => self.adopt_orphan(&uid, containers),
                    }
                }
            }
            Err(e) => tracing::warn!("cannot list containers: {e}"),
        }
        let alive = self.workers.keys().chain(self.pods.keys()).cloned().collect();
        garbage::collect(&self.ctx, &alive).await;
    }
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What can be said of a pod from its containers alone.
fn pod_of(containers: &[Container]) -> Pod {
    let labels = &containers[0].labels;
    let note = |key: &str| containers.iter().find_map(|c| c.labels.annotations.get(key));
    let mut names: Vec<&str> = containers.iter().map(|c| c.labels.container.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let grace = note(annotation::GRACE).and_then(|g| g.parse::<i64>().ok()).unwrap_or(30);
    serde_json::from_value(json!({
        "metadata": {"namespace": labels.pod_namespace, "name": labels.pod_name, "uid": labels.pod_uid},
        "spec": {
            "terminationGracePeriodSeconds": grace,
            "hostNetwork": note(annotation::HOST_NETWORK).is_some(),
            "containers": names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        },
    }))
    .expect("names and numbers make a pod")
}

fn with_last_words(container: Container) -> Found {
    let note = |key: &str| container.labels.annotations.get(key);
    let message = match (&container.state, note(annotation::TERMINATION_LOG)) {
        (ContainerState::Exited(exit), Some(words)) => {
            let fallback = note(annotation::TERMINATION_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
            let output = log_path(&container);
            termination::message(words.as_ref(), (fallback && exit.code != 0).then_some(output.as_path()))
        }
        _ => String::new(),
    };
    Found { container, message }
}

/// Where the output of a container that an earlier agent made goes.
fn log_path(container: &Container) -> PathBuf {
    container.labels.annotations.get(annotation::LOG).map(PathBuf::from).unwrap_or_default()
}
