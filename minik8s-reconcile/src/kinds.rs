//! The kinds that are served at present.

use std::fmt;
use std::sync::{Arc, RwLock};

use minik8s_api::Registry;
use tokio::sync::Notify;

/// A registry that may be replaced while it is in use. Cheap to clone; clones see the same registry.
///
/// Who needs several answers that fit together takes one snapshot and asks that.
#[derive(Clone)]
pub struct Kinds(Arc<Inner>);

struct Inner {
    current: RwLock<Arc<Registry>>,
    replaced: Notify,
}

impl Kinds {
    /// The kinds as they are now.
    pub fn current(&self) -> Arc<Registry> {
        self.0.current.read().expect("no writer panics").clone()
    }

    /// Replaces all kinds at once.
    pub fn replace(&self, registry: Registry) {
        *self.0.current.write().expect("no writer panics") = Arc::new(registry);
        self.0.replaced.notify_waiters();
    }

    /// Waits until the kinds are others than `known`, which may be so already.
    pub async fn changed(&self, known: &Arc<Registry>) {
        loop {
            let replaced = self.0.replaced.notified();
            let mut replaced = std::pin::pin!(replaced);
            // Registered before looking, so that no replacement is missed.
            replaced.as_mut().enable();
            if !Arc::ptr_eq(&self.current(), known) {
                return;
            }
            replaced.await;
        }
    }
}

impl From<Arc<Registry>> for Kinds {
    fn from(registry: Arc<Registry>) -> Self {
        Self(Arc::new(Inner { current: RwLock::new(registry), replaced: Notify::new() }))
    }
}

impl From<Registry> for Kinds {
    fn from(registry: Registry) -> Self {
        Arc::new(registry).into()
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kinds({})", self.current().iter().count())
    }
}
