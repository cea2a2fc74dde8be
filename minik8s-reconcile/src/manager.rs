//! Runs controllers together, on shared caches.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Caches;
use crate::client::Client;
use crate::clock::Clock;
use crate::controller::Controller;
use crate::cx::{Environment, OnPanic};
use crate::key::Key;
use crate::reconciler::Reconciler;
use crate::recorder::Recorder;
use crate::rng::Rng;
use crate::scheduler::Scheduler;

type Start = Box<dyn FnOnce(Environment) -> BoxFuture<'static, ()> + Send>;

/// Runs controllers.
///
/// # Stages
/// 1. *Warm*: every controller subscribes to what it watches; the caches fill.
/// 2. *Lead*: the controllers work.
/// 3. *Drain*: after the shutdown has been asked for, reconciliations under way end; no new ones begin.
/// 4. *Stop*: the caches stop.
#[must_use = "call `run`"]
pub struct Manager {
    client: Client,
    clock: Clock,
    rng: Rng,
    controllers: Vec<Start>,
    on_panic: OnPanic,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manager({} controllers)", self.controllers.len())
    }
}

impl Manager {
    /// A manager of controllers that work on the server of `client`.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            clock: Clock::system(),
            rng: Rng::from_entropy(),
            controllers: Vec::new(),
            on_panic: Arc::new(|_, _| {}),
        }
    }

    /// Tells the controllers this time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Gives the controllers these random numbers.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Tells `f` of each reconciler that panics: the controller's name, and the key. The key is tried again, as after an
    /// error.
    pub fn on_panic(mut self, f: impl Fn(&str, &Key) + Send + Sync + 'static) -> Self {
        self.on_panic = Arc::new(f);
        self
    }

    /// Runs this controller too.
    pub fn controller<R: Reconciler>(mut self, controller: Controller<R>) -> Self {
        self.controllers.push(Box::new(move |environment| controller.start(environment)));
        self
    }

    /// Runs this scheduler too.
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.controllers.push(Box::new(move |environment| scheduler.start(environment)));
        self
    }

    /// Runs this task too, from the time the caches are full until the shutdown. For controllers of another shape.
    pub fn task<F>(
        mut self,
        task: impl FnOnce(Client, Caches, CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.controllers.push(Box::new(move |environment| {
            Box::pin(task(environment.client, environment.caches, environment.stop))
        }));
        self
    }

    /// Runs until `shutdown`, and until the reconciliations under way have ended.
    ///
    /// # Panics
    /// A controller names a kind that the server does not know.
    pub async fn run(self, shutdown: CancellationToken) {
        // Caches outlive the controllers: the last reconciliations still wait for them.
        let stop_caches = CancellationToken::new();
        let _guard = stop_caches.clone().drop_guard();
        let (recorder, write_events) = Recorder::new("", self.client.clone(), self.clock.clone());
        let events = tokio::spawn(write_events);
        let environment = Environment {
            caches: Caches::new(self.client.clone(), stop_caches),
            client: self.client,
            clock: self.clock,
            rng: self.rng,
            stop: shutdown.clone(),
            on_panic: self.on_panic,
            recorder: Arc::new(move |component| recorder.component(component)),
        };
        let starts: Vec<_> = self.controllers.into_iter().map(|start| start(environment.clone())).collect();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = environment.caches.synced() => {}
        }
        let mut running = JoinSet::new();
        for controller in starts {
            running.spawn(controller);
        }
        while running.join_next().await.is_some() {}
        // The last recorder goes with this, and the events that wait are written.
        drop(environment);
        let _ = events.await;
    }
}
