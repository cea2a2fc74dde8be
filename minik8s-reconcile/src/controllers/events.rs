//! Forgets events after an hour, as Kubernetes does.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Event;

use crate::controller::Controller;
use crate::cx::Cx;
use crate::queue::Backoff;
use crate::reconciler::{Action, Reconciler, Result, reconcile_fn};
use crate::request::DeleteParams;

/// How long an event is kept after it was last seen.
pub const TTL: Duration = Duration::from_secs(3600);

/// The controller, to be given to a [`crate::Manager`].
pub fn controller() -> Controller<impl Reconciler> {
    Controller::new("event-ttl-controller", reconcile_fn(expire))
        .backoff(Backoff { base: Duration::from_secs(1), max: Duration::from_secs(300) })
}

async fn expire(event: Arc<Event>, cx: Cx) -> Result<Action> {
    let seen = [
        event.last_timestamp.as_ref().map(|t| t.0),
        event.event_time.as_ref().map(|t| t.0),
        event.metadata.creation_timestamp.as_ref().map(|t| t.0),
    ];
    let Some(seen) = seen.into_iter().flatten().max() else { return Ok(Action::Done) };
    let age = cx.now().duration_since(seen).max(SignedDuration::ZERO).unsigned_abs();
    if let Some(left) = TTL.checked_sub(age).filter(|left| !left.is_zero()) {
        return Ok(Action::RequeueAfter(left));
    }
    let meta = &event.metadata;
    let params = DeleteParams { uid: meta.uid.clone(), ..DeleteParams::default() };
    let events = cx.client().namespaced::<Event>(meta.namespace.as_deref().unwrap_or_default());
    match events.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
        _ => Ok(Action::Done),
    }
}
