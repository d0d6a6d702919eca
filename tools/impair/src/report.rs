//! What is printed: JSON for programs, short lines for people.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::counters::{Counters, Tally};
use crate::delays::Delays;
use crate::lines::BothCounters;

/// Counters of the sockets, beside those of the lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets {
    /// Clients that have a socket towards the target now.
    pub flows: usize,
    /// Datagrams of clients for whom there was no socket left.
    pub refused: Tally,
    /// Datagrams that landed and could not be sent, or whose client was gone.
    pub unsent: Tally,
}

/// Everything since the beginning, and since the last report.
pub struct Report<'a> {
    /// Since the beginning.
    pub elapsed: Duration,
    /// Since the last report: the window.
    pub since: Duration,
    /// What happened since the beginning.
    pub total: &'a BothCounters,
    /// What happened in the window.
    pub window: &'a BothCounters,
    /// What the sockets did.
    pub sockets: Sockets,
}

impl Report<'_> {
    /// The README lists the fields.
    pub fn json(&self) -> Value {
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "flows": self.sockets.flows,
            "refused": self.sockets.refused,
            "unsent": self.sockets.unsent,
            "total": both(self.total),
            "window": both(self.window),
            "window_seconds": self.since.as_secs_f64(),
        })
    }

    /// One line on what happened since the last report.
    pub fn line(&self) -> String {
        let mut line = format!("{:7.1} s", self.elapsed.as_secs_f64());
        self.directions(&mut line, self.window, self.since);
        line
    }

    /// Three lines on everything.
    pub fn summary(&self) -> String {
        let mut text = format!("in all {:.1} s", self.elapsed.as_secs_f64());
        self.directions(&mut text, self.total, self.elapsed);
        for (name, counters) in [("up", &self.total.up), ("down", &self.total.down)] {
            let Counters {
                offered, delivered, lost, lost_in_bursts, queue_full, memory_full, ..
            } = counters;
            let _infallible = write!(
                text,
                "\n{name:>9}: {} in, {} out; dropped: {} loss, {} burst, {} queue, {} memory; \
                 {} copied, {} held back",
                offered.packets,
                delivered.packets,
                lost.packets,
                lost_in_bursts.packets,
                queue_full.packets,
                memory_full.packets,
                counters.duplicated.packets,
                counters.held_back.packets,
            );
        }
        text
    }

    fn directions(&self, line: &mut String, counters: &BothCounters, during: Duration) {
        let seconds = during.as_secs_f64().max(1e-3);
        for (name, counters) in [("up", &counters.up), ("down", &counters.down)] {
            let [p50, p95, max] = percentiles(&counters.queue_delay);
            let _infallible = write!(
                line,
                " | {name} {:.2} Mbit/s, {:.0} packets/s, dropped {:.1} %, queue {p50:.0}/{p95:.0}/{max:.0} ms",
                counters.delivered.bytes as f64 * 8e-6 / seconds,
                counters.delivered.packets as f64 / seconds,
                counters.all_dropped().packets as f64 * 100.0
                    / counters.offered.packets.max(1) as f64,
            );
        }
        let late =
            percentiles(&counters.up.lateness)[1].max(percentiles(&counters.down.lateness)[1]);
        let _infallible = write!(line, " | late {late:.1} ms");
        if self.sockets.refused.packets + self.sockets.unsent.packets > 0 {
            let (refused, unsent) = (self.sockets.refused.packets, self.sockets.unsent.packets);
            let _infallible = write!(line, " | {refused} refused, {unsent} unsent");
        }
    }
}

fn both(counters: &BothCounters) -> Value {
    json!({ "up": direction(&counters.up), "down": direction(&counters.down) })
}

fn direction(counters: &Counters) -> Value {
    json!({
        "offered": counters.offered,
        "delivered": counters.delivered,
        "dropped": {
            "loss": counters.lost,
            "burst": counters.lost_in_bursts,
            "queue": counters.queue_full,
            "memory": counters.memory_full,
        },
        "duplicated": counters.duplicated,
        "held_back": counters.held_back,
        "queue_delay_ms": delays(&counters.queue_delay),
        "lateness_ms": delays(&counters.lateness),
    })
}

fn delays(delays: &Delays) -> Value {
    let [p50, p95, max] = percentiles(delays);
    json!({ "p50": p50, "p95": p95, "max": max })
}

/// Median, 95th percentile and maximum, ms.
fn percentiles(delays: &Delays) -> [f64; 3] {
    [0.5, 0.95, 1.0].map(|share| delays.percentile(share).as_micros() as f64 / 1e3)
}
