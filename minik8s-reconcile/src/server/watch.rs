//! Following what happens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use minik8s_api::Kind;
use serde_json::json;
use tokio::time::{Instant, Sleep};

use super::ApiServer;
use super::key::Scope;
use super::read::Filter;
use crate::error::ApiError;
use crate::request::{ApiResponse, EventType, ResponseBody, WatchEvent, WatchParams, WatchStream};
use crate::storage::{Change, Query, Subscription};
use crate::stored::Stored;

/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

impl ApiServer {
    pub(super) async fn watch(&self, scope: &Scope, params: WatchParams) -> Result<ApiResponse, ApiError> {
        let filter = Filter::parse(&scope.kind, &params.label_selector, &params.field_selector)?;
        let mut ready = VecDeque::new();
        let from_now = params.resource_version.unwrap_or(0) == 0;
        if let Some(revision) = params.resource_version.filter(|_| params.send_initial_events) {
            let current = self.storage.revision().await?;
            if revision > current {
                return Err(crate::storage::StorageError::Future { requested: revision, current }.into());
            }
        }
        let after = if from_now || params.send_initial_events {
            let page = self.storage.list(&Query::prefix(scope.prefix())).await?;
            ready.extend(
                page.items
                    .into_iter()
                    .map(|(_, object)| object)
                    .filter(|o| filter.matches(&scope.kind, o))
                    .map(|object| WatchEvent { event: EventType::Added, object, initial_events_end: false }),
            );
            if params.send_initial_events && params.bookmarks {
                ready.push_back(bookmark(&scope.kind, page.revision, true));
            }
            page.revision
        } else {
            params.resource_version.unwrap_or(0)
        };
        let subscription = self.storage.watch(&scope.prefix(), after).await?;
        let now = Instant::now();
        let next_bookmark = params.bookmarks.then(|| now + BOOKMARK_PERIOD);
        let deadline = params.timeout_s.map(|s| now + Duration::from_secs(s.into()));
        let watcher = Watcher {
            kind: scope.kind.clone(),
            filter,
            subscription,
            ready,
            next_bookmark,
            deadline,
            timer: earliest(next_bookmark, deadline).map(|at| Box::pin(tokio::time::sleep_until(at))),
            over: false,
        };
        let stream = futures::stream::unfold(watcher, |mut watcher| async {
            let event = watcher.next().await?;
            Some((event, watcher))
        });
        Ok(ResponseBody::Watch(WatchStream::new(stream)).into())
    }
}

struct Watcher {
    kind: Arc<Kind>,
    filter: Filter,
    subscription: Box<dyn Subscription>,
    /// Events that wait to be taken.
    ready: VecDeque<WatchEvent>,
    next_bookmark: Option<Instant>,
    deadline: Option<Instant>,
    /// Set to the earlier of these two. Kept from event to event: to set a timer costs more than to send one.
    timer: Option<Pin<Box<Sleep>>>,
    over: bool,
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            tokio::select! {
                biased;
                changes = self.subscription.next() => match changes {
                    Ok(changes) => {
                        let Self { kind, filter, ready, .. } = self;
                        ready.extend(changes.into_iter().filter_map(|change| event(kind, filter, change)));
                    }
                    Err(e) => {
                        self.over = true;
                        return Some(Err(e.into()));
                    }
                },
                () = elapsed(&mut self.timer) => {
                    let bookmarks = self.next_bookmark.is_some();
                    if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        // The client goes on from here.
                        self.over = true;
                    } else {
                        self.next_bookmark = self.next_bookmark.map(|_| Instant::now() + BOOKMARK_PERIOD);
                        if let (Some(timer), Some(at)) = (&mut self.timer, earliest(self.next_bookmark, self.deadline)) {
                            timer.as_mut().reset(at);
                        }
                    }
                    if bookmarks {
                        return Some(Ok(bookmark(&self.kind, self.subscription.progress(), false)));
                    }
                }
            }
        }
    }
}

/// Waits for the timer; for ever without one.
async fn elapsed(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.as_mut().await,
        None => std::future::pending().await,
    }
}

/// What a change is to someone who sees only what the filter lets through.
fn event(kind: &Kind, filter: &Filter, change: Change) -> Option<WatchEvent> {
    let before = change.previous.as_ref().is_some_and(|p| filter.matches(kind, p));
    let after = !change.removed && filter.matches(kind, &change.value);
    let event = match (before, after) {
        (false, false) => return None,
        (false, true) => EventType::Added,
        (true, true) => EventType::Modified,
        (true, false) => EventType::Deleted,
    };
    Some(WatchEvent { event, object: change.value, initial_events_end: false })
}

fn bookmark(kind: &Kind, revision: u64, initial_events_end: bool) -> WatchEvent {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if initial_events_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let json = json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata });
    let object = Stored::new(json.to_string().into(), revision);
    WatchEvent { event: EventType::Bookmark, object, initial_events_end }
}
