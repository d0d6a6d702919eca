//! What an engine did and what it refused: counters instead of log lines.

use std::fmt;

/// Why something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// The datagram is of no protocol that we speak.
    UnknownProtocol,
    /// STUN for a user name that is not ours.
    UnknownUfrag,
    /// Media, DTLS or RTCP from an address that passed no STUN check.
    UnknownAddress,
    /// STUN that is malformed or fails its integrity check.
    BadStun,
    /// DTLS before an authenticated STUN check.
    EarlyDtls,
    /// DTLS that the handshake refused.
    BadDtls,
    /// DTLS while too much of it waits to be worked off.
    HandshakeQueueFull,
    /// SRTP or SRTCP before the handshake is done.
    NoKeys,
    /// For a transport that has just died.
    Closed,
    /// SRTP or SRTCP with a wrong tag.
    Forged,
    /// SRTP or SRTCP seen before.
    Replayed,
    /// More SSRCs than one transport may have.
    TooManySsrcs,
    /// RTP whose header, extensions or padding lie.
    MalformedRtp,
    /// RTCP that lies about its lengths.
    MalformedRtcp,
    /// RTP that belongs to no producer (yet).
    UnknownSsrc,
    /// No room in the send arena.
    OutboxFull,
    /// No room in the queue to another shard.
    ParcelQueueFull,
    /// Asked for again, but not kept any more, never sent, or without RTX.
    NotInHistory,
    /// Asked for again within a round trip.
    ResentLately,
    /// Asked for again beyond the budget for retransmissions.
    ResendBudget,
    /// RTP that does not fit a datagram after rewriting.
    TooLarge,
}

impl Drop {
    /// Every reason, in the order of the enum.
    const ALL: [Self; Self::TooLarge as usize + 1] = [
        Self::UnknownProtocol,
        Self::UnknownUfrag,
        Self::UnknownAddress,
        Self::BadStun,
        Self::EarlyDtls,
        Self::BadDtls,
        Self::HandshakeQueueFull,
        Self::NoKeys,
        Self::Closed,
        Self::Forged,
        Self::Replayed,
        Self::TooManySsrcs,
        Self::MalformedRtp,
        Self::MalformedRtcp,
        Self::UnknownSsrc,
        Self::OutboxFull,
        Self::ParcelQueueFull,
        Self::NotInHistory,
        Self::ResentLately,
        Self::ResendBudget,
        Self::TooLarge,
    ];
}

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
        for reason in Drop::ALL.into_iter().filter(|reason| self.dropped(*reason) > 0) {
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
        for (times, reason) in Drop::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counters.drop(reason));
        }
        for (times, reason) in Drop::ALL.into_iter().enumerate() {
            assert_eq!(counters.dropped(reason), times as u64, "{reason:?}");
        }
        assert!(format!("{counters:?}").contains("Forged: "));
    }
}
