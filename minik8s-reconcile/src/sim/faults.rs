//! What goes wrong between a process and the server.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::Service;

use super::gate::{Answer, Gate};
use crate::error::ApiError;
use crate::request::{ApiRequest, ApiResponse, Operation, ResponseBody, WatchStream};
use crate::rng::Rng;

/// What goes wrong, and how often: probabilities from 0 to 1, and mean times between faults. [`Default`] is a bad day.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// A request does not arrive. Whoever asked is told that the server cannot be reached.
    pub lost_request: f64,
    /// A request is carried out, and its answer is lost.
    pub lost_answer: f64,
    /// A request is refused with 429, 500, 503 or 504.
    pub refused: f64,
    /// A request, or its answer, is late by up to [`Self::lateness`]. A late request is carried out even if whoever
    /// sent it has died meanwhile.
    pub late: f64,
    /// How late, at most.
    pub lateness: Duration,
    /// A process dies before a request of its is sent, or after it was carried out.
    pub crash: f64,
    /// An event of a watch, and all that follow, is late by up to [`Self::lateness`].
    pub stale: f64,
    /// A watch is cut instead of giving an event.
    pub cut: f64,
    /// Between two deaths of a process at any moment, for each.
    pub process_killed: Option<Duration>,
    /// Between two times in which a process stands still: nothing that it asked for comes back for up to ten times
    /// [`Self::lateness`].
    pub process_frozen: Option<Duration>,
    /// Between two restarts of the server.
    pub server_restarted: Option<Duration>,
    /// Between two times at which the history is forgotten.
    pub compacted: Option<Duration>,
    /// Between two times at which a node is cut off, or loses its power, for a while.
    pub node_lost: Option<Duration>,
    /// Between two times at which a pod fails.
    pub pod_failed: Option<Duration>,
    /// Between two times at which somebody deletes a pod.
    pub pod_deleted: Option<Duration>,
}

impl Default for Faults {
    fn default() -> Self {
        let every = |s| Some(Duration::from_secs(s));
        Self {
            lost_request: 0.01,
            lost_answer: 0.02,
            refused: 0.01,
            late: 0.1,
            lateness: Duration::from_secs(2),
            crash: 0.003,
            stale: 0.05,
            cut: 0.01,
            process_killed: every(60),
            process_frozen: every(60),
            server_restarted: every(90),
            compacted: every(45),
            node_lost: every(60),
            pod_failed: every(30),
            pod_deleted: every(30),
        }
    }
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            lost_request: 0.0,
            lost_answer: 0.0,
            refused: 0.0,
            late: 0.0,
            lateness: Duration::ZERO,
            crash: 0.0,
            stale: 0.0,
            cut: 0.0,
            process_killed: None,
            process_frozen: None,
            server_restarted: None,
            compacted: None,
            node_lost: None,
            pod_failed: None,
            pod_deleted: None,
        }
    }
}

/// Whether faults happen at present, and how many have. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Weather(Arc<(AtomicBool, AtomicU64)>);

impl Weather {
    pub(super) fn set(&self, bad: bool) {
        self.0.0.store(bad, Ordering::Relaxed);
    }

    pub(super) fn is_bad(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// One more fault.
    pub(super) fn strike(&self) {
        self.0.1.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn strikes(&self) -> u64 {
        self.0.1.load(Ordering::Relaxed)
    }
}

/// What stands between one process and the server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Line(Arc<Inner>);

struct Inner {
    gate: Gate,
    faults: Faults,
    weather: Weather,
    rng: Rng,
    /// Tells that the process is to die.
    killed: Notify,
    thawed_at: Mutex<Option<Instant>>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

/// What becomes of a request.
enum Fate {
    Pass,
    NeverArrives,
    AnswerLost,
    Refused(u16),
    Late(Duration, Duration),
    DiesBefore,
    DiesAfter,
}

impl Line {
    pub(super) fn new(gate: Gate, faults: Faults, weather: Weather, rng: Rng) -> Self {
        let (killed, thawed_at) = (Notify::new(), Mutex::default());
        Self(Arc::new(Inner { gate, faults, weather, rng, killed, thawed_at }))
    }

    /// Has the process die.
    pub(super) fn kill(&self) {
        self.0.weather.strike();
        self.0.killed.notify_one();
    }

    /// Waits until the process is to die.
    pub(super) async fn killed(&self) {
        self.0.killed.notified().await;
    }

    /// Nothing comes back for that long.
    pub(super) fn freeze(&self, length: Duration) {
        self.0.weather.strike();
        *self.0.thawed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + length);
    }

    async fn thawed(&self) {
        let until = *self.0.thawed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until.filter(|_| self.0.weather.is_bad()) {
            tokio::time::sleep_until(until).await;
        }
    }

    fn lateness(&self) -> Duration {
        self.0.faults.lateness.mul_f64(self.0.rng.fraction())
    }

    fn fate(&self, request: &ApiRequest) -> Fate {
        let Inner { faults, weather, rng, .. } = &*self.0;
        if !weather.is_bad() {
            return Fate::Pass;
        }
        let mut drawn = rng.fraction();
        let mut falls_on = |share: f64| {
            let fell = drawn < share;
            drawn -= share;
            fell
        };
        let writes = !matches!(request.operation, Operation::Get | Operation::List(_) | Operation::Watch(_));
        let fate = if falls_on(faults.lost_request) {
            Fate::NeverArrives
        } else if falls_on(faults.lost_answer) {
            Fate::AnswerLost
        } else if falls_on(faults.refused) {
            Fate::Refused([429, 500, 503, 504][usize::try_from(rng.below(4)).unwrap_or(0)])
        } else if falls_on(faults.late) {
            let late = self.lateness();
            if rng.below(2) == 0 {
                Fate::Late(late, Duration::ZERO)
            } else {
                Fate::Late(Duration::ZERO, late)
            }
        } else if writes && falls_on(faults.crash) {
            if rng.below(2) == 0 { Fate::DiesBefore } else { Fate::DiesAfter }
        } else {
            return Fate::Pass;
        };
        weather.strike();
        fate
    }

    async fn send(self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let unreachable = || ApiError::unavailable("the server cannot be reached");
        let fate = self.fate(&request);
        let response = match fate {
            Fate::Pass => self.0.gate.ask(request).await,
            Fate::NeverArrives => {
                tokio::time::sleep(self.lateness()).await;
                return Err(unreachable());
            }
            Fate::AnswerLost => {
                drop(self.0.gate.ask(request).await);
                tokio::time::sleep(self.lateness()).await;
                return Err(unreachable());
            }
            Fate::Refused(429) => return Err(ApiError::too_many_requests("too many requests", 1)),
            Fate::Refused(code) => return Err(ApiError::new(code, "ServerTimeout", "simulated")),
            Fate::Late(before, after) => {
                let gate = self.0.gate.clone();
                // It is on its way, whatever becomes of the process.
                let sent = tokio::spawn(async move {
                    tokio::time::sleep(before).await;
                    gate.ask(request).await
                });
                let answer = sent.await.unwrap_or_else(|_| Err(unreachable()));
                tokio::time::sleep(after).await;
                answer
            }
            Fate::DiesBefore => {
                self.0.killed.notify_one();
                std::future::pending().await
            }
            Fate::DiesAfter => {
                drop(self.0.gate.ask(request).await);
                self.0.killed.notify_one();
                std::future::pending().await
            }
        };
        self.thawed().await;
        response.map(|response| self.troubled(response))
    }

    /// The same answer; if it is a watch, one that is late and gets cut.
    fn troubled(self, response: ApiResponse) -> ApiResponse {
        let ApiResponse { body, warnings, annotations } = response;
        let ResponseBody::Watch(events) = body else { return ApiResponse { body, warnings, annotations } };
        let stream = futures::stream::unfold((self, Some(events)), |(line, events)| async move {
            let mut events = events?;
            let event = events.next().await?;
            line.thawed().await;
            if line.0.weather.is_bad() {
                let drawn = line.0.rng.fraction();
                if drawn < line.0.faults.cut {
                    line.0.weather.strike();
                    let lost = Err(ApiError::unavailable("the connection was lost"));
                    return Some((lost, (line, None)));
                }
                if drawn < line.0.faults.cut + line.0.faults.stale {
                    line.0.weather.strike();
                    tokio::time::sleep(line.lateness()).await;
                }
            }
            Some((event, (line, Some(events))))
        });
        ApiResponse { body: ResponseBody::Watch(WatchStream::new(stream)), warnings, annotations }
    }
}

impl Service<ApiRequest> for Line {
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ApiRequest) -> Answer {
        Box::pin(self.clone().send(request))
    }
}
