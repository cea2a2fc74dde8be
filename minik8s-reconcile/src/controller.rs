//! Drives a reconciler: caches in, queue in the middle, workers out.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::Resource as _;
use minik8s_api::Resource;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cache::{Cache, Dirty};
use crate::client::WriteLog;
use crate::clock::sleep_until;
use crate::cx::{Cx, Environment};
use crate::key::Key;
use crate::queue::{Backoff, Outcome, Queue};
use crate::reconciler::{Action, Reconciler, Result, Retry};
use crate::request::{Patch, PatchFormat};

/// How long a reconciliation waits for the caches to show what it wrote, before it is retried instead.
const BARRIER: Duration = Duration::from_secs(5);

/// A reconciler with what wakes it. Give it to a [`crate::Manager`].
#[must_use = "give it to a Manager"]
pub struct Controller<R: Reconciler> {
    name: String,
    reconciler: Arc<R>,
    concurrency: usize,
    backoff: Backoff,
    sources: Vec<Source>,
}

type Source = Box<dyn FnOnce(&Environment, &Arc<Dirty>) + Send>;

impl<R: Reconciler> fmt::Debug for Controller<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller({})", self.name)
    }
}

impl<R: Reconciler> Controller<R> {
    /// A controller called `name` (in logs, events and metrics) of all objects of the reconciler's kind.
    pub fn new(name: &str, reconciler: R) -> Self {
        Self {
            name: name.to_owned(),
            reconciler: Arc::new(reconciler),
            concurrency: 4,
            backoff: Backoff::default(),
            sources: Vec::new(),
        }
    }

    /// Works on at most that many keys at once; 4 by default.
    pub fn concurrency(mut self, keys: usize) -> Self {
        self.concurrency = keys.max(1);
        self
    }

    /// How long failed keys wait.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Also reconciles an object when a `C` changes whose controlling owner it is.
    pub fn owns<C: Resource>(self) -> Self {
        self.maps(|child: &C| controller_of(child, &R::Object::kind(&())).into_iter().collect())
    }

    /// Also reconciles the objects whose keys `map` gives when a `K` changes. It sees the state before and the one
    /// after a change.
    pub fn maps<K: Resource>(mut self, map: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static) -> Self {
        self.sources.push(Box::new(move |environment, dirty| {
            let map = move |object: &K, out: &mut dyn FnMut(Key)| map(object).into_iter().for_each(out);
            environment.caches.of::<K>().listen(map, dirty.clone());
        }));
        self
    }

    /// Like [`Self::maps`], with the cache of the reconciler's own kind at hand.
    pub fn maps_with<K: Resource>(
        mut self,
        map: impl Fn(&K, &Cache<R::Object>) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self
    where
        R::Object: Resource,
    {
        self.sources.push(Box::new(move |environment, dirty| {
            let own = environment.caches.of::<R::Object>();
            let map = move |object: &K, out: &mut dyn FnMut(Key)| map(object, &own).into_iter().for_each(out);
            environment.caches.of::<K>().listen(map, dirty.clone());
        }));
        self
    }

    /// Subscribes to everything it watches, so that the caches fill; the answer is to be run once they have.
    pub(crate) fn start(self, environment: Environment) -> BoxFuture<'static, ()> {
        let dirty = Arc::new(Dirty::default());
        let cache = environment.caches.of::<R::Object>();
        cache.listen(|object, out| out(Key::of(object)), dirty.clone());
        for source in self.sources {
            source(&environment, &dirty);
        }
        let worker = Worker { name: self.name, reconciler: self.reconciler, cache, environment };
        drive(worker, dirty, self.concurrency, self.backoff).boxed()
    }
}

/// The key of the controlling owner, if that is of `kind`.
fn controller_of<C: Resource>(child: &C, kind: &str) -> Option<Key> {
    let meta = child.meta();
    let owner: &OwnerReference =
        meta.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true) && o.kind == kind)?;
    Some(Key::new(meta.namespace.as_deref().unwrap_or_default(), &owner.name))
}

struct Worker<R: Reconciler> {
    name: String,
    reconciler: Arc<R>,
    cache: Cache<R::Object>,
    environment: Environment,
}

impl<R: Reconciler> Clone for Worker<R> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            reconciler: self.reconciler.clone(),
            cache: self.cache.clone(),
            environment: self.environment.clone(),
        }
    }
}

async fn drive<R: Reconciler>(worker: Worker<R>, dirty: Arc<Dirty>, concurrency: usize, backoff: Backoff) {
    let origin = Instant::now();
    let stop = worker.environment.stop.clone();
    let mut queue = Queue::new(backoff);
    let mut running = JoinSet::new();
    loop {
        let now = origin.elapsed();
        for (key, priority) in dirty.take() {
            queue.add(key, now, priority);
        }
        while running.len() < concurrency
            && let Some(key) = queue.pop(now)
        {
            let failures = queue.failures(&key);
            let worker = worker.clone();
            running.spawn(async move {
                let outcome = worker.work(&key, failures).await;
                (key, outcome)
            });
        }
        let due = queue.next_due().filter(|_| running.len() < concurrency);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(finished) = running.join_next() => match finished {
                Ok((key, outcome)) => queue.finish(&key, outcome, origin.elapsed()),
                // `work` catches panics, and nobody aborts these tasks while this loop runs.
                Err(error) => tracing::error!(controller = worker.name, %error, "a worker was lost"),
            },
            () = dirty.added() => {}
            () = sleep_until(due.map(|d| origin + d)) => {}
        }
    }
    // Reconcilers have seen the token too: they end by themselves, or are dropped with the set by a caller in a hurry.
    while running.join_next().await.is_some() {}
}

impl<R: Reconciler> Worker<R> {
    /// Reconciles one key and waits until the caches show what it wrote.
    async fn work(&self, key: &Key, failures: u32) -> Outcome {
        let environment = &self.environment;
        let writes = WriteLog::default();
        let cx = Cx {
            client: environment.client.logged(writes.clone()).field_manager(&self.name),
            caches: environment.caches.clone(),
            clock: environment.clock.clone(),
            rng: environment.rng.clone(),
            recorder: (environment.recorder)(&self.name),
            attempt: failures,
            cancelled: environment.stop.clone(),
            writes: writes.clone(),
        };
        let result = AssertUnwindSafe(self.reconcile(key, cx)).catch_unwind().await;
        let outcome = match result {
            Ok(Ok(Action::Done)) => Outcome::Done(None),
            Ok(Ok(Action::RequeueAfter(delay))) => Outcome::Done(Some(delay)),
            Ok(Err(error)) => {
                // Conflicts and the like are everyday life; they only matter when they persist.
                if failures < 3 {
                    tracing::debug!(controller = self.name, %key, %error, failures, "reconciling failed");
                } else {
                    tracing::warn!(controller = self.name, %key, %error, failures, "reconciling keeps failing");
                }
                match error.retry() {
                    Retry::Backoff => Outcome::Failed,
                    Retry::After(delay) => Outcome::RetryAfter(delay),
                    Retry::Never => Outcome::Done(None),
                }
            }
            Err(_) => {
                tracing::error!(controller = self.name, %key, "the reconciler panicked");
                (environment.on_panic)(&self.name, key);
                Outcome::Failed
            }
        };
        let newest = writes.newest();
        if !newest.is_empty() {
            let shown = environment.caches.show(&newest);
            if tokio::time::timeout(BARRIER, shown).await.is_err() {
                tracing::warn!(controller = self.name, %key, "the caches do not show what was written");
                return Outcome::Failed;
            }
        }
        outcome
    }

    async fn reconcile(&self, key: &Key, cx: Cx) -> Result<Action> {
        let Some(object) = self.cache.get(key) else { return self.reconciler.deleted(key.clone(), cx).await };
        let Some(finalizer) = R::FINALIZER else { return self.reconciler.reconcile(object, cx).await };
        let finalizers = object.meta().finalizers.as_deref().unwrap_or_default();
        let present = finalizers.iter().any(|f| f == finalizer);
        if object.meta().deletion_timestamp.is_none() {
            let object = if present {
                object
            } else {
                let mut list = finalizers.to_vec();
                list.push(finalizer.to_owned());
                self.set_finalizers(&cx, &object, &list).await?
            };
            return self.reconciler.reconcile(object, cx).await;
        }
        if !present {
            return Ok(Action::Done);
        }
        let action = self.reconciler.cleanup(object.clone(), cx.clone()).await?;
        if action == Action::Done {
            let list: Vec<String> = finalizers.iter().filter(|f| *f != finalizer).cloned().collect();
            self.set_finalizers(&cx, &object, &list).await?;
        }
        Ok(action)
    }

    async fn set_finalizers(
        &self,
        cx: &Cx,
        object: &Arc<R::Object>,
        list: &[String],
    ) -> Result<Arc<R::Object>> {
        let meta = object.meta();
        let patch = json!({
            "metadata": { "finalizers": list, "resourceVersion": meta.resource_version, "uid": meta.uid },
        });
        let patch = Patch { format: PatchFormat::Merge, body: patch.to_string().into(), force: false };
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api = cx.client().namespaced::<R::Object>(namespace);
        Ok(api.patch(meta.name.as_deref().unwrap_or_default(), patch).await?)
    }
}
