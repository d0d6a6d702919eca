//! How fast a stream runs: bits, packets and frames per second over a sliding second.

use std::time::{Duration, Instant};

use crate::media::allocation::{Layer, LayerRate};

/// Length of the sliding window.
pub const WINDOW: Duration = Duration::from_millis(BUCKET_MILLIS * BUCKETS as u64);

/// A meter that has just begun divides by at least this much time, so that the packets of one frame,
/// which come together, do not count as a flood.
pub const SHORTEST_SPAN: Duration = Duration::from_millis(250);

/// Layers that one producer can have per dimension: L3 by T3 is the most that browsers send, and four
/// is what VP8's and H.264's temporal structures can reach.
pub const MAX_LAYERS: usize = 4;

/// A spatial layer without packets for this long is not being sent any more.
pub const SPATIAL_SILENCE: Duration = Duration::from_millis(1250);

/// The same for a temporal layer whose spatial layer still flows: a still screen sends one frame per
/// second, every fourth of which is of the second temporal layer.
pub const TEMPORAL_SILENCE: Duration = Duration::from_secs(5);

const BUCKETS: usize = 8;
const BUCKET_MILLIS: u64 = 125;

/// Counts what passes, in fixed memory. Old counts leave the window in steps of 125 ms.
#[derive(Clone, Debug, Default)]
pub struct RateMeter {
    /// By bucket; side by side, since there are many meters.
    bytes: [u32; BUCKETS],
    packets: [u16; BUCKETS],
    frames: [u8; BUCKETS],
    /// Number of the newest bucket.
    newest: u32,
    /// When the newest event was, and how long after the beginning of bucket 0: that is the first event since the meter
    /// began or was last empty.
    last: Option<Instant>,
    age_ns: u64,
}

// Every consumer has one, every transport ten.
const _: () = assert!(size_of::<RateMeter>() <= 88);

impl RateMeter {
    /// Counts one packet of `bytes`.
    pub fn add(&mut self, bytes: usize, now: Instant) {
        let bucket = self.bucket(now);
        let bytes = bytes.min(u32::MAX as usize) as u32;
        self.bytes[bucket] = self.bytes[bucket].saturating_add(bytes);
        self.packets[bucket] = self.packets[bucket].saturating_add(1);
    }

    /// Counts one frame, for instance at its last packet; at most 2,040 per second.
    pub fn frame(&mut self, now: Instant) {
        let bucket = self.bucket(now);
        self.frames[bucket] = self.frames[bucket].saturating_add(1);
    }

    /// Bit/s over the window that ends at `now`; 0 once nothing has come for a whole window.
    pub fn bits_per_second(&self, now: Instant) -> u64 {
        8 * self.per_second(now, |bucket| self.bytes[bucket].into())
    }

    /// Packets per second over the window that ends at `now`.
    pub fn packets_per_second(&self, now: Instant) -> u64 {
        self.per_second(now, |bucket| self.packets[bucket].into())
    }

    /// Frames per second over the window that ends at `now`.
    pub fn frames_per_second(&self, now: Instant) -> u64 {
        self.per_second(now, |bucket| self.frames[bucket].into())
    }

    /// When something was counted last.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Whether a packet came within `silence` before `now`.
    pub fn is_active(&self, now: Instant, silence: Duration) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) < silence)
    }

    fn per_second(&self, now: Instant, count: impl Fn(usize) -> u64) -> u64 {
        let Some(elapsed) = self.elapsed(now) else { return 0 };
        let current = number(elapsed).max(self.newest);
        let oldest = (current + 1).saturating_sub(BUCKETS as u32);
        let sum: u64 = (oldest..=self.newest).map(|n| count(index(n))).sum();
        // The window begins with its oldest bucket, or with the meter.
        let before = Duration::from_millis(u64::from(oldest) * BUCKET_MILLIS);
        let span = elapsed.saturating_sub(before).max(SHORTEST_SPAN);
        let micros = span.as_micros() as u64;
        (sum * 1_000_000 + micros / 2) / micros
    }

    /// The bucket for `now`. An event that is older than the newest one counts with it.
    fn bucket(&mut self, now: Instant) -> usize {
        // The packets of a drain share one moment: for all but the first there is nothing to work out.
        if self.last == Some(now) {
            return index(self.newest);
        }
        let elapsed = self.elapsed(now).unwrap_or_default();
        let current = number(elapsed);
        if self.last.is_none() || current >= self.newest + BUCKETS as u32 {
            *self = Self { last: Some(now), ..Self::default() };
            return 0;
        }
        while self.newest < current {
            self.newest += 1;
            let bucket = index(self.newest);
            (self.bytes[bucket], self.packets[bucket], self.frames[bucket]) = (0, 0, 0);
        }
        if self.last < Some(now) {
            (self.last, self.age_ns) = (Some(now), elapsed.as_nanos() as u64);
        }
        index(self.newest)
    }

    /// Time since bucket 0 began, if anything has come.
    fn elapsed(&self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last?);
        Some(Duration::from_nanos(self.age_ns) + since)
    }
}

/// How a producer's layers build on each other, which decides what forwarding one of them costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacking {
    /// Each spatial layer is a stream of its own (simulcast): a layer needs only the temporal layers
    /// below it.
    Simulcast,
    /// A spatial layer needs those below it too (SVC).
    Svc,
}

/// A producer's layers, metered one by one: the input of [`crate::media::allocation`].
#[derive(Clone, Debug)]
pub struct LayerMeters {
    stacking: Stacking,
    temporal: usize,
    meters: Vec<RateMeter>,
}

impl LayerMeters {
    /// Meters for `spatial` times `temporal` layers, each at least 1 and at most [`MAX_LAYERS`].
    pub fn new(stacking: Stacking, spatial: usize, temporal: usize) -> Self {
        let (spatial, temporal) = (spatial.clamp(1, MAX_LAYERS), temporal.clamp(1, MAX_LAYERS));
        Self { stacking, temporal, meters: vec![RateMeter::default(); spatial * temporal] }
    }

    /// Counts a packet of `bytes` that belongs to `layer`. Layers beyond those announced count as the
    /// highest: what a descriptor claims cannot grow the table.
    pub fn add(&mut self, layer: Layer, bytes: usize, now: Instant) {
        let spatial = usize::from(layer.spatial).min(self.meters.len() / self.temporal - 1);
        let temporal = usize::from(layer.temporal).min(self.temporal - 1);
        self.meters[spatial * self.temporal + temporal].add(bytes, now);
    }

    /// What it costs to forward each layer together with those it needs, lowest layer first: at least 1
    /// while the layer is being sent, however still the picture, and 0 if it is not.
    pub fn rates(&self, now: Instant) -> impl Iterator<Item = LayerRate> + '_ {
        (0..self.meters.len()).map(move |i| {
            let (s, t) = (i / self.temporal, i % self.temporal);
            let lowest = if self.stacking == Stacking::Svc { 0 } else { s };
            let needed = (lowest..=s).flat_map(|s| &self.spatial_layer(s)[..=t]);
            let cost: u64 = needed.map(|meter| meter.bits_per_second(now)).sum();
            let bits_per_second = if self.is_sent(s, t, now) { cost.max(1) } else { 0 };
            LayerRate { spatial: s as u8, temporal: t as u8, bits_per_second }
        })
    }

    fn is_sent(&self, spatial: usize, temporal: usize, now: Instant) -> bool {
        let meters = self.spatial_layer(spatial);
        meters.iter().any(|meter| meter.is_active(now, SPATIAL_SILENCE))
            && meters[temporal].is_active(now, TEMPORAL_SILENCE)
    }

    /// The meters of one spatial layer, by temporal layer.
    fn spatial_layer(&self, spatial: usize) -> &[RateMeter] {
        &self.meters[spatial * self.temporal..][..self.temporal]
    }
}

fn number(elapsed: Duration) -> u32 {
    (elapsed.as_millis() as u64 / BUCKET_MILLIS) as u32
}

fn index(number: u32) -> usize {
    number as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_steady_stream_is_measured_exactly_from_its_first_quarter_second() {
        let (start, mut meter) = (Instant::now(), RateMeter::default());
        for i in 0..500 {
            meter.add(1250, at(start, i * 10));
            if i * 10 >= 250 {
                let rate = meter.bits_per_second(at(start, i * 10 + 9));
                assert!((970_000..=1_040_000).contains(&rate), "{rate} bit/s at {} ms", i * 10);
            }
        }
        assert!((99..=101).contains(&meter.packets_per_second(at(start, 4999))));
    }

    #[test]
    fn a_stream_that_stops_reaches_zero_within_the_window() {
        let (start, mut meter) = (Instant::now(), RateMeter::default());
        (0..200).for_each(|i| meter.add(1000, at(start, i * 10)));
        let rates: Vec<u64> =
            (0..=10).map(|i| meter.bits_per_second(at(start, 1990 + i * 125))).collect();
        assert!(rates.is_sorted_by(|a, b| a >= b), "falls only: {rates:?}");
        assert_eq!(meter.bits_per_second(at(start, 1990) + WINDOW), 0);
    }

    #[test]
    fn a_stream_that_begins_again_is_not_diluted_by_its_silence() {
        let (start, mut meter) = (Instant::now(), RateMeter::default());
        meter.add(1000, start);
        (0..50).for_each(|i| meter.add(1250, at(start, 60_000 + i * 10)));
        let rate = meter.bits_per_second(at(start, 60_499));
        assert!((970_000..=1_040_000).contains(&rate), "{rate} bit/s");
    }

    #[test]
    fn the_packets_of_a_first_frame_do_not_count_as_a_flood() {
        let (start, mut meter) = (Instant::now(), RateMeter::default());
        (0..10).for_each(|_| meter.add(1000, start));
        assert_eq!(meter.bits_per_second(start), 10_000 * 8 * 4, "as if in 250 ms");
    }

    #[test]
    fn frames_are_counted_beside_packets() {
        let (start, mut meter) = (Instant::now(), RateMeter::default());
        for i in 0..90 {
            (0..3).for_each(|_| meter.add(1000, at(start, i * 33)));
            meter.frame(at(start, i * 33));
        }
        let rate = meter.frames_per_second(at(start, 89 * 33));
        assert!((29..=32).contains(&rate), "{rate} frames/s");
    }

    #[test]
    fn a_layer_costs_what_it_needs() {
        let now = Instant::now();
        let layers = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let costs = |stacking| -> Vec<u64> {
            let mut meters = LayerMeters::new(stacking, 2, 2);
            for (spatial, temporal) in layers {
                meters.add(Layer { spatial, temporal }, 1000, now);
            }
            meters.rates(now).map(|rate| rate.bits_per_second / 32_000).collect()
        };
        assert_eq!(costs(Stacking::Simulcast), [1, 2, 1, 2]);
        assert_eq!(costs(Stacking::Svc), [1, 2, 2, 4]);
    }

    #[test]
    fn a_layer_that_is_not_sent_costs_nothing_and_lying_layer_numbers_stay_in_the_table() {
        let now = Instant::now();
        let mut meters = LayerMeters::new(Stacking::Simulcast, 3, 1);
        meters.add(Layer { spatial: 0, temporal: 0 }, 1000, now);
        meters.add(Layer { spatial: 255, temporal: 255 }, 1000, now);
        let rates: Vec<u64> = meters.rates(now).map(|rate| rate.bits_per_second).collect();
        assert_eq!(rates, [32_000, 0, 32_000]);
    }

    #[test]
    fn a_still_screen_keeps_its_layers_and_a_stopped_one_loses_them() {
        let (start, mut meters) = (Instant::now(), LayerMeters::new(Stacking::Simulcast, 1, 3));
        let sent = |meters: &LayerMeters, millis| -> Vec<bool> {
            meters.rates(at(start, millis)).map(|rate| rate.bits_per_second > 0).collect()
        };
        // One frame per second in the usual pattern of three temporal layers.
        for (second, temporal) in [0, 2, 1, 2].into_iter().cycle().take(20).enumerate() {
            meters.add(Layer { spatial: 0, temporal }, 500, at(start, second as u64 * 1000));
            if second > 2 {
                assert_eq!(sent(&meters, second as u64 * 1000 + 999), [true; 3], "at {second} s");
            }
        }
        assert_eq!(sent(&meters, 19_000 + 1500), [false; 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the times, also backwards: no panic, and no rate above all bytes in the shortest span.
        #[test]
        fn any_times_are_survived(events in proptest::collection::vec((0u64..5000, 0usize..70_000), 1..200)) {
            let (start, mut meter, mut total) = (Instant::now(), RateMeter::default(), 0u64);
            for (millis, bytes) in events {
                meter.add(bytes, at(start, millis));
                total += bytes as u64;
                prop_assert!(meter.bits_per_second(at(start, millis)) <= total * 8 * 4 + 8);
            }
        }
    }
}
