//! Is the delay growing? The trendline filter and its adaptive threshold.
//!
//! Carlucci et al., "Analysis and Design of the Google Congestion Control for WebRTC" (MMSys 2016), §4, and
//! draft-ietf-rmcat-gcc-02 §5.4; the line fitted by least squares takes the place of the Kalman filter of
//! draft §5.3, as in libwebrtc.

use super::delay::Usage;

/// Groups of packets that the line is fitted to (libwebrtc's window).
const WINDOW: usize = 20;
/// Weight of the past in the smoothed delay (libwebrtc).
const SMOOTHING: f64 = 0.9;
/// Turns a slope into something to compare with the threshold, which is in ms (libwebrtc): the slope times
/// the groups seen, at most this many, times [`GAIN`].
const MAX_GROUPS: u32 = 60;
const GAIN: f64 = 4.0;
/// The threshold at first and its bounds, in ms (draft §5.4: 12.5, 6, 600).
const INITIAL_THRESHOLD: f64 = 12.5;
const MIN_THRESHOLD: f64 = 6.0;
const MAX_THRESHOLD: f64 = 600.0;
/// How fast the threshold follows the trend up and down, per ms (draft §5.4: K_u and K_d; libwebrtc's
/// values).
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// A trend this far above the threshold is a spike that must not move it, in ms (draft §5.4).
const SPIKE: f64 = 15.0;
/// The threshold moves as if no more time than this had passed, in ms (libwebrtc).
const MAX_STEP_MS: f64 = 100.0;
/// The trend must stay above the threshold for this long, in ms (draft §5.5: overuse_time_th).
const OVERUSE_MS: f64 = 10.0;

/// The trend of the one-way delay.
#[derive(Debug)]
pub(super) struct Trend {
    /// The last groups: arrival and smoothed delay, in ms since the first group.
    points: [(f64, f64); WINDOW],
    groups: u32,
    origin: Option<(i64, i64)>,
    smoothed: f64,
    threshold: f64,
    last_arrival_ms: f64,
    previous: f64,
    /// How long the trend has been above the threshold, in ms, once it is.
    over_ms: Option<f64>,
    usage: Usage,
}

impl Default for Trend {
    fn default() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            groups: 0,
            origin: None,
            smoothed: 0.0,
            threshold: INITIAL_THRESHOLD,
            last_arrival_ms: 0.0,
            previous: 0.0,
            over_ms: None,
            usage: Usage::Normal,
        }
    }
}

impl Trend {
    /// A group arrived at `arrival_us` with the one-way delay `delay_us`, both up to a constant.
    pub fn group(&mut self, arrival_us: i64, delay_us: i64) {
        let (arrival_0, delay_0) = *self.origin.get_or_insert((arrival_us, delay_us));
        let arrival_ms = (arrival_us - arrival_0) as f64 / 1e3;
        let delay_ms = (delay_us - delay_0) as f64 / 1e3;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * delay_ms;
        self.points[self.groups as usize % WINDOW] = (arrival_ms, self.smoothed);
        self.groups = self.groups.wrapping_add(1).max(1);
        let trend = self.slope() * f64::from(self.groups.min(MAX_GROUPS)) * GAIN;
        let elapsed = (arrival_ms - self.last_arrival_ms).max(0.0);
        self.last_arrival_ms = arrival_ms;
        self.judge(trend, elapsed);
        self.adapt(trend, elapsed);
        self.previous = trend;
    }

    /// What the delay says now.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    fn judge(&mut self, trend: f64, elapsed: f64) {
        if trend.abs() <= self.threshold {
            (self.over_ms, self.usage) = (None, Usage::Normal);
        } else if trend < 0.0 {
            (self.over_ms, self.usage) = (None, Usage::Under);
        } else {
            // The first group above the threshold: it has been so for half of the step, on average.
            let over = self.over_ms.map_or(elapsed / 2.0, |over| over + elapsed);
            self.over_ms = Some(over);
            if over > OVERUSE_MS && trend >= self.previous {
                self.usage = Usage::Over;
            }
        }
    }

    fn adapt(&mut self, trend: f64, elapsed: f64) {
        let excess = trend.abs() - self.threshold;
        if excess > SPIKE {
            return;
        }
        let gain = if excess < 0.0 { THRESHOLD_DOWN } else { THRESHOLD_UP };
        let moved = self.threshold + gain * excess * elapsed.min(MAX_STEP_MS);
        self.threshold = moved.clamp(MIN_THRESHOLD, MAX_THRESHOLD);
    }

    /// Slope of the line fitted to the window, ms of delay per ms.
    fn slope(&self) -> f64 {
        if (self.groups as usize) < WINDOW {
            return 0.0;
        }
        let count = WINDOW as f64;
        let mean_x = self.points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = self.points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let (mut above, mut below) = (0.0, 0.0);
        for (x, y) in self.points {
            above += (x - mean_x) * (y - mean_y);
            below += (x - mean_x) * (x - mean_x);
        }
        if below > 0.0 { above / below } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups 20 ms apart whose delay grows by `growth_us` each; how the last was judged.
    fn after(groups: i64, growth_us: i64) -> Usage {
        let mut trend = Trend::default();
        for i in 0..groups {
            trend.group(i * 20_000, i * growth_us);
        }
        trend.usage()
    }

    #[test]
    fn growing_delay_is_overuse() {
        assert_eq!(after(60, 2_000), Usage::Over);
        assert_eq!(after(10, 2_000), Usage::Normal, "too few groups to tell");
    }

    #[test]
    fn falling_delay_is_underuse() {
        assert_eq!(after(60, -2_000), Usage::Under);
    }

    #[test]
    fn clocks_that_drift_apart_are_not_overuse() {
        // 200 ppm: two poor crystals.
        assert_eq!(after(3000, 4), Usage::Normal);
    }
}
