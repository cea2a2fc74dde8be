//! Lists, then watches, for ever.

use std::time::Duration;

use futures::StreamExt;
use minik8s_api::Resource;
use tokio_util::sync::CancellationToken;

use super::Cache;
use crate::client::{Api, Event};
use crate::error::ApiError;
use crate::queue::Backoff;
use crate::request::{ListParams, WatchParams};

/// Objects a page of the first list.
const PAGE: u32 = 500;
/// Between attempts while the server is away.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(10) };
/// A watch that is silent for longer than this is dead: bookmarks come every minute.
const SILENCE: Duration = Duration::from_secs(150);

/// Keeps `cache` like the server until `stop`.
pub(super) async fn run<K: Resource>(api: Api<K>, cache: Cache<K>, stop: CancellationToken) {
    let follow = async {
        let mut failures = 0;
        // Where to go on; 0 asks for a list.
        let mut revision = 0;
        loop {
            let before = revision;
            let Err(error) = follow(&api, &cache, &mut revision).await else {
                // The server ended the watch in its time.
                failures = 0;
                continue;
            };
            if error.is_expired() {
                revision = 0;
                continue;
            }
            failures = if revision > before { 1 } else { failures + 1 };
            tracing::debug!(kind = %K::kind(&()), %error, failures, "watch failed");
            tokio::time::sleep(BACKOFF.delay(failures)).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = follow => {}
    }
}

/// One list, if needed, and one watch.
async fn follow<K: Resource>(api: &Api<K>, cache: &Cache<K>, revision: &mut u64) -> Result<(), ApiError> {
    if *revision == 0 {
        *revision = list(api, cache).await?;
    }
    let params = WatchParams { resource_version: Some(*revision), bookmarks: true, ..WatchParams::default() };
    let mut events = api.watch(&params).await?;
    loop {
        let event = match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Some(event)) => event?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(ApiError::timeout("the watch has gone silent")),
        };
        match event {
            Event::Applied(object) => {
                *revision = version(&*object).max(*revision);
                cache.apply(object, *revision);
            }
            Event::Deleted(object) => {
                *revision = version(&*object).max(*revision);
                cache.delete(&object, *revision);
            }
            Event::Bookmark { revision: seen, .. } => {
                *revision = seen.max(*revision);
                cache.progress(*revision);
            }
        }
    }
}

async fn list<K: Resource>(api: &Api<K>, cache: &Cache<K>) -> Result<u64, ApiError> {
    let mut params = ListParams { limit: PAGE, ..ListParams::default() };
    let mut objects = Vec::new();
    loop {
        let mut page = api.list(&params).await?;
        objects.append(&mut page.items);
        if page.continue_.is_empty() {
            cache.replace(objects, page.revision);
            return Ok(page.revision);
        }
        params.continue_ = page.continue_;
    }
}

fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
