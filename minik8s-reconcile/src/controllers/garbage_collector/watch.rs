//! Fills the graph from the metadata of all kinds.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use minik8s_api::{Kind, Registry};

use super::graph::{Node, Uid};
use super::{RETRY, Shared};
use crate::client::Client;
use crate::error::ApiError;
use crate::request::{EventType, ListParams, Operation, ResponseBody, WatchParams};
use crate::stored::Stored;

/// Keeps the graph like the server, for ever, whatever kinds come and go.
pub(super) async fn follow_all(client: &Client, shared: &Shared) {
    let mut following = FuturesUnordered::new();
    let mut followed = BTreeSet::new();
    loop {
        let registry = client.registry();
        for kind in wanted(&registry) {
            if followed.insert(kind.stored_resource().into_owned()) {
                following.push(follow(client, kind.clone(), shared));
            }
        }
        tokio::select! {
            Some(ended) = following.next() => {
                followed.remove(&ended);
            }
            () = client.kinds().changed(&registry) => {}
        }
    }
}

/// Nothing owns an event, nor is owned by one, and there are many.
fn wanted(registry: &Registry) -> impl Iterator<Item = &Arc<Kind>> {
    registry.stored().filter(|k| k.kind != "Event")
}

/// Keeps the graph's part of `kind` like the server, until there is no such kind, whose stored resource it gives back.
async fn follow(client: &Client, kind: Arc<Kind>, shared: &Shared) -> String {
    loop {
        match list_and_watch(client, &kind, shared).await {
            // Or no longer in this version.
            Err(error) if error.is_not_found() && kind.custom => {
                shared.update(|graph| graph.forget(&kind));
                return kind.stored_resource().into_owned();
            }
            Err(error) if !error.is_expired() => {
                tracing::debug!(?kind, %error, "watch failed");
                tokio::time::sleep(RETRY).await;
            }
            _ => {}
        }
    }
}

async fn list_and_watch(client: &Client, kind: &Arc<Kind>, shared: &Shared) -> Result<(), ApiError> {
    let list = client.request(kind.clone(), None, Operation::List(ListParams::default()));
    let ResponseBody::List(list) = client.call(list).await?.body else {
        return Err(ApiError::internal("a list is a list"));
    };
    let nodes = list.items.iter().map(|o| node(kind, o)).collect::<Result<Vec<_>, _>>()?;
    shared.update(|graph| {
        let present: BTreeSet<Uid> = nodes.iter().map(|n| n.uid.clone()).collect();
        for uid in graph.of_kind(kind) {
            if !present.contains(&uid) {
                graph.remove(&uid);
            }
        }
        nodes.into_iter().for_each(|n| graph.apply(n));
        graph.listed(kind);
    });
    let mut revision = list.revision;
    loop {
        let params =
            WatchParams { resource_version: Some(revision), bookmarks: true, ..WatchParams::default() };
        let watch = client.request(kind.clone(), None, Operation::Watch(params));
        let ResponseBody::Watch(mut events) = client.call(watch).await?.body else {
            return Err(ApiError::internal("a watch is a watch"));
        };
        while let Some(event) = events.next().await {
            let event = event?;
            revision = revision.max(event.object.revision());
            match event.event {
                EventType::Added | EventType::Modified => {
                    let node = node(kind, &event.object)?;
                    shared.update(|graph| graph.apply(node));
                }
                EventType::Deleted => {
                    let node = node(kind, &event.object)?;
                    shared.update(|graph| graph.remove(&node.uid));
                }
                EventType::Bookmark => {}
            }
        }
    }
}

fn node(kind: &Arc<Kind>, object: &Stored) -> Result<Node, ApiError> {
    let metadata = object.metadata().map_err(ApiError::internal)?;
    Ok(Node::new(kind.clone(), metadata, object.revision()))
}

/// Waits until every kind has been listed once: before that, an unknown owner may just not have been seen.
pub(super) async fn complete(client: &Client, shared: &Shared) {
    loop {
        let wanted = wanted(&client.registry()).count();
        if shared.graph.lock().expect("no writer panics").kinds_listed() >= wanted {
            return;
        }
        shared.changed.notified().await;
    }
}
