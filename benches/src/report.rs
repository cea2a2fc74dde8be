//! Figures of one or two servers side by side.

use std::time::Duration;

/// What a figure is measured in, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds: less is better.
    Ms,
    /// Something a second: more is better.
    PerSecond,
    /// Mebibytes: less is better.
    Mib,
    /// Milliseconds of CPU time a second: less is better.
    MsPerSecond,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Ms if value < 10.0 => format!("{value:.3} ms"),
            Self::Ms => format!("{value:.1} ms"),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Mib => format!("{value:.1} MiB"),
            Self::MsPerSecond => format!("{value:.1} ms/s"),
        }
    }
}

/// The figures of one server, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Figures(Vec<(String, f64, Unit)>);

impl Figures {
    /// Adds a figure.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: Unit) {
        self.0.push((what.into(), value, unit));
    }

    /// Adds a time.
    pub fn time(&mut self, what: impl Into<String>, value: Duration) {
        self.add(what, value.as_secs_f64() * 1000.0, Unit::Ms);
    }

    fn find(&self, what: &str) -> Option<f64> {
        self.0.iter().find(|(name, ..)| name == what).map(|(_, value, _)| *value)
    }
}

/// Prints `ours`, and how many times better they are than the peer's where there is one.
#[allow(clippy::print_stdout)]
pub fn print(ours: &Figures, peer: Option<(&str, &Figures)>) {
    let name = peer.map_or("", |(name, _)| name);
    println!("{:<52} {:>14} {name:>16} {:>8}", "", "minik8s", if peer.is_some() { "better" } else { "" });
    for (what, value, unit) in &ours.0 {
        let theirs = peer.and_then(|(_, figures)| figures.find(what));
        let ratio = theirs.filter(|theirs| *theirs > 0.0 && *value > 0.0).map(|theirs| match unit {
            Unit::PerSecond => value / theirs,
            _ => theirs / value,
        });
        println!(
            "{what:<52} {:>14} {:>16} {:>8}",
            unit.write(*value),
            theirs.map(|t| unit.write(t)).unwrap_or_default(),
            ratio.map(|r| format!("{r:.1}x")).unwrap_or_default(),
        );
    }
}
