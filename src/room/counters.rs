//! What an engine did and what it refused: counters instead of log lines.

use std::fmt;

use crate::id::named;
use crate::room::snapshot::{HANDSHAKE_BOUNDS, Histogram};
use crate::transport::CloseReason;

named!(
    /// Why something was dropped.
    Drop {
        /// The datagram is of no protocol that we speak.
        UnknownProtocol = "unknownProtocol",
        /// STUN for a user name that is not ours.
        UnknownUfrag = "unknownUfrag",
        /// Media, DTLS or RTCP from an address that passed no STUN check.
        UnknownAddress = "unknownAddress",
        /// STUN from an address that has not passed a check, beyond those that are looked at in a second.
        TooManyStrangers = "tooManyStrangers",
        /// STUN that is malformed or fails its integrity check.
        BadStun = "badStun",
        /// DTLS before an authenticated STUN check.
        EarlyDtls = "earlyDtls",
        /// A ClientHello beyond those that a transport may be sent.
        TooManyHellos = "tooManyHellos",
        /// DTLS that the handshake refused.
        BadDtls = "badDtls",
        /// DTLS while too much of it waits to be worked off.
        HandshakeQueueFull = "handshakeQueueFull",
        /// SRTP or SRTCP before the handshake is done.
        NoKeys = "noKeys",
        /// For a transport that has just died.
        Closed = "closed",
        /// SRTP or SRTCP with a wrong tag.
        Forged = "forged",
        /// SRTP or SRTCP seen before.
        Replayed = "replayed",
        /// More SSRCs than one transport may have.
        TooManySsrcs = "tooManySsrcs",
        /// RTP whose header, extensions or padding lie.
        MalformedRtp = "malformedRtp",
        /// RTCP that lies about its lengths.
        MalformedRtcp = "malformedRtcp",
        /// RTP that belongs to no producer (yet).
        UnknownSsrc = "unknownSsrc",
        /// RTP beyond what a producer may send.
        ProducerBitrate = "producerBitrate",
        /// No room in the send arena.
        OutboxFull = "outboxFull",
        /// No room in the queue to another shard.
        ParcelQueueFull = "parcelQueueFull",
        /// Asked for again, but not kept any more, never sent, or without RTX.
        NotInHistory = "notInHistory",
        /// Asked for again within a round trip.
        ResentLately = "resentLately",
        /// Asked for again beyond the budget for retransmissions.
        ResendBudget = "resendBudget",
        /// RTP that does not fit a datagram after rewriting.
        TooLarge = "tooLarge",
    }
);

/// Totals since the engine began.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Counters {
    drops: [u64; Drop::ALL.len()],
    /// RTP packets opened.
    pub rtp_in: u64,
    /// RTP packets sealed and sent.
    pub rtp_out: u64,
    /// Retransmissions sealed and sent.
    pub rtx_out: u64,
    /// Key-frame requests sent to publishers.
    pub key_frame_requests: u64,
    /// What receivers asked of us.
    pub asked: Asked,
    /// What we asked of publishers.
    pub asking: Asked,
    /// Transports from which DTLS has come.
    pub handshakes_begun: u64,
    /// From a transport's first datagram of DTLS to its keys, in milliseconds, by [`HANDSHAKE_BOUNDS`].
    pub handshake_times: Histogram<{ HANDSHAKE_BOUNDS.len() }>,
    /// Addresses of transports that had to make room for others.
    pub addresses_displaced: u64,
    /// Panics that were contained.
    pub panics: u64,
    closed: [u64; CloseReason::ALL.len()],
}

/// RTCP that asks for something (RFC 4585 §6.2.1, §6.3.1; RFC 5104 §4.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// NACK messages.
    pub nacks: u64,
    /// Packets that these asked for.
    pub nack_packets: u64,
    /// PLI.
    pub plis: u64,
    /// FIR, counted by entry.
    pub firs: u64,
}

impl Counters {
    /// Counts one drop.
    pub(super) fn drop(&mut self, reason: Drop) {
        self.drops[reason as usize] += 1;
    }

    /// How often something was dropped for `reason`.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }

    /// Counts a transport that died on its own.
    pub(super) fn close(&mut self, reason: CloseReason) {
        self.closed[reason as usize] += 1;
    }

    /// How many transports died on their own for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// All drops together.
    pub fn dropped_in_all(&self) -> u64 {
        self.drops.iter().sum()
    }
}

/// Drops by name, and only those that there were.
impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entry(&"rtp_in", &self.rtp_in).entry(&"rtp_out", &self.rtp_out);
        map.entry(&"rtx_out", &self.rtx_out);
        map.entry(&"key_frame_requests", &self.key_frame_requests);
        map.entry(&"addresses_displaced", &self.addresses_displaced);
        map.entry(&"panics", &self.panics);
        for reason in Drop::ALL.iter().copied().filter(|reason| self.dropped(*reason) > 0) {
            map.entry(&reason, &self.dropped(reason));
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_count() {
        let mut counters = Counters::default();
        for (times, reason) in Drop::ALL.iter().enumerate() {
            (0..times).for_each(|_| counters.drop(*reason));
        }
        for (times, reason) in Drop::ALL.iter().enumerate() {
            assert_eq!(counters.dropped(*reason), times as u64, "{reason:?}");
        }
        assert!(format!("{counters:?}").contains("Forged: "));
    }
}
