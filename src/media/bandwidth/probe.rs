//! Probes: short stretches of a higher rate that show whether the line carries it.

use std::num::NonZeroU16;

use super::Bitrate;
use super::records::Record;

/// The first probe, times the initial estimate (libwebrtc: 3 and then 6; here each further probe builds on
/// what the last one has shown).
const FIRST_FACTOR: f64 = 3.0;
/// A probe after one that the line took, times the estimate (libwebrtc's scale for exponential probes).
const FACTOR: f64 = 2.0;
/// A probe after one that filled the line, times the estimate.
const CAREFUL_FACTOR: f64 = 1.5;
/// What a probe sends beyond the estimate, in time at the estimate: the queue that it leaves if the estimate
/// is right.
const EXCESS_US: f64 = 25_000.0;
/// How long a probe lasts (libwebrtc: 15 ms): within these bounds as long as its excess allows, for what
/// lasts longer is measured better through jitter.
const MIN_DURATION_US: f64 = 15_000.0;
const MAX_DURATION_US: f64 = 60_000.0;
/// Fewer packets measure nothing (libwebrtc: 5).
const MIN_PACKETS: u32 = 5;
/// The least that a packet of padding weighs with its headers, in bytes.
const MIN_PACKET_SIZE: u32 = 60;
/// What a full packet weighs, in bytes.
const PACKET_SIZE: u32 = 1200;
/// Between probes while more is wanted than the estimate (libwebrtc: 5 s when application-limited).
const INTERVAL_US: u64 = 5_000_000;
/// After the estimate fell: long enough for the queue to be gone.
const AFTER_DROP_US: u64 = 1_500_000;
/// A raise that is taken back within this time was a mistake. One is forgiven, since lines do get slower;
/// each further one doubles the time between probes, up to 40 s.
const REGRET_US: u64 = 4_000_000;
const MAX_REGRETS: u32 = 4;
/// A raise that has held for this long: the mistakes before it are forgotten.
const CONTENT_US: u64 = 15_000_000;
/// A queue stands: ask again later.
const RETRY_US: u64 = 100_000;
/// A probe could not be measured, since too much of it or the feedback on it was lost: try again after this
/// time, twice as long each time, and from the second time on with less.
const AGAIN_US: u64 = 500_000;
const MAX_FAILURES: u32 = 3;
const LEAST_FACTOR: f64 = 1.25;
/// A probe whose feedback has not come by now is judged as it is.
const EXPIRY_US: u64 = 2_000_000;
/// Share of a probe's packets that must arrive (libwebrtc: 0.8).
const MIN_ARRIVED: f64 = 0.8;
/// Received at less than this share of the rate sent: the line was full (libwebrtc: 0.9).
const FULL_SHARE: f64 = 0.9;
/// A standing queue in which a probe would only do harm, in µs.
const QUIET_US: i64 = 25_000;
/// The estimate that lets a sender of the wanted rate keep its headroom.
const HEADROOM: f64 = 1.2;

/// Names a probe, so that its packets are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster(NonZeroU16);

impl Cluster {
    /// The first of a transport.
    pub(super) const FIRST: Self = Self(NonZeroU16::MIN);

    fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
    }
}

/// A probe to be sent now: `bytes` at `bitrate`, cut into `packets` packets of equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What each packet is recorded under, as [`super::SentKind::Probe`].
    pub cluster: Cluster,
    /// How fast, in bit/s. Live media that leaves meanwhile comes on top.
    pub bitrate: Bitrate,
    /// How much, in bytes on the wire; at most one packet more.
    pub bytes: u32,
    /// How many packets: fewer measure worse.
    pub packets: u32,
}

/// What a probe has shown, in bit/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    /// The lesser of the rates at which it was sent and received.
    pub bitrate: f64,
    /// The rate received, if the line was full.
    pub full_at: Option<f64>,
    /// Packets were lost meanwhile, so that the line may carry more than this.
    pub is_lossy: bool,
}

/// Decides when to probe and measures the probes.
#[derive(Debug)]
pub(super) struct Prober {
    next: Cluster,
    factor: f64,
    due_us: u64,
    /// What the allocation last asked for, in bit/s.
    wanted: Option<Bitrate>,
    flight: Option<Flight>,
    /// The last raise that has not been taken back.
    raised_us: Option<u64>,
    regrets: u32,
    /// Probes in a row that could not be measured.
    failures: u32,
}

/// The probe under way.
#[derive(Debug)]
struct Flight {
    probe: Probe,
    began_us: u64,
    last_sent_us: u64,
    packets: u32,
    bytes: u32,
    reported: u32,
    arrived: u32,
    /// Of probe and media.
    lost: u32,
    sending: Fit,
    receiving: Fit,
    /// Bytes of probe and media since the probe's first packet.
    total: u64,
}

impl Default for Prober {
    fn default() -> Self {
        Self {
            next: Cluster::FIRST,
            factor: FIRST_FACTOR,
            due_us: 0,
            wanted: None,
            flight: None,
            raised_us: None,
            regrets: 0,
            failures: 0,
        }
    }
}

impl Prober {
    /// The probe that is due now, if any. `limit` is the most that the estimate may become.
    pub fn poll(
        &mut self,
        now_us: u64,
        wanted: Bitrate,
        estimate: f64,
        limit: f64,
        standing_us: i64,
    ) -> Option<Probe> {
        self.wanted = Some(wanted);
        let goal = self.goal(limit)?;
        if self.flight.is_some() || now_us < self.due_us || estimate >= goal {
            return None;
        }
        if standing_us > QUIET_US {
            self.due_us = now_us + RETRY_US;
            return None;
        }
        let bitrate = (estimate * self.factor).min(goal / super::rate::MARGIN) as Bitrate;
        let excess = (bitrate as f64 / estimate - 1.0).max(f64::EPSILON);
        let duration = (EXCESS_US / excess).clamp(MIN_DURATION_US, MAX_DURATION_US);
        let bytes = (bitrate as f64 * duration / 8e6) as u32;
        let bytes = bytes.max(MIN_PACKETS * MIN_PACKET_SIZE);
        let packets = bytes.div_ceil(PACKET_SIZE).max(MIN_PACKETS);
        let probe = Probe { cluster: self.next, bitrate, bytes, packets };
        self.next = self.next.next();
        self.flight = Some(Flight::new(probe, now_us));
        self.due_us = now_us + INTERVAL_US * self.patience();
        Some(probe)
    }

    /// The estimate beyond which nobody wants more, in bit/s; `None` as long as nobody has asked.
    pub fn goal(&self, limit: f64) -> Option<f64> {
        self.wanted.map(|wanted| (wanted as f64 * HEADROOM).min(limit))
    }

    /// When [`Self::poll`] or [`Self::judge`] has something to do.
    pub fn next_us(&self, estimate: f64, limit: f64) -> Option<u64> {
        match &self.flight {
            Some(flight) => Some(flight.began_us + EXPIRY_US),
            None => self.goal(limit).is_some_and(|goal| estimate < goal).then_some(self.due_us),
        }
    }

    pub fn sent(&mut self, cluster: Cluster, now_us: u64, size: u16) {
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.probe.cluster == cluster)
        else {
            return;
        };
        flight.last_sent_us = now_us;
        flight.packets += 1;
        flight.bytes = flight.bytes.saturating_add(size.into());
    }

    /// Feedback reported `record` for the first time, as arrived or lost.
    pub fn reported(&mut self, record: &Record, arrival_us: Option<i64>) {
        let Some(flight) = &mut self.flight else { return };
        let is_probe = record.cluster == Some(flight.probe.cluster);
        flight.reported += u32::from(is_probe);
        // Media between the probe's packets fills the line as they do.
        let is_within = flight.began_us <= record.sent_us && record.sent_us <= flight.last_sent_us;
        let Some(arrival_us) = arrival_us else {
            flight.lost += u32::from(is_within);
            return;
        };
        flight.arrived += u32::from(is_probe);
        if is_within && (is_probe || flight.total > 0) {
            flight.total += u64::from(record.size);
            let bits = flight.total as f64 * 8.0;
            flight.sending.point(bits, record.sent_us as f64 / 1e6);
            flight.receiving.point(bits, arrival_us as f64 / 1e6);
        }
    }

    /// The end of a feedback whose newest packet was sent at `newest_us`, or the time is up: what the probe
    /// has shown, if it is complete.
    pub fn judge(&mut self, now_us: u64, newest_us: u64) -> Option<Outcome> {
        let flight = self.flight.take_if(|flight| flight.is_complete(now_us, newest_us))?;
        let outcome = flight.outcome();
        match outcome {
            Some(Outcome { full_at, .. }) => {
                self.failures = 0;
                if full_at.is_none() {
                    // The line takes it: go on at once.
                    (self.factor, self.due_us) = (FACTOR, now_us);
                } else {
                    self.factor = CAREFUL_FACTOR;
                }
            }
            None if flight.packets > 0 => self.failed(now_us),
            // The room could not send it: the interval passes.
            None => {}
        }
        outcome
    }

    /// The last probe has raised the estimate.
    pub fn raised(&mut self, now_us: u64) {
        self.forgive(now_us);
        self.raised_us = Some(now_us);
    }

    /// The estimate had to be lowered: look again when the queue is gone.
    pub fn dropped(&mut self, now_us: u64) {
        self.forgive(now_us);
        if self.raised_us.take().is_some_and(|at| now_us.saturating_sub(at) < REGRET_US) {
            self.regrets = (self.regrets + 1).min(MAX_REGRETS);
        }
        self.due_us = now_us + AFTER_DROP_US * self.patience();
    }

    /// Gives up the probe under way: the receiver's clock is no longer the one it began with.
    pub fn abandon(&mut self) {
        self.flight = None;
    }

    fn failed(&mut self, now_us: u64) {
        if self.failures > 0 {
            self.factor = self.factor.sqrt().max(LEAST_FACTOR);
        }
        self.due_us = now_us + (AGAIN_US << self.failures) * self.patience();
        self.failures = (self.failures + 1).min(MAX_FAILURES);
    }

    fn forgive(&mut self, now_us: u64) {
        if self.raised_us.is_some_and(|at| now_us.saturating_sub(at) > CONTENT_US) {
            self.regrets = 0;
        }
    }

    /// How many times longer than usual to wait.
    fn patience(&self) -> u64 {
        1 << self.regrets.saturating_sub(1)
    }
}

impl Flight {
    fn new(probe: Probe, now_us: u64) -> Self {
        Self {
            probe,
            began_us: now_us,
            last_sent_us: now_us,
            packets: 0,
            bytes: 0,
            reported: 0,
            arrived: 0,
            lost: 0,
            sending: Fit::default(),
            receiving: Fit::default(),
            total: 0,
        }
    }

    fn is_complete(&self, now_us: u64, newest_us: u64) -> bool {
        let is_reported = self.reported >= self.packets || newest_us > self.last_sent_us;
        let is_sent = self.bytes >= self.probe.bytes;
        is_sent && is_reported || now_us >= self.began_us + EXPIRY_US
    }

    fn outcome(&self) -> Option<Outcome> {
        let expected = self.packets.max(MIN_PACKETS);
        if f64::from(self.arrived) < MIN_ARRIVED * f64::from(expected) {
            return None;
        }
        let asked = self.probe.bitrate as f64;
        // What left in one burst went at any rate; it proves no more than was asked for.
        let sent = self.sending.rate().unwrap_or(f64::INFINITY);
        let received = self.receiving.rate().unwrap_or(f64::INFINITY);
        let full = received < FULL_SHARE * sent.min(2.0 * asked);
        Some(Outcome {
            bitrate: sent.min(received).min(asked),
            full_at: full.then_some(received),
            is_lossy: self.lost > 0,
        })
    }
}

/// A line through points (bits so far, time in s), by least squares: its slope is the time per bit. Fitted
/// this way round, since it is the times that jitter.
#[derive(Debug, Default)]
struct Fit {
    count: f64,
    mean_bits: f64,
    mean_time: f64,
    bits_bits: f64,
    bits_time: f64,
}

impl Fit {
    fn point(&mut self, bits: f64, time: f64) {
        self.count += 1.0;
        let off_bits = bits - self.mean_bits;
        self.mean_bits += off_bits / self.count;
        self.mean_time += (time - self.mean_time) / self.count;
        self.bits_bits += off_bits * (bits - self.mean_bits);
        self.bits_time += off_bits * (time - self.mean_time);
    }

    /// Bit/s; `None` if all came at once.
    fn rate(&self) -> Option<f64> {
        (self.bits_time > 0.0).then(|| self.bits_bits / self.bits_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::bandwidth::records::{Report, SendRecords};

    const LIMIT: f64 = 1e8;

    /// Sends `probe` in ticks of 5 ms and reports each packet as having arrived over a line of `rate`
    /// bit/s, except those that `is_lost` names.
    fn fly(prober: &mut Prober, probe: Probe, rate: f64, is_lost: fn(u32) -> bool) {
        let mut records = SendRecords::default();
        let size = probe.bytes.div_ceil(probe.packets) as u16;
        let bits = f64::from(size) * 8.0;
        let began_us = prober.flight.as_ref().unwrap().began_us;
        let mut free = began_us as f64;
        for i in 0..probe.packets {
            let due = bits * f64::from(i) / probe.bitrate as f64 * 1e6;
            let sent_us = began_us + due as u64 / 5_000 * 5_000;
            records.sent(i as u16, sent_us, size, Some(probe.cluster));
            prober.sent(probe.cluster, sent_us, size);
            free = free.max(sent_us as f64) + bits / rate * 1e6;
            match records.report(i as u16, !is_lost(i), sent_us) {
                Report::Arrived(record) => prober.reported(&record, Some(free as i64)),
                Report::Lost(record) => prober.reported(&record, None),
                other => panic!("{other:?}"),
            }
        }
    }

    fn first(prober: &mut Prober) -> Probe {
        prober.poll(0, 2_500_000, 600_000.0, LIMIT, 0).expect("a probe at the start")
    }

    #[test]
    fn the_first_probe_is_three_times_the_initial_estimate() {
        let probe = first(&mut Prober::default());
        assert_eq!(probe.bitrate, 1_800_000);
        assert!(probe.packets >= MIN_PACKETS);
    }

    #[test]
    fn a_probe_asks_for_no_more_than_is_wanted() {
        let mut prober = Prober::default();
        assert_eq!(prober.poll(0, 500_000, 600_000.0, LIMIT, 0), None, "wants nothing more");
        let probe = prober.poll(0, 800_000, 600_000.0, LIMIT, 0).unwrap();
        let ceiling = 800_000.0 * HEADROOM / crate::media::bandwidth::rate::MARGIN;
        assert!(probe.bitrate as f64 <= ceiling);
    }

    #[test]
    fn a_slow_line_is_measured() {
        let mut prober = Prober::default();
        let probe = first(&mut prober);
        fly(&mut prober, probe, 1_000_000.0, |_| false);
        let outcome = prober.judge(100_000, 0).unwrap();
        let full_at = outcome.full_at.expect("the line was full");
        assert!((full_at / 1e6 - 1.0).abs() < 0.02, "{full_at}");
        let soon = prober.poll(100_000, 2_500_000, full_at, LIMIT, 0);
        assert_eq!(soon, None, "a full line is left alone for a while");
    }

    #[test]
    fn a_fast_line_is_probed_further_at_once() {
        let mut prober = Prober::default();
        let probe = first(&mut prober);
        fly(&mut prober, probe, 1e8, |_| false);
        let outcome = prober.judge(100_000, 0).unwrap();
        assert_eq!(outcome.full_at, None);
        assert!((outcome.bitrate / probe.bitrate as f64 - 1.0).abs() < 0.1, "{outcome:?}");
        assert!(prober.poll(100_000, 9_000_000, outcome.bitrate, LIMIT, 0).is_some());
    }

    #[test]
    fn a_probe_that_is_mostly_lost_shows_nothing_and_is_repeated() {
        let mut prober = Prober::default();
        let probe = first(&mut prober);
        fly(&mut prober, probe, 1e6, |i| i % 2 == 0);
        assert_eq!(prober.judge(100_000, 0), None);
        let poll = |prober: &mut Prober, now| prober.poll(now, 2_500_000, 6e5, LIMIT, 0);
        assert_eq!(poll(&mut prober, 100_000 + AGAIN_US - 1), None);
        assert!(poll(&mut prober, 100_000 + AGAIN_US).is_some());
    }

    #[test]
    fn a_probe_that_cannot_be_sent_is_given_up() {
        let mut prober = Prober::default();
        first(&mut prober);
        assert_eq!(prober.next_us(6e5, LIMIT), Some(EXPIRY_US));
        assert_eq!(prober.judge(EXPIRY_US, 0), None);
        assert_eq!(prober.next_us(6e5, LIMIT), Some(INTERVAL_US));
    }

    #[test]
    fn no_probe_joins_a_queue() {
        let mut prober = Prober::default();
        assert_eq!(prober.poll(0, 2_500_000, 6e5, LIMIT, QUIET_US + 1), None);
        assert_eq!(prober.next_us(6e5, LIMIT), Some(RETRY_US));
        assert!(prober.poll(RETRY_US, 2_500_000, 6e5, LIMIT, 0).is_some());
    }

    #[test]
    fn raises_that_are_taken_back_make_patient() {
        let mut prober = Prober { wanted: Some(2_500_000), ..Prober::default() };
        let mut waits = Vec::new();
        for raise in 0..4 {
            let now = raise * 10_000_000;
            prober.raised(now);
            prober.dropped(now + 1_000_000);
            waits.push(prober.next_us(6e5, LIMIT).unwrap() - now - 1_000_000);
        }
        assert_eq!(waits, [1, 2, 4, 8].map(|times| 1_500_000 * times));
        prober.raised(100_000_000);
        prober.dropped(100_000_000 + CONTENT_US + 1);
        assert_eq!(prober.patience(), 1, "that raise was right");
    }
}
