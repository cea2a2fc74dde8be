//! How long to wait before the next attempt.

use jiff::{SignedDuration, Timestamp};

/// The first delay after a crash, and of a failed pull.
pub(crate) const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest delay.
pub(crate) const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts over with its delays.
pub(crate) const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// The restarts of one container: the first is immediate, the next ones wait 10 s, 20 s, … 300 s after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CrashBackoff {
    /// The delay that the next restart has to sit out, and when the last restart was decided.
    last: Option<(SignedDuration, Timestamp)>,
}

impl CrashBackoff {
    /// What an earlier agent left off with: `delay` was due for the attempt after the one started at `since`.
    pub(crate) fn resumed(delay_s: u32, since: Timestamp) -> Self {
        let delay = SignedDuration::from_secs(delay_s.into()).min(LONGEST);
        Self { last: (delay_s > 0).then_some((delay, since)) }
    }

    /// The delay for a container that ended at `finished`; `None` if it may start again at once.
    pub(crate) fn delay(&self, finished: Timestamp) -> Option<SignedDuration> {
        let (delay, since) = self.last?;
        (finished.duration_since(since) < FORGIVEN_AFTER).then_some(delay)
    }

    /// Notes that the container which ended at `finished` is being started again.
    pub(crate) fn restarted(&mut self, finished: Timestamp, now: Timestamp) {
        let next = self.delay(finished).map_or(FIRST, |d| (d * 2).min(LONGEST));
        self.last = Some((next, now));
    }

    /// The delay that the next restart would sit out, in seconds, to be stored with the container.
    pub(crate) fn stored_s(&self) -> u32 {
        self.last.map_or(0, |(delay, _)| u32::try_from(delay.as_secs()).unwrap_or(0))
    }
}

/// Something that failed and is tried again, later each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    first: SignedDuration,
    longest: SignedDuration,
    failed: Option<(SignedDuration, Timestamp)>,
}

impl Retry {
    /// Delays that double from `first` to `longest`.
    pub(crate) const fn new(first: SignedDuration, longest: SignedDuration) -> Self {
        Self { first, longest, failed: None }
    }

    /// The delays of calls to the operating system: 1 s to 10 s.
    pub(crate) const fn call() -> Self {
        Self::new(SignedDuration::from_secs(1), SignedDuration::from_secs(10))
    }

    /// The delays of image pulls: 10 s to 300 s.
    pub(crate) const fn pull() -> Self {
        Self::new(FIRST, LONGEST)
    }

    /// It failed just now.
    pub(crate) fn fail(&mut self, now: Timestamp) {
        let delay = self.failed.map_or(self.first, |(d, _)| (d * 2).min(self.longest));
        self.failed = Some((delay, now));
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failed = None;
    }

    /// When to try again; `None` if nothing failed.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.failed.map(|(delay, at)| at + delay)
    }

    /// When it failed last.
    pub(crate) fn failed_at(&self) -> Option<Timestamp> {
        self.failed.map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + s).unwrap()
    }

    #[test]
    fn crashes_wait_longer_each_time_up_to_five_minutes() {
        let mut backoff = CrashBackoff::default();
        let mut now = 0;
        let mut delays = Vec::new();
        for _ in 0..8 {
            let delay = backoff.delay(at(now)).map_or(0, |d| d.as_secs());
            delays.push(delay);
            now += delay;
            backoff.restarted(at(now - delay), at(now));
            now += 1;
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_are_forgiven() {
        let mut backoff = CrashBackoff::default();
        backoff.restarted(at(0), at(0));
        backoff.restarted(at(1), at(11));
        assert_eq!(backoff.delay(at(610)), Some(SignedDuration::from_secs(20)));
        assert_eq!(backoff.delay(at(611)), None);
        backoff.restarted(at(700), at(700));
        assert_eq!(backoff.stored_s(), 10);
    }

    #[test]
    fn retries_double() {
        let mut retry = Retry::call();
        assert_eq!(retry.due(), None);
        let mut waits = Vec::new();
        for _ in 0..6 {
            retry.fail(at(0));
            waits.push(retry.due().unwrap().duration_since(at(0)).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        retry.reset();
        assert_eq!(retry.due(), None);
    }
}
