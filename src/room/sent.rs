//! What a consumer's receiver has been sent so far: for sender reports, and to send it again.

use std::time::{Duration, Instant};

use crate::id::Ssrc;
use crate::room::figures::Meter;
use crate::wire::rtcp::ReportBlock;
use crate::wire::seq::SeqNo;

/// What a sender report says about the stream so far (RFC 3550 §6.4.1).
#[derive(Debug)]
pub(super) struct Sent {
    /// All of it: packets, and payload bytes without headers and padding.
    pub(super) meter: Meter,
    /// Sequence number of the newest packet.
    pub(super) highest: SeqNo,
    /// Its timestamp.
    timestamp: u32,
    /// Middle of the last sender report's NTP timestamp, and when it left: µs since the beginning, modulo 2^32.
    report: Option<(u32, u32)>,
    /// When the consumer was made.
    born: Instant,
}

impl Sent {
    /// Nothing yet.
    pub(super) fn new(born: Instant) -> Self {
        let (meter, highest) = (Meter::default(), SeqNo(0));
        Self { meter, highest, timestamp: 0, report: None, born }
    }

    pub(super) fn packet(&mut self, seq: SeqNo, timestamp: u32, payload_len: u16, now: Instant) {
        if self.meter.packets() == 0 || seq > self.highest {
            (self.highest, self.timestamp) = (seq, timestamp);
        }
        self.meter.add(usize::from(payload_len), now);
    }

    /// Timestamp of the newest packet, and when something left last.
    pub(super) fn last(&self) -> Option<(u32, Instant)> {
        self.meter.last().map(|at| (self.timestamp, at))
    }

    /// A sender report has left, with this middle of its NTP timestamp.
    pub(super) fn reported(&mut self, ntp_middle: u32, now: Instant) {
        self.report = Some((ntp_middle, self.age(now).as_micros() as u32));
    }

    /// Whether a sender report has ever left.
    pub(super) fn is_reported(&self) -> bool {
        self.report.is_some()
    }

    /// The round trip, if `block` answers the last sender report.
    pub(super) fn round_trip(&self, block: &ReportBlock, received_at: Instant) -> Option<Duration> {
        let (_, sent_at) = self.report.filter(|(middle, _)| *middle == block.last_sr)?;
        let since = (self.age(received_at).as_micros() as u32).wrapping_sub(sent_at);
        // The kernel's clock may be a little behind ours.
        let since = u32::try_from(since.cast_signed()).ok()?;
        let held = u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536;
        Duration::from_micros(since.into()).checked_sub(Duration::from_micros(held))
    }

    /// Time since the consumer was made.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}

/// As much of a receiver's report as is of use later.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) cumulative_lost: i32,
    pub(super) jitter: u32,
    pub(super) highest_sequence: u32,
    pub(super) fraction_lost: u8,
}

impl From<&ReportBlock> for Report {
    fn from(block: &ReportBlock) -> Self {
        Self {
            cumulative_lost: block.cumulative_lost,
            jitter: block.jitter,
            highest_sequence: block.highest_sequence,
            fraction_lost: block.fraction_lost,
        }
    }
}

/// A consumer's retransmission stream (RFC 4588).
#[derive(Debug)]
pub(super) struct Rtx {
    pub(super) ssrc: Ssrc,
    /// The number of the next packet on it.
    pub(super) next: SeqNo,
}

impl Rtx {
    /// The number of the next retransmission.
    pub(super) fn number(&mut self) -> SeqNo {
        let next = self.next;
        self.next.0 += 1;
        next
    }
}
