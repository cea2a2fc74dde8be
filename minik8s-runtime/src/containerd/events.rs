//! One subscription to containerd, shared by all who follow: notes how containers ended, then tells.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_client::events::TaskExit;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use futures::future::{Either, select};
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Inner;
use super::record::Record;
use super::rpc::unique;
use super::task::timestamp;
use crate::runtime::ContainerEvent;

/// The topic of the message by which we know that our own subscription is alive: containerd says nothing until the
/// first event comes, so we send it one.
const MARK_TOPIC: &str = "/minik8s/subscribed";
const EXIT_TOPIC: &str = "/tasks/exit";

/// How often the mark is sent until it comes back.
const MARK_EVERY: Duration = Duration::from_millis(50);

/// How long to wait before subscribing again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Those who follow.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: bool,
    followers: Vec<mpsc::UnboundedSender<ContainerEvent>>,
}

impl Hub {
    /// Follows from now on. The first event is a [`ContainerEvent::Resync`], as soon as nothing can be missed any more.
    pub(super) fn follow(&self) -> mpsc::UnboundedReceiver<ContainerEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.live {
            // The receiver is right here.
            let _ = sender.send(ContainerEvent::Resync);
        }
        state.followers.push(sender);
        receiver
    }

    fn tell(&self, event: &ContainerEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.followers.retain(|follower| follower.send(event.clone()).is_ok());
    }

    /// Nothing is missed from now on, or something may be.
    fn set_live(&self, live: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.live = live;
        if live {
            state.followers.retain(|follower| follower.send(ContainerEvent::Resync).is_ok());
        }
    }
}

/// Keeps the subscription up for ever.
pub(super) async fn watch(inner: Arc<Inner>) {
    let mut delay = RETRY.0;
    loop {
        let ended = match subscribe(&inner).await {
            Ok(stream) => {
                delay = RETRY.0;
                // What ended while nobody watched, before anybody is told to look.
                if let Err(error) = inner.settle_stopped().await {
                    tracing::warn!(%error, "stopped containers could not be listed");
                }
                inner.hub.set_live(true);
                let ended = follow(&inner, stream).await;
                inner.hub.set_live(false);
                ended
            }
            Err(status) => status,
        };
        tracing::warn!(status = %ended.message(), "the events of containerd were interrupted");
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

/// Subscribes, and returns when the subscription is known to be alive.
async fn subscribe(inner: &Inner) -> Result<Streaming<Envelope>, Status> {
    let mark = unique("mark");
    let namespace = &inner.config.namespace;
    let filters =
        [EXIT_TOPIC, MARK_TOPIC].map(|topic| format!("namespace=={namespace},topic==\"{topic}\"")).to_vec();
    let mut client = inner.rpc.events();
    let subscription = std::pin::pin!(async {
        let mut stream = client.subscribe(SubscribeRequest { filters }).await?.into_inner();
        loop {
            match stream.message().await? {
                Some(event) if is_mark(&event, &mark) => return Ok(stream),
                // An exit before the mark is found by the look at the tasks that follows.
                Some(_) => {}
                None => return Err(Status::unavailable("the stream of events ended")),
            }
        }
    });
    let marks = std::pin::pin!(async {
        loop {
            let value = mark.clone().into_bytes();
            let event = Any { type_url: "minik8s.io/mark".to_owned(), value };
            let request = PublishRequest { topic: MARK_TOPIC.to_owned(), event: Some(event) };
            if let Err(status) = inner.rpc.events().publish(request).await {
                return status;
            }
            tokio::time::sleep(MARK_EVERY).await;
        }
    });
    match select(subscription, marks).await {
        Either::Left((stream, _)) => stream,
        Either::Right((status, _)) => Err(status),
    }
}

fn is_mark(event: &Envelope, mark: &str) -> bool {
    event.topic == MARK_TOPIC && event.event.as_ref().is_some_and(|any| any.value == mark.as_bytes())
}

/// Deals with events until the stream ends; says why it did.
async fn follow(inner: &Arc<Inner>, mut stream: Streaming<Envelope>) -> Status {
    loop {
        let event = match stream.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Status::unavailable("the stream of events ended"),
            Err(status) => return status,
        };
        let Some(any) = event.event.filter(|_| event.topic == EXIT_TOPIC) else {
            continue;
        };
        match TaskExit::decode(any.value.as_slice()) {
            // An exec has its own id, its container's process that of the container.
            Ok(exit) if exit.id == exit.container_id => {
                // One that is slow to clean up must not hold up the others.
                tokio::spawn(ended(inner.clone(), exit));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "an exit event could not be read"),
        }
    }
}

/// One container's process has ended.
async fn ended(inner: Arc<Inner>, event: TaskExit) {
    let id = &event.container_id;
    let record: Option<Record> = match inner.record(id).await {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(container = %id, %error, "the end of a container could not be noted");
            return inner.hub.tell(&ContainerEvent::Resync);
        }
    };
    // Not ours, or removed meanwhile.
    let Some(record) = record else { return };
    let exit = inner.settle(&record, event.exit_status.cast_signed(), timestamp(event.exited_at)).await;
    inner.hub.tell(&ContainerEvent::Exited { id: id.clone(), exit });
}
