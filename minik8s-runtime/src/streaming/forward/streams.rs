//! Port-forward over SPDY: for each connection a stream of data and one that says what went wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Sink, Target};
use crate::streaming::spdy::{Output, Stream};

/// The protocol's name.
pub(in crate::streaming) const PROTOCOL: &str = "portforward.k8s.io";
/// How long the second stream of a connection may take to follow the first.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two streams of a connection, as far as they are there.
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
    deadline: Instant,
}

/// Serves the streams of a connection until no more are opened.
pub(in crate::streaming) async fn run(target: Target, mut opened: mpsc::Receiver<Stream>) {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let deadline = pairs.values().map(|p| p.deadline).min();
        let overdue = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let stream = tokio::select! {
            biased;
            Some(_) = forwards.join_next() => continue,
            stream = opened.recv() => match stream {
                Some(stream) => stream,
                None => return,
            },
            () = overdue => {
                let now = Instant::now();
                let late = pairs.iter().find(|(_, p)| p.deadline <= now).map(|(request, _)| request.clone());
                if let Some((request, pair)) = late.and_then(|request| pairs.remove_entry(&request)) {
                    let words = format!("request {request}: timed out waiting for streams");
                    forwards.spawn(refuse(pair.error, words));
                }
                continue;
            }
        };
        let request = request(&stream);
        let fresh = || Pair { data: None, error: None, deadline: Instant::now() + PATIENCE };
        let pair = pairs.entry(request.clone()).or_insert_with(fresh);
        let place = match stream.headers.get("streamType") {
            Some("data") => &mut pair.data,
            Some("error") => &mut pair.error,
            other => {
                tracing::debug!(id = stream.id, kind = ?other, "an unexpected stream was opened");
                continue;
            }
        };
        if place.is_some() {
            tracing::debug!(id = stream.id, request, "a second stream of the same type was opened");
            continue;
        }
        *place = Some(stream);
        if pair.data.is_some()
            && pair.error.is_some()
            && let Some(Pair { data: Some(data), error: Some(error), .. }) = pairs.remove(&request)
        {
            forwards.spawn(forward(target.clone(), data, error));
        }
    }
}

impl Sink for Output {
    async fn send(&self, bytes: Bytes) -> bool {
        self.send(bytes).await
    }
}

/// What the streams of a connection have in common.
fn request(stream: &Stream) -> String {
    match stream.headers.get("requestID") {
        Some(request) if !request.is_empty() => request.to_owned(),
        // Old clients give none, but open the two one after the other, the one for errors first.
        _ if stream.headers.get("streamType") == Some("data") => stream.id.saturating_sub(2).to_string(),
        _ => stream.id.to_string(),
    }
}

async fn forward(target: Target, data: Stream, error: Stream) {
    let port = match super::port(data.headers.get("port").unwrap_or_default()) {
        Ok(port) => port,
        Err(words) => return refuse(Some(error), words).await,
    };
    let reset = data.output.reset();
    let forward = target.forward(port, data.input, &data.output);
    // A client that resets the stream wants nothing of it any more, nor words about it.
    let Some(done) = reset.run_until_cancelled(forward).await else {
        return error.output.finish().await;
    };
    data.output.finish().await;
    match done {
        Ok(()) => error.output.finish().await,
        Err(words) => refuse(Some(error), words).await,
    }
}

async fn refuse(error: Option<Stream>, words: String) {
    tracing::debug!(words, "cannot forward a port");
    if let Some(error) = error {
        error.output.send(words.into()).await;
        error.output.finish().await;
    }
}
