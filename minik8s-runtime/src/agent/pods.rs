//! Which pods the server has bound to this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use minik8s_reconcile::client::Event;
use minik8s_reconcile::request::{ListParams, WatchParams};
use minik8s_reconcile::{ApiError, Client};
use tokio::sync::mpsc::UnboundedSender;

use super::context::Context;

/// The first and the longest pause when the server is away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A watch is renewed after that long, in case that its connection died without a word.
const WATCH_S: u32 = 300;

/// News of the node's pods.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// All that there are, by uid.
    All(BTreeMap<String, Arc<Pod>>),
    /// One came or changed.
    Applied(Arc<Pod>),
    /// One is gone.
    Deleted(Arc<Pod>),
}

/// Follows the node's pods until nobody listens any more.
pub(crate) async fn follow(ctx: Arc<Context>, news: UnboundedSender<News>) {
    let (client, node_name) = (&ctx.client, &ctx.node_name);
    let mut pause = PAUSE.0;
    let mut revision = None;
    while !news.is_closed() {
        let result = match revision {
            None => list(client, node_name, &news).await,
            Some(from) => watch(&ctx, &news, from).await,
        };
        match result {
            Ok(reached) => {
                revision = Some(reached);
                pause = PAUSE.0;
            }
            Err(e) => {
                if e.is_expired() {
                    revision = None;
                } else {
                    tracing::warn!("cannot follow the pods of this node: {e}");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = ctx.returned.follow.notified() => {}
                    () = news.closed() => return,
                }
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

fn selector(node_name: &str) -> String {
    format!("spec.nodeName={node_name}")
}

async fn list(client: &Client, node_name: &str, news: &UnboundedSender<News>) -> Result<u64, ApiError> {
    let api = client.all::<Pod>();
    let mut params = ListParams { limit: 500, ..ListParams::fields(selector(node_name)) };
    let mut all = BTreeMap::new();
    loop {
        let page = api.list(&params).await?;
        for pod in page.items {
            all.insert(pod.metadata.uid.clone().unwrap_or_default(), pod);
        }
        if page.continue_.is_empty() {
            let _ = news.send(News::All(all));
            return Ok(page.revision);
        }
        params.continue_ = page.continue_;
    }
}

/// Follows changes after `from`; the revision reached when the server ended the watch in good order, or the watch may be
/// one that nothing comes from any more.
async fn watch(ctx: &Context, news: &UnboundedSender<News>, from: u64) -> Result<u64, ApiError> {
    let params = WatchParams {
        field_selector: selector(&ctx.node_name),
        resource_version: Some(from),
        bookmarks: true,
        timeout_s: Some(WATCH_S),
        ..WatchParams::default()
    };
    let mut stream = ctx.client.all::<Pod>().watch(&params).await?;
    let mut reached = from;
    let deadline = tokio::time::sleep(Duration::from_secs(u64::from(WATCH_S) + 30));
    tokio::pin!(deadline);
    loop {
        let event = tokio::select! {
            biased;
            event = stream.next() => event,
            () = &mut deadline => None,
            () = ctx.returned.follow.notified() => None,
            () = news.closed() => None,
        };
        let version = |pod: &Pod| pod.metadata.resource_version.as_ref().and_then(|v| v.parse().ok());
        match event {
            None => return Ok(reached),
            Some(Err(e)) => return Err(e),
            Some(Ok(Event::Applied(pod))) => {
                reached = version(&pod).unwrap_or(reached);
                let _ = news.send(News::Applied(pod));
            }
            Some(Ok(Event::Deleted(pod))) => {
                reached = version(&pod).unwrap_or(reached);
                let _ = news.send(News::Deleted(pod));
            }
            Some(Ok(Event::Bookmark { revision, .. })) => reached = revision,
        }
    }
}
