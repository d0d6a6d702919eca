//! Sealing what we send.

use super::Keys;
use super::Profile;
use super::cipher::{Cipher, RTCP_CLEAR_LEN, RTCP_ENCRYPTED};
use super::receiver::{RTP_INDEX_END, rtcp_ssrc};
use crate::wire::rtp;
use crate::wire::seq::SeqNo;

/// Seals what we send.
///
/// It keeps nothing per RTP stream: whoever numbers the packets knows the rollover count.
pub struct Sender {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    /// The next SRTCP index; one sequence for all of our SSRCs, which RFC 3711 §3.4 leaves open and
    /// which can only make an index rarer.
    rtcp_index: u32,
}

impl Sender {
    /// For the local direction of `keys`.
    pub fn new(keys: &Keys) -> Self {
        Self {
            profile: keys.profile(),
            rtp: Cipher::rtp(keys.profile(), keys.local()),
            rtcp: Cipher::rtcp(keys.profile(), keys.local()),
            rtcp_index: 0,
        }
    }

    /// Seals the RTP packet `buffer[..len]` in place; returns the sealed length.
    ///
    /// Two different packets must never be sealed with the same SSRC and `seq` by one sender (or by
    /// two with the same keys): whoever sees both learns the difference of the plaintexts, and with
    /// GCM enough to forge (RFC 7714 §8.4, RFC 3711 §9.1). A difference in the header counts. To send
    /// a packet again, keep its sealed bytes or wrap it as RTX.
    ///
    /// `None` if `buffer` has no room for the tag, the header is malformed or has another sequence
    /// number than `seq`, or `seq` is past the 2^48 that a key may serve (RFC 3711 §9.2).
    pub fn seal_rtp(&self, seq: SeqNo, buffer: &mut [u8], len: usize) -> Option<usize> {
        let header = rtp::Header::parse(buffer.get(..len)?).ok()?;
        if header.sequence != seq.wire() || seq.0 >= RTP_INDEX_END {
            return None;
        }
        let packet = buffer.get_mut(..len + self.profile.rtp_overhead())?;
        self.rtp.seal_rtp(header.ssrc, seq, header.len.into(), packet)?;
        Some(packet.len())
    }

    /// Seals the RTCP compound `buffer[..len]` in place; returns the sealed length.
    ///
    /// `None` if `buffer` has no room for tag and index, the compound is shorter than 8 bytes or not
    /// version 2, or 2^31 were sealed before: the index never wraps (RFC 3711 §9.2).
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let compound = buffer.get(..len)?;
        let ssrc = rtcp_ssrc(compound)?;
        if compound[0] >> 6 != 2 || self.rtcp_index >= RTCP_ENCRYPTED {
            return None;
        }
        let packet = buffer.get_mut(..len + self.profile.rtcp_overhead())?;
        self.rtcp.seal_rtcp(ssrc, self.rtcp_index, packet)?;
        self.rtcp_index += 1;
        Some(packet.len())
    }
}

const _: () = assert!(RTCP_CLEAR_LEN == 8);
