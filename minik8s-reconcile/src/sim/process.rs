//! Programs that are run, killed and run again.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::faults::Line;
use super::history::History;
use crate::client::Client;
use crate::clock::Clock;
use crate::key::Key;
use crate::kinds::Kinds;
use crate::manager::Manager;
use crate::rng::Rng;

/// How long a process that died is away, at most.
const AWAY: Duration = Duration::from_secs(5);

/// What a program under simulation is given when it starts. It must take everything from here, and keep nothing for its next
/// life.
#[derive(Debug)]
#[non_exhaustive]
pub struct Process {
    /// Its way to the server, on which things go wrong.
    pub client: Client,
    /// The time.
    pub clock: Clock,
    /// Chance.
    pub rng: Rng,
    /// Cancelled when it is to end.
    pub stop: CancellationToken,
    history: History,
}

impl Process {
    /// A manager on this process's client, clock and chance. It is a violation if one of its reconcilers panics.
    pub fn manager(&self) -> Manager {
        let history = self.history.clone();
        let on_panic = move |controller: &str, key: &Key| {
            history.violated("reconcilers do not panic", format!("{controller} did, at {key}"));
        };
        Manager::new(self.client.clone()).clock(self.clock.clone()).rng(self.rng.clone()).on_panic(on_panic)
    }
}

/// A program: what is done in each of its lives.
pub(super) type Program = Arc<dyn Fn(Process) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a process lives in.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) program: Program,
    pub(super) line: Line,
    pub(super) kinds: Kinds,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) history: History,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.name)
    }
}

impl Host {
    /// Runs the program until `shutdown`, life after life.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        for life in 0_u64.. {
            let stop = CancellationToken::new();
            let rng = self.rng.child(&format!("life {life}"));
            let process = Process {
                client: Client::new(self.line.clone(), self.kinds.clone()),
                clock: self.clock.clone(),
                rng: rng.child("program"),
                stop: stop.clone(),
                history: self.history.clone(),
            };
            let program = self.program.clone();
            let living = AssertUnwindSafe(async move { program(process).await }).catch_unwind();
            let mut living = tokio::spawn(living);
            tokio::select! {
                biased;
                () = self.line.killed() => {
                    living.abort();
                    let _ = living.await;
                }
                ended = &mut living => {
                    if matches!(ended, Ok(Err(_))) {
                        self.history.violated("programs do not panic", format!("{} panicked", self.name));
                    }
                }
                () = shutdown.cancelled() => {
                    stop.cancel();
                    let _ = living.await;
                    return;
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(AWAY.mul_f64(rng.fraction())) => {}
            }
        }
    }
}
