//! Fairness among clients: one that sends much is in its own way, not in others'.
//!
//! Requests are of the *flow* of their user: this process and administrators, each node, each service account, each other
//! user, and all that nobody knows. As long as there is one flow, nothing is held back. As soon as two are in one another's
//! way, each begins a few requests in turn, and what it sends beyond that waits in its own queue; when that is full, it is
//! told to come back later (429, with `Retry-After`). Kubernetes calls this
//! [API Priority and Fairness](https://kubernetes.io/docs/concepts/cluster-administration/flow-control/); here flows have no
//! configuration and do not share queues, as there is one for each.
//!
//! A request is under way until it is answered: a watch, or a stream of logs, no longer than until it has begun.
//!
//! [`Frontend::with_fairness`](crate::http::Frontend::with_fairness) asks before anything of a request but its head is
//! read; [`FairLayer`] does the same in front of any service of [`ApiRequest`](crate::ApiRequest)s.
//!
//! ```
//! use minik8s_reconcile::fairness::Fairness;
//! use minik8s_reconcile::request::User;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let fairness = Fairness::default();
//! let seat = fairness.admit(&User::named("jane", &[])).await.expect("nobody else is here");
//! assert_eq!(fairness.under_way(), 1);
//! drop(seat);
//! assert_eq!(fairness.under_way(), 0);
//! # }
//! ```

mod layer;
mod queue;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;
use tokio::time::Instant;

pub use layer::{Fair, FairLayer};
use queue::{Admission, Queue, Shares, Ticket};

use crate::error::ApiError;
use crate::request::User;

/// Shares a server out among its clients. Cheap to clone; clones share the same server.
#[derive(Clone, Debug)]
pub struct Fairness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// From when times are counted.
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// Whether a task turns the rounds.
    turning: bool,
    refused: u64,
    queued: u64,
}

impl Default for Fairness {
    /// 400 requests at once, as many as Kubernetes has for reading.
    fn default() -> Self {
        Self::new(400)
    }
}

impl Fairness {
    /// At most `seats` requests at once, of which one flow has at most a quarter, and 512 more that wait.
    pub fn new(seats: usize) -> Self {
        let seats = seats.max(1);
        Self::with(Shares { seats, flow_seats: seats.div_ceil(4), flow_queue: 512 })
    }

    fn with(shares: Shares) -> Self {
        let (queue, waiting) = (Queue::new(shares), BTreeMap::new());
        let state = Mutex::new(State { queue, waiting, turning: false, refused: 0, queued: 0 });
        Self(Arc::new(Inner { origin: Instant::now(), state }))
    }

    /// A seat for a request of `user`, when it is its turn. The request is under way until the seat is dropped.
    ///
    /// # Errors
    /// 429, if too many of the user's requests wait already.
    ///
    /// # Cancel safety
    /// Who does not wait any longer gives the place up.
    pub async fn admit(&self, user: &User) -> Result<Seat, ApiError> {
        let (flow, quantum) = flow(user);
        let now_ms = self.0.origin.elapsed().as_millis() as u64;
        let mut wait = {
            let mut state = self.state();
            match state.queue.admit(flow, quantum, now_ms) {
                Admission::Now => return Ok(self.seat(flow)),
                Admission::Full => {
                    state.refused += 1;
                    drop(state);
                    let message = "too many requests of this client wait already, please try again later";
                    return Err(ApiError::too_many_requests(message, 1));
                }
                Admission::Wait(ticket) => {
                    let (call, called) = oneshot::channel();
                    state.waiting.insert(ticket, call);
                    state.queued += 1;
                    self.turn(&mut state);
                    Wait { fairness: self, flow, ticket, called, over: false }
                }
            }
        };
        // Who calls it is this very server.
        let _ = (&mut wait.called).await;
        wait.over = true;
        Ok(self.seat(flow))
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.state().queue.count().0
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.state().queue.count().1
    }

    /// Requests that ever had to wait, and those that were refused.
    pub fn totals(&self) -> (u64, u64) {
        let state = self.state();
        (state.queued, state.refused)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }

    fn seat(&self, flow: &Arc<str>) -> Seat {
        Seat { fairness: self.clone(), flow: flow.clone() }
    }

    /// Has rounds turn while somebody waits for one. A round is over when everything that is ready has had its go.
    fn turn(&self, state: &mut State) {
        if state.turning || !state.queue.wants_round() {
            return;
        }
        state.turning = true;
        let fairness = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::task::yield_now().await;
                let mut state = fairness.state();
                let called = state.queue.next_round();
                state.call(called);
                if !state.queue.wants_round() {
                    state.turning = false;
                    return;
                }
            }
        });
    }
}

impl State {
    fn call(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            if let Some(call) = self.waiting.remove(&ticket) {
                // Who left has given the ticket back, and is not called.
                let _ = call.send(());
            }
        }
    }
}

/// A place among the requests under way. Gives it back when dropped.
#[derive(Debug)]
#[must_use = "the request is under way as long as this lives"]
pub struct Seat {
    fairness: Fairness,
    flow: Arc<str>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.fairness.release(&self.flow);
    }
}

impl Fairness {
    fn release(&self, flow: &str) {
        let mut state = self.state();
        let called = state.queue.release(flow);
        if !called.is_empty() {
            state.call(called);
        }
        self.turn(&mut state);
    }
}

/// Somebody who waits.
struct Wait<'a> {
    fairness: &'a Fairness,
    flow: &'a Arc<str>,
    ticket: Ticket,
    called: oneshot::Receiver<()>,
    over: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut state = self.fairness.state();
        state.waiting.remove(&self.ticket);
        if !state.queue.leave(self.flow, self.ticket) {
            // Called, and gone all the same.
            drop(state);
            self.fairness.release(self.flow);
        }
    }
}

/// The flow that the user's requests are of, and how many of it begin in a round.
fn flow(user: &User) -> (&Arc<str>, u32) {
    let is_in = |group: &str| user.groups.iter().any(|g| g == group);
    let quantum = if user.is_anonymous() {
        1
    } else if is_in("system:masters") || is_in("system:nodes") {
        8
    } else {
        4
    };
    (&user.name, quantum)
}

#[cfg(test)]
mod tests;
