//! Percentiles, and lines of a report.

use std::time::Duration;

/// The value below which `percent` of the (non-empty) samples lie.
pub fn percentile(samples: &mut [Duration], percent: f64) -> Duration {
    samples.sort_unstable();
    let rank = (samples.len() as f64 * percent / 100.0).ceil() as usize;
    samples[rank.clamp(1, samples.len()) - 1]
}

/// `0.123 ms`
pub fn ms(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1000.0)
}
