//! From single answers to a verdict.

use k8s_openapi::api::core::v1::Probe;

/// What enough equal answers in a row mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Healthy,
    Unhealthy,
}

/// Counts the answers of one probe of one container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter {
    success: u32,
    failure: u32,
    run: u32,
    last: Option<bool>,
}

impl Counter {
    pub(crate) fn of(probe: &Probe) -> Self {
        let threshold = |v: Option<i32>, default| {
            v.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            success: threshold(probe.success_threshold, 1),
            failure: threshold(probe.failure_threshold, 3),
            run: 0,
            last: None,
        }
    }

    /// One more answer: the verdict, once there are enough of them (and for every further one).
    pub(crate) fn count(&mut self, ok: bool) -> Option<Verdict> {
        if self.last == Some(ok) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(ok);
            self.run = 1;
        }
        match ok {
            true => (self.run >= self.success).then_some(Verdict::Healthy),
            false => (self.run >= self.failure).then_some(Verdict::Unhealthy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut c = Counter::of(&probe);
        let verdicts: Vec<_> = [false, false, true, false, false, false, true, true, true]
            .into_iter()
            .map(|ok| c.count(ok))
            .collect();
        use Verdict::{Healthy, Unhealthy};
        assert_eq!(
            verdicts,
            [None, None, None, None, None, Some(Unhealthy), None, Some(Healthy), Some(Healthy)]
        );
    }

    #[test]
    fn defaults_are_one_and_three() {
        let mut c = Counter::of(&Probe::default());
        assert_eq!(c.count(true), Some(Verdict::Healthy));
        assert_eq!([c.count(false), c.count(false), c.count(false)], [None, None, Some(Verdict::Unhealthy)]);
    }
}
