//! Following what happens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use minik8s_api::{Kind, Registry};
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
            let stored: Vec<_> = page.items.into_iter().map(|(_, stored)| stored).collect();
            ready.extend(
                self.all_served(&scope.kind, &stored)
                    .await?
                    .into_iter()
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
        let registry = self.kinds.current();
        let subscription = self.storage.watch(&scope.prefix(), after).await?;
        let now = Instant::now();
        let next_bookmark = params.bookmarks.then(|| now + BOOKMARK_PERIOD);
        let deadline = params.timeout_s.map(|s| now + Duration::from_secs(s.into()));
        let watcher = Watcher {
            server: self.clone(),
            kind: scope.kind.clone(),
            registry,
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
    server: ApiServer,
    kind: Arc<Kind>,
    /// The kinds when `kind` was found among them.
    registry: Arc<Registry>,
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
                        let Self { server, kind, filter, ready, .. } = self;
                        match events(server, kind, filter, changes).await {
                            Ok(events) => ready.extend(events),
                            Err(e) => {
                                self.over = true;
                                return Some(Err(e));
                            }
                        }
                    }
                    Err(e) => {
                        self.over = true;
                        return Some(Err(e.into()));
                    }
                },
                () = self.server.kinds.changed(&self.registry), if self.kind.custom => {
                    self.registry = self.server.kinds.current();
                    // Another definition means another form of the objects: the client begins anew.
                    self.over = !self.registry.same(&self.kind).is_some_and(|k| Arc::ptr_eq(k, &self.kind));
                }
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

/// What changes are to someone who sees only what the filter lets through.
async fn events(
    server: &ApiServer,
    kind: &Arc<Kind>,
    filter: &Filter,
    changes: Vec<Change>,
) -> Result<Vec<WatchEvent>, ApiError> {
    let values: Vec<Stored> = changes.iter().map(|c| c.value.clone()).collect();
    let values = server.all_served(kind, &values).await?;
    let before: Vec<bool> = if filter.is_everything() {
        changes.iter().map(|c| c.previous.is_some()).collect()
    } else {
        let previous: Vec<Stored> = changes.iter().filter_map(|c| c.previous.clone()).collect();
        let mut served = server.all_served(kind, &previous).await?.into_iter();
        let mut passed = |c: &Change| {
            c.previous.is_some() && served.next().is_some_and(|previous| filter.matches(kind, &previous))
        };
        changes.iter().map(&mut passed).collect()
    };
    let all = changes.iter().zip(values).zip(before);
    Ok(all
        .filter_map(|((change, object), before)| event(kind, filter, change.removed, object, before))
        .collect())
}

fn event(kind: &Kind, filter: &Filter, removed: bool, object: Stored, before: bool) -> Option<WatchEvent> {
    let after = !removed && filter.matches(kind, &object);
    let event = match (before, after) {
        (false, false) => return None,
        (false, true) => EventType::Added,
        (true, true) => EventType::Modified,
        (true, false) => EventType::Deleted,
    };
    Some(WatchEvent { event, object, initial_events_end: false })
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
