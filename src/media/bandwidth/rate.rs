//! The estimate, and what may change it.

use std::fmt;

use super::Bitrate;
use super::probe::Outcome;

/// Share of what a line has carried that we use. Less than all, so that queues drain and what the
/// estimator does not count (lower layers' headers, other senders' trickle) finds room.
pub(super) const MARGIN: f64 = 0.93;
/// Share of the acknowledged bitrate left after overuse (draft-ietf-rmcat-gcc-02 §5.5: beta).
const BETA: f64 = 0.85;
/// Growth per second while the capacity is not known (draft §5.5: eta 1.08).
const GROWTH: f64 = 1.08;
/// Never more than this times the acknowledged bitrate, plus a little (draft §5.5: 1.5 R_hat).
const UNPROVEN: f64 = 1.5;
const UNPROVEN_EXTRA: f64 = 10_000.0;
/// Least growth near the capacity, in bit/s per second (libwebrtc: 4000).
const MIN_GROWTH: f64 = 4_000.0;
/// A packet, in bits: what is added per response time near the capacity (draft §5.5).
const PACKET_BITS: f64 = 9_600.0;
/// What is added to the round trip to make the response time, in s (draft §5.5).
const RESPONSE_EXTRA: f64 = 0.1;
/// Growth is never for more time than this at once, in s.
const MAX_STEP: f64 = 1.0;
/// What was learnt of the capacity is forgotten after this long without news.
const CAPACITY_AGE_US: u64 = 30_000_000;
/// A sample that differs by more than this is a change of the line, not noise.
const CAPACITY_CHANGE: f64 = 0.15;
/// Weight of a new sample otherwise.
const CAPACITY_WEIGHT: f64 = 0.3;
/// A receiver's own estimate (REMB) raises ours only if it is this much higher; it lowers it at once.
const REMB_HYSTERESIS: f64 = 1.05;
/// What the estimate falls by, time and again, while feedback fails to come.
const SILENCE_FACTOR: f64 = 0.8;

/// A lower bound below this would let the estimate shrink to where no factor raises it again, in bit/s.
const MIN_BITRATE: Bitrate = 1_000;
/// No line to one receiver is faster, and all up to here is exact in floating point, in bit/s.
const MAX_BITRATE: Bitrate = 10_000_000_000;

/// Bounds of an estimate, in bit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Before anything is known.
    pub initial: Bitrate,
    /// Never less; at least 1 kbit/s.
    pub min: Bitrate,
    /// Never more; at most 10 Gbit/s, and not below the least.
    pub max: Bitrate,
}

impl Default for Limits {
    /// mediasoup's initial and least bitrate; at most 100 Mbit/s.
    fn default() -> Self {
        Self { initial: 600_000, min: 30_000, max: 100_000_000 }
    }
}

/// Why the estimate last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It has not changed yet.
    Initial,
    /// All went well and the line's capacity is not known.
    Growth,
    /// It went back towards the known capacity, or to where it was before loss that was not our doing.
    Recovery,
    /// A probe showed more.
    Probe,
    /// A probe found the line full at less.
    ProbeFull,
    /// Delay grew.
    DelayOveruse,
    /// Packets were lost.
    Loss,
    /// Feedback stopped coming.
    Silence,
    /// The receiver said so (REMB).
    Receiver,
    /// The limits were changed.
    Limits,
}

impl Reason {
    /// The name that statistics show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Growth => "growth",
            Self::Recovery => "recovery",
            Self::Probe => "probe",
            Self::ProbeFull => "probe-full",
            Self::DelayOveruse => "delay-overuse",
            Self::Loss => "loss",
            Self::Silence => "silence",
            Self::Receiver => "receiver",
            Self::Limits => "limits",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the line carried when it was full.
#[derive(Clone, Copy, Debug)]
struct Capacity {
    bitrate: f64,
    at_us: u64,
}

/// The estimate.
#[derive(Debug)]
pub(super) struct Rate {
    limits: Limits,
    estimate: f64,
    reason: Reason,
    capacity: Option<Capacity>,
    grown_us: u64,
    lowered_us: Option<u64>,
}

impl Rate {
    pub fn new(limits: Limits) -> Self {
        let mut rate = Self {
            limits,
            estimate: limits.initial as f64,
            reason: Reason::Initial,
            capacity: None,
            grown_us: 0,
            lowered_us: None,
        };
        rate.set_limits(limits);
        rate.reason = Reason::Initial;
        rate
    }

    pub fn estimate(&self) -> f64 {
        self.estimate
    }

    pub fn reason(&self) -> Reason {
        self.reason
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn set_limits(&mut self, limits: Limits) {
        let min = limits.min.clamp(MIN_BITRATE, MAX_BITRATE);
        self.limits = Limits { min, max: limits.max.clamp(min, MAX_BITRATE), ..limits };
        self.set(self.estimate, Reason::Limits);
    }

    /// All is well: grows towards what is proven, for the time since the last call at which it could.
    /// `goal` is beyond what anybody wants.
    pub fn grow(&mut self, now_us: u64, acked: f64, rtt: f64, goal: Option<f64>) {
        let elapsed = now_us.saturating_sub(self.grown_us) as f64 / 1e6;
        self.grown_us = now_us;
        let elapsed = elapsed.min(MAX_STEP);
        let proven = UNPROVEN * acked + UNPROVEN_EXTRA;
        let goal = goal.unwrap_or(f64::INFINITY);
        let (ceiling, grown, reason) = match self.capacity(now_us) {
            Some(capacity) => {
                let per_second = (PACKET_BITS / (rtt + RESPONSE_EXTRA)).max(MIN_GROWTH);
                (MARGIN * capacity, self.estimate + per_second * elapsed, Reason::Recovery)
            }
            None => (f64::INFINITY, self.estimate * GROWTH.powf(elapsed), Reason::Growth),
        };
        let grown = grown.min(ceiling).min(proven).min(goal);
        if grown > self.estimate {
            self.set(grown, reason);
        }
    }

    /// No growth now: the time until it is allowed again does not count.
    pub fn hold(&mut self, now_us: u64) {
        self.grown_us = now_us;
    }

    /// Delay grows while `acked` arrives: that is what the line carries. Returns whether it lowered the
    /// estimate.
    pub fn overuse(&mut self, now_us: u64, acked: f64, rtt: f64) -> bool {
        self.hold(now_us);
        // What was sent at the lowered rate has not been heard of yet.
        let response_us = ((rtt + RESPONSE_EXTRA) * 1e6) as u64;
        let waits = self.lowered_us.is_some_and(|at| now_us.saturating_sub(at) < response_us);
        if waits && self.estimate < 2.0 * acked {
            return false;
        }
        self.learn_capacity(now_us, acked);
        self.lower(now_us, BETA * acked, Reason::DelayOveruse)
    }

    /// Loss asks for `factor` times the estimate.
    pub fn lose(&mut self, now_us: u64, factor: f64) -> bool {
        self.hold(now_us);
        self.lower(now_us, factor * self.estimate, Reason::Loss)
    }

    /// Loss was not our doing: back to `estimate`.
    pub fn restore(&mut self, estimate: f64) {
        if estimate > self.estimate {
            self.set(estimate, Reason::Recovery);
        }
    }

    /// Nothing has been heard for a while.
    pub fn silence(&mut self, now_us: u64) {
        self.lower(now_us, SILENCE_FACTOR * self.estimate, Reason::Silence);
    }

    /// A probe was measured. Returns whether it raised the estimate.
    pub fn probed(&mut self, now_us: u64, outcome: Outcome, acked: f64) -> bool {
        let Some(full_at) = outcome.full_at else {
            let proven = MARGIN * outcome.bitrate;
            self.capacity = self.capacity.filter(|capacity| capacity.bitrate > outcome.bitrate);
            return self.raise(proven);
        };
        if outcome.is_lossy && MARGIN * full_at <= self.estimate {
            return false;
        }
        self.learn_capacity(now_us, full_at);
        let carried = self.capacity(now_us).unwrap_or(full_at);
        if self.raise(MARGIN * carried) {
            return true;
        }
        // What arrives all the time weighs more than what a probe shows.
        self.lower(now_us, (MARGIN * carried).max(acked), Reason::ProbeFull);
        false
    }

    /// The receiver's own estimate.
    pub fn receiver(&mut self, bitrate: Bitrate) {
        let bitrate = bitrate.clamp(self.limits.min, self.limits.max) as f64;
        let at_limit = bitrate >= self.limits.max as f64;
        if bitrate < self.estimate || bitrate > REMB_HYSTERESIS * self.estimate || at_limit {
            self.set(bitrate, Reason::Receiver);
        }
    }

    fn raise(&mut self, to: f64) -> bool {
        let raises = to > self.estimate;
        if raises {
            self.set(to, Reason::Probe);
        }
        raises
    }

    fn lower(&mut self, now_us: u64, to: f64, reason: Reason) -> bool {
        let lowers = to < self.estimate;
        if lowers {
            self.lowered_us = Some(now_us);
            self.set(to, reason);
        }
        lowers
    }

    fn set(&mut self, to: f64, reason: Reason) {
        let to = to.clamp(self.limits.min as f64, self.limits.max as f64);
        if to != self.estimate {
            (self.estimate, self.reason) = (to, reason);
        }
    }

    fn capacity(&self, now_us: u64) -> Option<f64> {
        self.capacity
            .filter(|capacity| now_us.saturating_sub(capacity.at_us) < CAPACITY_AGE_US)
            .map(|capacity| capacity.bitrate)
    }

    fn learn_capacity(&mut self, now_us: u64, sample: f64) {
        let bitrate = match self.capacity(now_us) {
            Some(known) if (sample / known - 1.0).abs() < CAPACITY_CHANGE => {
                known + CAPACITY_WEIGHT * (sample - known)
            }
            _ => sample,
        };
        self.capacity = Some(Capacity { bitrate, at_us: now_us });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const RTT: f64 = 0.1;

    fn full(at: f64) -> Outcome {
        Outcome { bitrate: at, full_at: Some(at), is_lossy: false }
    }

    /// After 20 s in which `acked` arrived.
    fn grown(mut rate: Rate, acked: f64) -> f64 {
        for i in 1..=200 {
            rate.grow(i * SECOND / 10, acked, RTT, None);
        }
        rate.estimate()
    }

    #[test]
    fn growth_stays_below_what_is_proven() {
        let rate = || Rate::new(Limits::default());
        assert_eq!(grown(rate(), 600_000.0), 910_000.0);
        assert_eq!(grown(rate(), 100_000.0), 600_000.0, "neither grows nor decays");
        let eight_percent = 600_000.0 * 1.08_f64.powi(20);
        assert!((grown(rate(), 1e8) / eight_percent - 1.0).abs() < 0.01);
    }

    #[test]
    fn growth_stays_below_what_a_probe_found_full() {
        let mut rate = Rate::new(Limits::default());
        assert!(rate.probed(0, full(1_000_000.0), 0.0));
        assert_eq!((rate.estimate(), rate.reason()), (930_000.0, Reason::Probe));
        assert!(rate.overuse(SECOND, 900_000.0, RTT));
        assert_eq!((rate.estimate(), rate.reason()), (765_000.0, Reason::DelayOveruse));
        let estimate = grown(rate, 760_000.0);
        assert!((850_000.0..930_000.0).contains(&estimate), "{estimate}");
    }

    #[test]
    fn overuse_lowers_once_per_response_time() {
        let mut rate = Rate::new(Limits::default());
        assert!(rate.overuse(SECOND, 500_000.0, RTT));
        assert!(!rate.overuse(SECOND + 100_000, 400_000.0, RTT));
        assert!(rate.overuse(SECOND + 200_000, 400_000.0, RTT));
        assert_eq!(rate.estimate(), 340_000.0);
    }

    #[test]
    fn a_probe_that_lost_packets_lowers_nothing() {
        let mut rate = Rate::new(Limits::default());
        let lossy = Outcome { is_lossy: true, ..full(300_000.0) };
        assert!(!rate.probed(0, lossy, 0.0));
        assert_eq!(rate.estimate(), 600_000.0);
        rate.probed(0, full(300_000.0), 0.0);
        assert_eq!((rate.estimate(), rate.reason()), (279_000.0, Reason::ProbeFull));
    }

    #[test]
    fn limits_hold_whatever_they_are() {
        let mut rate = Rate::new(Limits { initial: 10, min: 0, max: 0 });
        assert_eq!(rate.estimate(), MIN_BITRATE as f64);
        rate.set_limits(Limits { initial: 0, min: 50_000, max: 10_000 });
        rate.receiver(u64::MAX);
        assert_eq!(rate.estimate(), 50_000.0);
    }
}
