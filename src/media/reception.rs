//! Reception statistics of one incoming stream (RFC 3550 §6.4.1, appendix A.3 and A.8).

use std::time::{Duration, Instant};

use crate::id::Ssrc;
use crate::media::clock::ntp_middle;
use crate::wire::rtcp::ReportBlock;
use crate::wire::seq::SeqNo;

/// Counts one SSRC's packets.
#[derive(Debug)]
pub struct Reception {
    clock_rate: u32,
    first: Option<SeqNo>,
    highest: SeqNo,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// Sixteen times the jitter, in timestamp units (RFC 3550 appendix A.8).
    jitter_q4: u64,
    last_transit: Option<u32>,
    epoch: Option<Instant>,
    last_arrival: Option<Instant>,
    last_sr: Option<(u32, Instant)>,
    latest: Option<ReportBlock>,
}

impl Reception {
    /// Statistics of a stream whose timestamps count `clock_rate` units per second.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            first: None,
            highest: SeqNo(0),
            received: 0,
            expected_before: 0,
            received_before: 0,
            jitter_q4: 0,
            last_transit: None,
            epoch: None,
            last_arrival: None,
            last_sr: None,
            latest: None,
        }
    }

    /// Counts one packet.
    pub fn packet(&mut self, seq: SeqNo, timestamp: u32, arrival: Instant) {
        self.first.get_or_insert(seq);
        self.highest = self.highest.max(seq);
        self.received += 1;
        self.last_arrival = Some(arrival);
        let epoch = *self.epoch.get_or_insert(arrival);
        let elapsed = arrival.saturating_duration_since(epoch);
        let units = (elapsed.as_nanos() * u128::from(self.clock_rate) / 1_000_000_000) as u32;
        let transit = units.wrapping_sub(timestamp);
        if let Some(last) = self.last_transit {
            let difference = u64::from((transit.wrapping_sub(last) as i32).unsigned_abs());
            self.jitter_q4 = self.jitter_q4 + difference - ((self.jitter_q4 + 8) >> 4);
        }
        self.last_transit = Some(transit);
    }

    /// Remembers a sender report's NTP timestamp for LSR and DLSR.
    pub fn sender_report(&mut self, ntp: u64, arrival: Instant) {
        self.last_sr = Some((ntp_middle(ntp), arrival));
    }

    /// The highest sequence number received; 0 before the first packet.
    pub fn highest(&self) -> SeqNo {
        self.highest
    }

    /// What [`Self::report`] said last; all zero before.
    pub fn latest(&self) -> ReportBlock {
        self.latest.unwrap_or(ReportBlock::empty(Ssrc(0)))
    }

    /// Whether a packet arrived within `window` before `now`.
    pub fn is_active(&self, now: Instant, window: Duration) -> bool {
        self.last_arrival.is_some_and(|last| now.saturating_duration_since(last) < window)
    }

    /// A report on the stream `ssrc`, with the loss since the last call; `None` before the first packet.
    pub fn report(&mut self, ssrc: Ssrc, now: Instant) -> Option<ReportBlock> {
        let expected = self.highest.0 - self.first?.0 + 1;
        let expected_since = expected - self.expected_before;
        let received_since = self.received - self.received_before;
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_since = expected_since.saturating_sub(received_since);
        let fraction_lost = (lost_since * 256).checked_div(expected_since).unwrap_or(0).min(255);
        let lost = expected as i64 - self.received as i64;
        let (last_sr, delay_since_last_sr) = self.last_sr.map_or((0, 0), |(middle, arrival)| {
            let delay = now.saturating_duration_since(arrival);
            (middle, (delay.as_nanos() * 65_536 / 1_000_000_000).min(u128::from(u32::MAX)) as u32)
        });
        let block = ReportBlock {
            ssrc,
            fraction_lost: fraction_lost as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: self.highest.0 as u32,
            jitter: (self.jitter_q4 >> 4) as u32,
            last_sr,
            delay_since_last_sr,
        };
        self.latest = Some(block);
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_steady_stream_has_no_loss_and_no_jitter() {
        let (start, mut reception) = (Instant::now(), Reception::new(48_000));
        for i in 0..100u64 {
            reception.packet(SeqNo(65_500 + i), (i * 960) as u32, at(start, i * 20));
        }
        let report = reception.report(Ssrc(1), at(start, 2000)).expect("packets came");
        assert_eq!((report.fraction_lost, report.cumulative_lost, report.jitter), (0, 0, 0));
        assert_eq!(report.highest_sequence, 65_599);
    }

    #[test]
    fn loss_is_told_since_the_last_report_and_in_total() {
        let (start, mut reception) = (Instant::now(), Reception::new(90_000));
        for i in (0..100).filter(|i| i % 4 != 3) {
            reception.packet(SeqNo(i), 0, start);
        }
        reception.packet(SeqNo(99), 0, start);
        let first = reception.report(Ssrc(1), start).expect("packets came");
        assert_eq!((first.cumulative_lost, first.fraction_lost), (24, 61), "24/100 of 256");
        for i in 100..200 {
            reception.packet(SeqNo(i), 0, start);
        }
        let second = reception.report(Ssrc(1), start).expect("packets came");
        assert_eq!((second.cumulative_lost, second.fraction_lost), (24, 0));
    }

    #[test]
    fn duplicates_make_the_total_negative_not_huge() {
        let (start, mut reception) = (Instant::now(), Reception::new(90_000));
        (0..5).for_each(|_| reception.packet(SeqNo(7), 0, start));
        let report = reception.report(Ssrc(1), start).expect("packets came");
        assert_eq!((report.cumulative_lost, report.fraction_lost), (-4, 0));
    }

    #[test]
    fn jitter_follows_appendix_a8() {
        let (start, mut reception) = (Instant::now(), Reception::new(1000));
        // One packet 16 ms late: D = 16, J = 16/16 = 1.
        reception.packet(SeqNo(0), 0, start);
        reception.packet(SeqNo(1), 20, at(start, 36));
        assert_eq!(reception.report(Ssrc(1), start).expect("packets came").jitter, 1);
    }

    /// Timestamps wrap, and so does their distance to the arrival.
    #[test]
    fn a_wrap_is_no_jitter() {
        let (start, mut reception) = (Instant::now(), Reception::new(1000));
        for (i, late) in [(0, 0), (1, 0), (2, 1), (3, 0)] {
            let timestamp = (1u32 << 31).wrapping_sub(20).wrapping_add(20 * i as u32);
            reception.packet(SeqNo(i), timestamp, at(start, 20 * i + late));
        }
        assert!(reception.report(Ssrc(1), start).expect("packets came").jitter <= 1);
    }

    #[test]
    fn the_last_sender_report_is_echoed() {
        let (start, mut reception) = (Instant::now(), Reception::new(90_000));
        reception.packet(SeqNo(0), 0, start);
        reception.sender_report(0x1234_5678_9abc_def0, start);
        let report = reception.report(Ssrc(1), at(start, 500)).expect("packets came");
        assert_eq!((report.last_sr, report.delay_since_last_sr), (0x5678_9abc, 32_768));
    }
}
