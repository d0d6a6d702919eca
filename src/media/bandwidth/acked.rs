//! The acknowledged bitrate: what reached the receiver, counted on the receiver's clock.

/// Bins as long as two or three video frames are apart.
const BIN_US: i64 = 50_000;
/// Together one second: what an average over key frames and small frames needs.
const BINS: usize = 20;
/// Less than this says more about single frames than about a rate.
const MIN_SPAN_US: i64 = 200_000;

/// Bytes that arrived lately, by the time of their arrival.
#[derive(Debug, Default)]
pub(super) struct Acked {
    bins: [u32; BINS],
    /// Arrival of the first packet and of the latest one.
    span: Option<(i64, i64)>,
}

impl Acked {
    pub fn arrived(&mut self, arrival_us: i64, size: u16) {
        let (first, latest) = self.span.unwrap_or((arrival_us, arrival_us));
        let behind = bin(latest) - bin(arrival_us);
        if behind >= BINS as i64 {
            return;
        }
        // As many bins as the clock has passed hold nothing yet.
        for skipped in 0..(-behind).clamp(0, BINS as i64) {
            self.bins[slot(bin(arrival_us) - skipped)] = 0;
        }
        let held = &mut self.bins[slot(bin(arrival_us))];
        *held = held.saturating_add(u32::from(size));
        self.span = Some((first, latest.max(arrival_us)));
    }

    /// Bit/s over the last `window_us`, at most a second; `None` as long as that cannot be said.
    pub fn bitrate(&self, window_us: i64) -> Option<f64> {
        let (first, latest) = self.span?;
        let bins = (window_us / BIN_US).clamp(1, BINS as i64 - 1);
        let from = (bin(latest) - bins + 1) * BIN_US;
        let span = latest - from.max(first);
        if latest - first < MIN_SPAN_US {
            return None;
        }
        let bytes: u64 = (0..bins).map(|i| u64::from(self.bins[slot(bin(latest) - i)])).sum();
        Some(bytes as f64 * 8e6 / span.max(BIN_US) as f64)
    }
}

fn bin(arrival_us: i64) -> i64 {
    arrival_us.div_euclid(BIN_US)
}

fn slot(bin: i64) -> usize {
    bin.rem_euclid(BINS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_bitrate() {
        let mut acked = Acked::default();
        for i in 0..300 {
            acked.arrived(-1_000_000 + i * 10_000, 1250);
            let expected = 1_000_000.0;
            if let Some(bitrate) = acked.bitrate(500_000) {
                assert!((bitrate / expected - 1.0).abs() < 0.06, "{bitrate} at {i}");
            }
        }
        assert!(acked.bitrate(1_000_000).is_some());
    }

    #[test]
    fn a_pause_lowers_it_and_a_jump_forgets_it() {
        let mut acked = Acked::default();
        for i in 0..100 {
            acked.arrived(i * 10_000, 1250);
        }
        acked.arrived(1_500_000, 1250);
        let bitrate = acked.bitrate(1_000_000).unwrap();
        assert!((400_000.0..600_000.0).contains(&bitrate), "{bitrate}");
        acked.arrived(i64::from(u32::MAX), 1250);
        assert!(acked.bitrate(500_000).unwrap() < 30_000.0);
        acked.arrived(0, 1250);
        assert!(acked.bitrate(500_000).unwrap() < 30_000.0, "too late to count");
    }
}
