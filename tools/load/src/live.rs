//! What is shown on a terminal while a run goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::tally::Reading;

/// Steps of the bar.
const STEPS: u64 = 1000;

/// A line on standard error; nothing where that is no terminal.
pub struct Live {
    bar: ProgressBar,
}

/// A moment of measuring.
pub struct View {
    /// How much of the time has gone, 0 to 1.
    pub share: f64,
    /// Seconds since the last view.
    pub seconds: f64,
    /// What the workers did since then.
    pub reading: Reading,
}

impl Live {
    /// A line that shows nothing yet, or never does.
    pub fn new(hidden: bool) -> Self {
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(STEPS) };
        let style = ProgressStyle::with_template("{prefix:>10} {bar:24} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar }
    }

    /// Peers join.
    pub fn joining(&self, joined: u64, of: u64, failed: u64) {
        self.bar.set_prefix("joining");
        self.bar.set_position(joined * STEPS / of.max(1));
        self.bar.set_message(match failed {
            0 => format!("{joined} of {of} peers"),
            _ => format!("{joined} of {of} peers, {failed} failed"),
        });
    }

    /// A run is measured.
    pub fn measuring(&self, view: &View) {
        self.bar.set_prefix("measuring");
        self.bar.set_position((view.share * STEPS as f64) as u64);
        self.bar.set_message(view.line());
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl View {
    fn line(&self) -> String {
        let rate = |count: u64| count as f64 / self.seconds;
        let megabits = |bytes: u64| rate(bytes) * 8.0 / 1e6;
        let Reading { sent, sent_bytes, received, received_bytes, asked, .. } = self.reading;
        format!(
            "out {:.0}/s {:.1} Mbit/s, in {:.0}/s {:.1} Mbit/s, {asked} missed",
            rate(sent),
            megabits(sent_bytes),
            rate(received),
            megabits(received_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second() {
        let reading = Reading {
            sent: 50,
            sent_bytes: 62_500,
            received: 500,
            received_bytes: 625_000,
            ..Reading::default()
        };
        let view = View { share: 0.5, seconds: 0.5, reading };
        assert_eq!(view.line(), "out 100/s 1.0 Mbit/s, in 1000/s 10.0 Mbit/s, 0 missed");
    }
}
