//! What a reconciler may touch.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use minik8s_api::Resource;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Caches};
use crate::client::{Client, WriteLog};
use crate::clock::Clock;
use crate::key::Key;
use crate::recorder::Recorder;
use crate::rng::Rng;

/// The only source of effects of a reconciler: the API, the caches, time, chance and events. Cheap to clone.
#[derive(Clone)]
pub struct Cx {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) recorder: Recorder,
    pub(crate) attempt: u32,
    pub(crate) cancelled: CancellationToken,
    pub(crate) writes: WriteLog,
}

impl Cx {
    /// The API. What is written through it is in the caches when the same key is reconciled again.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The cache of all `K`s, to read from.
    ///
    /// # Panics
    /// The server does not know `K`.
    pub fn cache<K: Resource>(&self) -> Cache<K> {
        self.caches.of::<K>()
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Random numbers; the same ones for the same seed in a simulation.
    pub fn rng(&self) -> &Rng {
        &self.rng
    }

    /// Tells users what happened to an object. Never fails.
    pub fn events(&self) -> &Recorder {
        &self.recorder
    }

    /// How many times in a row this key has failed before.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Resolves when the controller is to stop: finish soon.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Waits until the caches show what has been written through [`Self::client`] so far. The framework does so
    /// between two reconciliations of a key; within one it is rarely needed.
    pub async fn caught_up(&self) {
        self.caches.show(&self.writes.newest()).await;
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// What all reconcilers of a manager share.
#[derive(Clone)]
pub(crate) struct Environment {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) stop: CancellationToken,
    pub(crate) recorder: Arc<dyn Fn(&str) -> Recorder + Send + Sync>,
    pub(crate) on_panic: OnPanic,
}

/// Is told of reconcilers that panic: the controller's name, and the key.
pub(crate) type OnPanic = Arc<dyn Fn(&str, &Key) + Send + Sync>;
