//! What time it is.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// Where the agent takes the time from. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// Whatever `now` says.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// A clock that stands at `start` now and goes on as tokio's time does: a test or a simulation that pauses
    /// tokio's time stops this clock too.
    ///
    /// # Panics
    /// Outside a tokio runtime whose time is paused there is no difference to a running clock; a clock that would
    /// pass the year 9999 panics.
    pub fn tokio(start: Timestamp) -> Self {
        let origin = tokio::time::Instant::now();
        Self::new(move || {
            let passed =
                jiff::SignedDuration::try_from(origin.elapsed()).unwrap_or(jiff::SignedDuration::ZERO);
            start + passed
        })
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// How long until `at`; zero if that has passed.
    pub(crate) fn until(&self, at: Timestamp) -> std::time::Duration {
        at.duration_since(self.now()).try_into().unwrap_or(std::time::Duration::ZERO)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
