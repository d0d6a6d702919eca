//! What a consumer's receiver has been sent so far: for sender reports, and to send it again.

use std::time::{Duration, Instant};

use crate::id::Ssrc;
use crate::media::history::RecentResends;
use crate::room::figures::Meter;
use crate::wire::rtcp::ReportBlock;
use crate::wire::seq::SeqNo;

/// What a sender report says about the stream so far (RFC 3550 §6.4.1).
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// All of it: packets, and payload bytes without headers and padding.
    pub(super) meter: Meter,
    /// Timestamp of the newest packet and when it left.
    pub(super) last: Option<(u32, Instant)>,
    /// Sequence number of the newest packet.
    pub(super) highest: SeqNo,
    /// Middle of the last sender report's NTP timestamp, and when it left.
    pub(super) report: Option<(u32, Instant)>,
}

impl Sent {
    pub(super) fn packet(&mut self, seq: SeqNo, timestamp: u32, payload_len: u16, now: Instant) {
        self.meter.add(usize::from(payload_len), now);
        if self.last.is_none() || seq > self.highest {
            self.highest = seq;
            self.last = Some((timestamp, now));
        }
    }

    /// The round trip, if `block` answers the last sender report.
    pub(super) fn round_trip(&self, block: &ReportBlock, now: Instant) -> Option<Duration> {
        let (_, sent_at) = self.report.filter(|(middle, _)| *middle == block.last_sr)?;
        let held = u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536;
        now.saturating_duration_since(sent_at).checked_sub(Duration::from_micros(held))
    }
}

/// A consumer's retransmission stream (RFC 4588).
#[derive(Debug)]
pub(super) struct Rtx {
    pub(super) ssrc: Ssrc,
    next: SeqNo,
    recent: RecentResends,
}

impl Rtx {
    pub(super) fn new(ssrc: Ssrc, first: SeqNo) -> Self {
        Self { ssrc, next: first, recent: RecentResends::default() }
    }

    /// Whether `seq` was not sent again within the last round trip.
    pub(super) fn may_resend(&mut self, seq: SeqNo, now: Instant, rtt: Duration) -> bool {
        self.recent.may_resend(seq, now, rtt)
    }

    /// The number of the next retransmission.
    pub(super) fn number(&mut self) -> SeqNo {
        let next = self.next;
        self.next.0 += 1;
        next
    }
}
