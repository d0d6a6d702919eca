//! What a worker counts, and what is shown while it does.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

/// Longest time that a histogram tells apart: a minute, in nanoseconds.
const LONGEST: u64 = 60 * crate::clock::SECOND;

/// Times in nanoseconds, to three digits.
#[derive(Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1_000, LONGEST, 3);
        Self(histogram.expect("bounds and digits that the library allows"))
    }
}

impl Times {
    /// Takes note of one.
    pub fn note(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time in microseconds that `share` (0 to 1) of all do not exceed; none if there are none.
    pub fn micros(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share) as f64 / 1e3)
    }

    /// The longest in microseconds.
    pub fn max_micros(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.max() as f64 / 1e3)
    }

    fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }
}

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        /// One worker's counters, or the sum of all.
        #[derive(Clone, Default)]
        pub struct Tally { $($(#[$doc])* pub $name: $type,)* }

        impl Tally {
            /// Adds another's.
            pub fn add(&mut self, other: &Self) { $(Add::add(&mut self.$name, &other.$name);)* }
        }
    };
}

impl Tally {
    /// What goes on beyond the mark at which counting begins: how long joining took.
    pub fn since_mark(&self) -> Self {
        Self { first_frame: self.first_frame.clone(), ..Self::default() }
    }
}

trait Add {
    fn add(&mut self, other: &Self);
}

impl Add for u64 {
    fn add(&mut self, other: &Self) {
        *self += other;
    }
}

impl Add for Times {
    fn add(&mut self, other: &Self) {
        Times::add(self, other);
    }
}

tally! {
    /// Media packets sent, without repairs.
    sent: u64,
    /// Their bytes, sealed.
    sent_bytes: u64,
    /// Malformed copies sent.
    spoilt: u64,
    /// Datagrams that the kernel did not take.
    unsent: u64,
    /// Media packets received: copies, repairs and padding too.
    received: u64,
    /// Their bytes, sealed.
    received_bytes: u64,
    /// Reads from sockets that brought media: fewer than packets where the kernel put runs together.
    runs: u64,
    /// Packets that should have come, by number.
    expected: u64,
    /// Different packets that came.
    delivered: u64,
    /// Of the expected, those on transports of peers whose shard did not fail.
    kept_expected: u64,
    /// See `kept_expected`.
    kept_delivered: u64,
    /// Copies of packets.
    copies: u64,
    /// Of the delivered, those that came as retransmission.
    repaired: u64,
    /// Packets of streams that signaling has not told of yet.
    unknown: u64,
    /// Packets opened.
    opened: u64,
    /// Packets that should have opened and did not.
    forged: u64,
    /// What was no RTP, RTCP or STUN.
    strange: u64,
    /// Requests for lost packets sent, counted by packet.
    asked: u64,
    /// Key-frame requests sent.
    pictures_asked: u64,
    /// Transport-wide reports sent.
    feedback: u64,
    /// Receiver and sender reports sent.
    reports: u64,
    /// Key-frame requests received.
    pictures_wanted: u64,
    /// Packets sent again because the server asked.
    resent: u64,
    /// Transport-wide reports received.
    feedback_received: u64,
    /// Consent checks that were answered.
    consents: u64,
    /// Receivers of video that had no whole key frame at the end.
    dark: u64,
    /// Datagrams that our own sockets had no room for.
    overflowed: u64,
    /// CPU time in nanoseconds.
    cpu: u64,
    /// How late frames left.
    lateness: Times,
    /// Added latency of audio.
    audio: Times,
    /// Added latency of video without key frames.
    video: Times,
    /// Added latency of key frames.
    keys: Times,
    /// Added latency of key frames' last packets.
    key_ends: Times,
    /// From the begin of joining to the first whole key frame.
    first_frame: Times,
}

macro_rules! gauges {
    ($($name:ident),*) => {
        /// What a worker shows while it runs.
        #[derive(Default)]
        pub struct Gauges { $(/// See [`Tally`].
            pub $name: AtomicU64,)* }

        impl Gauges {
            /// Shows what was counted.
            pub fn show(&self, tally: &Tally) {
                $(self.$name.store(tally.$name, Ordering::Relaxed);)*
            }
        }

        /// The sum over all workers at a moment.
        #[derive(Clone, Copy, Default)]
        pub struct Reading { $(/// See [`Tally`].
            pub $name: u64,)* }

        impl Reading {
            /// Reads all gauges.
            pub fn of<'a>(all: impl Iterator<Item = &'a Gauges>) -> Self {
                let mut sum = Self::default();
                all.for_each(|gauges| {
                    $(sum.$name += gauges.$name.load(Ordering::Relaxed);)*
                });
                sum
            }

            /// What came since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name)),* }
            }
        }
    };
}

gauges!(sent, sent_bytes, received, received_bytes, runs, asked, repaired, feedback, cpu);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_percentiles() {
        let mut sum = Tally { sent: 3, ..Tally::default() };
        let mut other = Tally { sent: 4, forged: 1, ..Tally::default() };
        (1..=1000).for_each(|micros| other.audio.note(micros * 1000));
        sum.add(&other);
        assert_eq!((sum.sent, sum.forged, sum.audio.count()), (7, 1, 1000));
        let p99 = sum.audio.micros(0.99).expect("values");
        assert!((989.0..=991.0).contains(&p99), "{p99}");
        assert_eq!(sum.video.micros(0.5), None);
        sum.video.note(u64::MAX);
        assert!(sum.video.max_micros().expect("a value") >= 60e6);
    }
}
