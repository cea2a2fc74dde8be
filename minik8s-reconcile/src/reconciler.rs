//! What a controller does for one object.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use minik8s_api::Resource;

use crate::cx::Cx;
use crate::key::Key;

/// What is to happen next to an object that was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Done,
    /// Again after that time, or when something changes.
    RequeueAfter(Duration),
}

/// The answer of a reconciler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a reconciler could not do its work. Any error converts into it with `?`; it is retried with the key's backoff
/// unless it says otherwise.
pub struct Error {
    source: Box<dyn std::error::Error + Send + Sync>,
    retry: Retry,
}

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Backoff,
    After(Duration),
    Never,
}

impl Error {
    /// An error that trying again does not mend: the key rests until its object changes.
    pub fn terminal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into(), retry: Retry::Never }
    }

    /// An error that is known to pass: again after `delay`, without backoff.
    pub fn retry_after(source: impl Into<Box<dyn std::error::Error + Send + Sync>>, delay: Duration) -> Self {
        Self { source: source.into(), retry: Retry::After(delay) }
    }

    pub(crate) fn retry(&self) -> Retry {
        self.retry
    }

    /// The error behind it, if it is an `E`.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        Self { source: Box::new(source), retry: Retry::Backoff }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

/// Brings the world in line with one object at a time.
///
/// # Guarantees
/// - Level-triggered: `reconcile` is called some time after every change, but not once for each.
/// - An object is not reconciled twice at the same time, and not before the controller's caches show what its last
///   reconciliation wrote.
/// - With a [`Self::FINALIZER`], `reconcile` is not called before the finalizer is in place, and the object does not
///   vanish before `cleanup` has succeeded.
///
/// # Cancel safety
/// A forced stop drops the future at any `.await`: whatever has been written by then must be a state from which the
/// next call goes on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a reconciler",
    note = "implement `Reconciler` for it, or wrap a closure: `reconcile_fn(|object, cx| async move {{ … }})`"
)]
pub trait Reconciler: Send + Sync + 'static {
    /// The kind it is responsible for.
    type Object: Resource;

    /// A finalizer that the framework adds before the first [`Self::reconcile`] and removes after
    /// [`Self::cleanup`].
    const FINALIZER: Option<&'static str> = None;

    /// The object exists (and is not being deleted, if there is a [`Self::FINALIZER`]).
    fn reconcile(&self, object: Arc<Self::Object>, cx: Cx) -> impl Future<Output = Result<Action>> + Send;

    /// The object is being deleted and carries [`Self::FINALIZER`], which goes when this answers [`Action::Done`].
    fn cleanup(&self, _object: Arc<Self::Object>, _cx: Cx) -> impl Future<Output = Result<Action>> + Send {
        async { Ok(Action::Done) }
    }

    /// The object is gone, whether or not its end was seen.
    fn deleted(&self, _key: Key, _cx: Cx) -> impl Future<Output = Result<Action>> + Send {
        async { Ok(Action::Done) }
    }
}

/// A reconciler from a closure.
pub fn reconcile_fn<K, F, Fut>(f: F) -> ReconcileFn<K, F>
where
    K: Resource,
    F: Fn(Arc<K>, Cx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action>> + Send,
{
    ReconcileFn { f, _type: std::marker::PhantomData }
}

/// See [`reconcile_fn`].
pub struct ReconcileFn<K, F> {
    f: F,
    _type: std::marker::PhantomData<fn(K)>,
}

impl<K, F> fmt::Debug for ReconcileFn<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReconcileFn")
    }
}

impl<K, F, Fut> Reconciler for ReconcileFn<K, F>
where
    K: Resource,
    F: Fn(Arc<K>, Cx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action>> + Send,
{
    type Object = K;

    fn reconcile(&self, object: Arc<K>, cx: Cx) -> impl Future<Output = Result<Action>> + Send {
        (self.f)(object, cx)
    }
}
