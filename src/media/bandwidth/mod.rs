//! How much one transport's line carries: the send-side bandwidth estimator.
//!
//! It follows "Google congestion control" (draft-ietf-rmcat-gcc-02) where that fits an SFU, which sends
//! layers of given sizes, unpaced, and so nearly always less than the line carries:
//!
//! - growing delay says that we send more than the line carries (`delay`), and then what arrives is what
//!   it carries (`acked`);
//! - loss beyond what the line loses at any rate says the same of a line without a queue (`loss`);
//! - only sending more can show that the line carries more: a short probe (`probe`).
//!
//! `rate` makes one estimate of the four. Sending costs one write into a ring (`records`); the work is
//! done per feedback, and nothing is allocated while no more is on its way than ever before.

mod acked;
mod bound;
mod delay;
mod loss;
mod probe;
mod rate;
mod records;
mod timeline;
mod trend;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use self::bound::ReceiveBound;
pub use self::probe::{Cluster, Probe};
pub use self::rate::{Limits, Reason};
pub use self::records::SentKind;

use self::acked::Acked;
use self::delay::{Delay, Usage};
use self::loss::{Loss, Verdict};
use self::probe::Prober;
use self::rate::Rate;
use self::records::{Report, SendRecords};
use self::timeline::Timeline;

/// What is acknowledged in overuse: long enough for some ten frames, short enough to have forgotten what the
/// line carried before.
const OVERUSE_WINDOW_US: i64 = 300_000;
/// What is acknowledged otherwise.
const STEADY_WINDOW_US: i64 = 900_000;
/// Feedback this late is missing; from then on the estimate falls once per [`SILENCE_STEP_US`].
const SILENCE_US: u64 = 1_000_000;
const SILENCE_STEP_US: u64 = 500_000;
/// A receiver's estimate that falls by this factor means a queue that probes must not lengthen.
const REMB_DROP: f64 = 0.9;
/// A queue to which nothing is added is gone after its own length and this.
const EMPTIED: Duration = Duration::from_millis(300);
/// The round trip before anything is known of it (mediasoup: 100 ms).
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// A round trip longer than this is not believed.
const MAX_RTT: Duration = Duration::from_secs(10);
/// The least round trip that feedback shows is remembered for one to two of these.
const RTT_PERIOD_US: u64 = 10_000_000;

/// Bits per second, counted in bytes on the wire.
pub type Bitrate = u64;

/// What became of the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// The estimate, in bit/s.
    pub estimate: Bitrate,
    /// Why it last changed.
    pub reason: Reason,
    /// Whether it changed now.
    pub changed: bool,
}

/// What feedback said that was not believed, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Never sent, or too long ago.
    pub unknown: u64,
    /// Reported before.
    pub repeated: u64,
    /// Arrived at an impossible time.
    pub absurd: u64,
}

/// The bandwidth estimator of one transport.
///
/// ```
/// # use std::time::{Duration, Instant};
/// use shardcast::media::bandwidth::{Estimator, Limits, SentKind};
/// # let now = Instant::now();
/// let mut estimator = Estimator::new(now, Limits::default());
/// estimator.sent(7, now, 1200, SentKind::Media); // when sealing
/// if let Some(probe) = estimator.poll_probe(now, 2_500_000) {
///     // Send `probe.bytes` in `probe.packets` packets at `probe.bitrate`, each recorded as
///     // `SentKind::Probe(probe.cluster)`.
/// }
/// let later = now + Duration::from_millis(50);
/// let update = estimator.feedback(later, [(7, Some(4))].into_iter(), 1000);
/// assert_eq!(update.estimate, estimator.estimate());
/// ```
#[derive(Debug)]
pub struct Estimator {
    epoch: Instant,
    records: SendRecords,
    timeline: Timeline,
    acked: Acked,
    delay: Delay,
    loss: Loss,
    prober: Prober,
    rate: Rate,
    rtt: RoundTrip,
    silence: Silence,
    ignored: Ignored,
    last_sent_us: u64,
}

impl Estimator {
    /// An estimator that knows nothing yet.
    pub fn new(now: Instant, limits: Limits) -> Self {
        Self {
            epoch: now,
            records: SendRecords::default(),
            timeline: Timeline::default(),
            acked: Acked::default(),
            delay: Delay::default(),
            loss: Loss::default(),
            prober: Prober::default(),
            rate: Rate::new(limits),
            rtt: RoundTrip::default(),
            silence: Silence::default(),
            ignored: Ignored::default(),
            last_sent_us: 0,
        }
    }

    /// Notes that the packet with transport-wide number `seq` leaves, `size` bytes long on the wire. Packets
    /// without such a number are not to be noted.
    pub fn sent(&mut self, seq: u16, now: Instant, size: u16, kind: SentKind) {
        let now_us = self.micros(now);
        let cluster = match kind {
            SentKind::Probe(cluster) => Some(cluster),
            SentKind::Media | SentKind::Retransmission => None,
        };
        self.records.sent(seq, now_us, size, cluster);
        self.last_sent_us = now_us;
        self.silence.sent(now_us);
        if let Some(cluster) = cluster {
            self.prober.sent(cluster, now_us, size);
        }
    }

    /// Takes in one feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): its statuses with their
    /// deltas in units of 250 µs, and its reference time in units of 64 ms, of which 24 bits count.
    /// What cannot be true is counted ([`Self::ignored`]) and otherwise ignored.
    pub fn feedback(
        &mut self,
        now: Instant,
        statuses: impl Iterator<Item = (u16, Option<i16>)>,
        reference_time: i32,
    ) -> Update {
        let before = self.estimate();
        let now_us = self.micros(now);
        let mut arrival_us = self.timeline.begin(reference_time);
        let doubted = self.ignored.absurd;
        let mut newest = None;
        for (seq, delta) in statuses {
            let Some(delta) = delta else {
                self.lost(seq, now_us);
                continue;
            };
            arrival_us += i64::from(delta) * 250;
            newest = newest.max(self.arrived(seq, arrival_us, now_us));
        }
        if self.timeline.end(newest.is_some(), self.ignored.absurd > doubted) {
            self.forget_times();
        }
        self.records.trim(now_us);
        if let Some(sent_us) = newest {
            self.rtt.feedback(now_us, now_us.saturating_sub(sent_us));
            self.silence.heard();
            self.conclude(now_us, sent_us);
        }
        self.update(before)
    }

    /// A round trip measured by receiver reports (RFC 3550 §6.4.1).
    pub fn rtt_measured(&mut self, rtt: Duration) {
        self.rtt.reported = Some(rtt.min(MAX_RTT));
    }

    /// The receiver's own estimate in bit/s (REMB), from a client that sends no transport-wide feedback: any
    /// value, bounded by our limits. Ignored once transport-wide feedback has come.
    pub fn remb(&mut self, now: Instant, bitrate: Bitrate) -> Update {
        let before = self.estimate();
        if !self.silence.is_armed {
            self.rate.receiver(bitrate);
        }
        if (self.estimate() as f64) < REMB_DROP * before as f64 {
            self.prober.dropped(self.micros(now));
        }
        self.update(before)
    }

    /// The probe to be sent now, if any. `wanted` is what the allocation could use in all, in bit/s: probes
    /// are made while that, with some headroom, exceeds the estimate. 0 means that no probe is wanted.
    pub fn poll_probe(&mut self, now: Instant, wanted: Bitrate) -> Option<Probe> {
        let limit = self.rate.limits().max as f64;
        let standing_us = self.queueing(now).as_micros() as i64;
        let estimate = self.rate.estimate();
        self.prober.poll(self.micros(now), wanted, estimate, limit, standing_us)
    }

    /// When to call both [`Self::handle_timeout`] and [`Self::poll_probe`], if no feedback comes before.
    /// It stays in the past until they are called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let limit = self.rate.limits().max as f64;
        let probe = self.prober.next_us(self.rate.estimate(), limit);
        let due = probe.into_iter().chain(self.silence.due_us).min()?;
        Some(self.epoch + Duration::from_micros(due))
    }

    /// Does what has come due: lowers the estimate while feedback is missing.
    pub fn handle_timeout(&mut self, now: Instant) -> Update {
        let before = self.estimate();
        let now_us = self.micros(now);
        if self.silence.handle_timeout(now_us) {
            self.rate.silence(now_us);
            self.prober.dropped(now_us);
        }
        self.judge_probe(now_us, 0);
        self.update(before)
    }

    /// Changes the bounds, and the estimate if it lies outside.
    pub fn set_limits(&mut self, limits: Limits) -> Update {
        let before = self.estimate();
        self.rate.set_limits(limits);
        self.update(before)
    }

    /// The estimate in bit/s, within the limits.
    pub fn estimate(&self) -> Bitrate {
        self.rate.estimate() as Bitrate
    }

    /// Why the estimate last changed.
    pub fn reason(&self) -> Reason {
        self.rate.reason()
    }

    /// The round trip: what receiver reports measured, or else the least that feedback shows, which includes
    /// the receiver's wait before it sends feedback. `None` before either.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.best()
    }

    /// The share of packets lost of late, 0 to 1.
    pub fn loss(&self) -> f64 {
        self.loss.shown()
    }

    /// What lately even the fastest packet waited in queues on the line: nothing, if nothing was sent since
    /// they must have emptied.
    pub fn queueing(&self, now: Instant) -> Duration {
        let queue = Duration::from_micros(self.delay.standing_us().max(0) as u64);
        let idle = Duration::from_micros(self.micros(now).saturating_sub(self.last_sent_us));
        if idle > queue + EMPTIED { Duration::ZERO } else { queue }
    }

    /// What reached the receiver over the last second, in bit/s; `None` before that can be said.
    pub fn acknowledged(&self) -> Option<Bitrate> {
        self.acked.bitrate(STEADY_WINDOW_US).map(|bitrate| bitrate as Bitrate)
    }

    /// What feedback said that was not believed.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_micros() as u64
    }

    fn update(&self, before: Bitrate) -> Update {
        let estimate = self.estimate();
        Update { estimate, reason: self.reason(), changed: estimate != before }
    }

    /// Returns when the packet was sent, if its arrival is believed.
    fn arrived(&mut self, seq: u16, arrival_us: i64, now_us: u64) -> Option<u64> {
        let (record, late) = match self.records.report(seq, true, now_us) {
            Report::Arrived(record) => (record, false),
            Report::ArrivedLate(record) => (record, true),
            other => return self.ignore(&other),
        };
        if !self.timeline.believes(record.sent_us, arrival_us) {
            self.ignored.absurd += 1;
            return None;
        }
        self.acked.arrived(arrival_us, record.size);
        if late {
            self.loss.arrived_late(record.size);
        } else {
            self.loss.reported(record.size, false);
            self.delay.arrived(record.sent_us, arrival_us, record.cluster.is_some());
            self.prober.reported(&record, Some(arrival_us));
        }
        Some(record.sent_us)
    }

    fn lost(&mut self, seq: u16, now_us: u64) {
        match self.records.report(seq, false, now_us) {
            Report::Lost(record) => {
                self.loss.reported(record.size, true);
                self.prober.reported(&record, None);
            }
            other => {
                self.ignore(&other);
            }
        }
    }

    fn ignore(&mut self, report: &Report) -> Option<u64> {
        match report {
            Report::Repeated => self.ignored.repeated += 1,
            _ => self.ignored.unknown += 1,
        }
        None
    }

    /// Makes one estimate of what the feedback has shown.
    fn conclude(&mut self, now_us: u64, newest_us: u64) {
        let usage = self.delay.judge();
        let verdict = self.loss.judge(now_us, self.delay.standing_us(), self.rate.estimate());
        self.judge_probe(now_us, newest_us);
        let rtt = self.rtt.best().unwrap_or(INITIAL_RTT).as_secs_f64();
        let lowered = match (usage, verdict) {
            (Usage::Over, _) => self
                .acked
                .bitrate(OVERUSE_WINDOW_US)
                .is_some_and(|acked| self.rate.overuse(now_us, acked, rtt)),
            (_, Verdict::Lower(factor)) => self.rate.lose(now_us, factor),
            (_, Verdict::Restore(estimate)) => {
                self.rate.restore(estimate);
                false
            }
            (Usage::Normal, Verdict::Grow) => {
                let goal = self.prober.goal(self.rate.limits().max as f64);
                match self.acked.bitrate(STEADY_WINDOW_US) {
                    Some(acked) => self.rate.grow(now_us, acked, rtt, goal),
                    None => self.rate.hold(now_us),
                }
                false
            }
            (Usage::Under, _) | (_, Verdict::Hold) => {
                self.rate.hold(now_us);
                false
            }
        };
        if lowered {
            self.prober.dropped(now_us);
        }
    }

    fn judge_probe(&mut self, now_us: u64, newest_us: u64) {
        let Some(outcome) = self.prober.judge(now_us, newest_us) else { return };
        let acked = self.acked.bitrate(STEADY_WINDOW_US).unwrap_or(0.0);
        if self.rate.probed(now_us, outcome, acked) {
            self.prober.raised(now_us);
        }
    }

    /// The receiver's clock was set anew: nothing measured on the old one can be compared.
    fn forget_times(&mut self) {
        self.acked = Acked::default();
        self.delay = Delay::default();
        self.prober.abandon();
    }
}

/// What is known of the round trip.
#[derive(Debug, Default)]
struct RoundTrip {
    reported: Option<Duration>,
    /// Of feedback, in µs: when this period began, its least round trip, and that of the period before.
    feedback: Option<(u64, u64, u64)>,
}

impl RoundTrip {
    fn feedback(&mut self, now_us: u64, rtt_us: u64) {
        let (began, least, past) = self.feedback.unwrap_or((now_us, rtt_us, rtt_us));
        self.feedback = Some(if now_us.saturating_sub(began) > RTT_PERIOD_US {
            (now_us, rtt_us, least)
        } else {
            (began, least.min(rtt_us), past)
        });
    }

    fn best(&self) -> Option<Duration> {
        let feedback = self.feedback.map(|(_, least, past)| least.min(past));
        let bound = feedback.map(Duration::from_micros);
        // Feedback comes after the whole round trip, so it cannot be longer than that.
        match (self.reported, bound) {
            (Some(reported), Some(bound)) => Some(reported.min(bound)),
            (reported, bound) => reported.or(bound),
        }
    }
}

/// Notices that feedback fails to come.
#[derive(Debug, Default)]
struct Silence {
    /// Feedback has come at least once, so that its absence means something.
    is_armed: bool,
    due_us: Option<u64>,
}

impl Silence {
    fn sent(&mut self, now_us: u64) {
        if self.is_armed && self.due_us.is_none() {
            self.due_us = Some(now_us + SILENCE_US);
        }
    }

    fn heard(&mut self) {
        (self.is_armed, self.due_us) = (true, None);
    }

    fn handle_timeout(&mut self, now_us: u64) -> bool {
        let is_due = self.due_us.is_some_and(|due| now_us >= due);
        if is_due {
            self.due_us = Some(now_us + SILENCE_STEP_US);
        }
        is_due
    }
}
