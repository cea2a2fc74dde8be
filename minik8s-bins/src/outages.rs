//! What `minik8s server` does about nodes that are down, as its command line says.

use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use minik8s_reconcile::controllers::{node_lifecycle, pod_garbage_collector};
use minik8s_reconcile::server::admission::TolerationSeconds;

/// When nodes are down, and what becomes of their pods.
#[derive(Clone, Debug, Args)]
pub struct Outages {
    /// How long a node is believed in without a sign of life; longer if its agent has a longer --lease-duration.
    #[arg(long, default_value = "4s", value_parser = duration, value_name = "DURATION", help_heading = "Nodes that are down")]
    pub node_monitor_grace_period: Duration,
    /// The same for nodes that have not given any yet, and for all of them when this server begins.
    #[arg(long, default_value = "15s", value_parser = duration, value_name = "DURATION", help_heading = "Nodes that are down")]
    pub node_startup_grace_period: Duration,
    /// The time between two nodes of a zone whose pods are given up.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION", help_heading = "Nodes that are down")]
    pub node_eviction_interval: Duration,
    /// When so much of a zone is down, and more than two nodes, the pods of no more of its nodes are given up.
    #[arg(long, default_value_t = 55, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Nodes that are down")]
    pub unhealthy_zone_threshold: u8,
    /// How long pods stay on a node that is not ready, where they do not say.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", help_heading = "Nodes that are down")]
    pub default_not_ready_toleration_seconds: u32,
    /// How long pods stay on a node that does not answer, where they do not say.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", help_heading = "Nodes that are down")]
    pub default_unreachable_toleration_seconds: u32,
    /// How many pods that have ended are kept; 0 for all.
    #[arg(long, default_value_t = 12_500, value_name = "COUNT", help_heading = "Nodes that are down")]
    pub terminated_pod_gc_threshold: usize,
}

impl Outages {
    /// For the controller of nodes.
    pub fn node_lifecycle(&self) -> node_lifecycle::Settings {
        let mut settings = node_lifecycle::Settings::default();
        settings.grace = self.node_monitor_grace_period;
        settings.start_grace = self.node_startup_grace_period;
        settings.eviction_interval = self.node_eviction_interval;
        settings.unhealthy_percent = self.unhealthy_zone_threshold.into();
        settings
    }

    /// For new pods.
    pub fn tolerations(&self) -> TolerationSeconds {
        let mut stay = TolerationSeconds::default();
        stay.not_ready = self.default_not_ready_toleration_seconds;
        stay.unreachable = self.default_unreachable_toleration_seconds;
        stay
    }

    /// For the collector of pods.
    pub fn pod_garbage_collector(&self) -> pod_garbage_collector::Settings {
        let mut settings = pod_garbage_collector::Settings::default();
        settings.terminated = self.terminated_pod_gc_threshold;
        settings
    }
}

/// A time such as `4s`, `500ms` or `1m30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text
        .parse::<SignedDuration>()
        .map_err(|e| format!("expected a duration such as 4s or 1m30s: {e}"))?;
    match Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a duration of more than nothing".to_owned()),
    }
}

/// A time of at least a second.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_secs(1) || duration.subsec_nanos() != 0 {
        return Err("expected whole seconds, such as 4s".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_or_explained() {
        assert_eq!(duration("4s"), Ok(Duration::from_secs(4)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("4").expect_err("no unit").contains("expected a duration such as 4s"));
        assert!(duration("0s").is_err() && duration("-1s").is_err());
        assert!(seconds("1500ms").is_err() && seconds("500ms").is_err());
        assert_eq!(seconds("40s"), Ok(Duration::from_secs(40)));
    }
}
