//! Sealing what we send.

use super::Keys;
use super::cipher::{Ciphers, RTCP_ENCRYPTED};
use super::receiver::{RTP_INDEX_END, rtcp_ssrc};
use crate::wire::rtp;
use crate::wire::seq::SeqNo;

/// Seals what we send.
///
/// It keeps nothing per RTP stream: whoever numbers the packets knows the rollover count.
pub struct Sender {
    ciphers: Ciphers,
    /// The next SRTCP index; one sequence for all of our SSRCs, which RFC 3711 §3.4 leaves open and
    /// which can only make an index rarer.
    rtcp_index: u32,
}

impl Sender {
    /// For the local direction of `keys`.
    pub fn new(keys: &Keys) -> Self {
        Self { ciphers: Ciphers::new(keys.profile(), keys.local()), rtcp_index: 0 }
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
        let packet = buffer.get_mut(..len + self.ciphers.profile().rtp_overhead())?;
        self.ciphers.rtp().seal_rtp(header.ssrc, seq, header.len.into(), packet)?;
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
        let packet = buffer.get_mut(..len + self.ciphers.profile().rtcp_overhead())?;
        self.ciphers.rtcp().seal_rtcp(ssrc, self.rtcp_index, packet)?;
        self.rtcp_index += 1;
        Some(packet.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SSRC, keys, rtcp, rtp, seal_rtcp};
    use super::super::{Profile, RTCP_WINDOW, Receiver};
    use super::*;

    fn sender(profile: Profile) -> Sender {
        Sender::new(&keys(profile))
    }

    #[test]
    fn needs_room_for_what_it_adds() {
        for profile in Profile::ALL {
            let mut sender = sender(profile);
            let (plain, compound) = (rtp(SSRC, SeqNo(3), 50), rtcp(SSRC, 2));
            let mut buffer = vec![0; plain.len() + profile.rtp_overhead()];
            buffer[..plain.len()].copy_from_slice(&plain);
            let short = buffer.len() - 1;
            assert_eq!(sender.seal_rtp(SeqNo(3), &mut buffer[..short], plain.len()), None);
            assert_eq!(buffer[..plain.len()], plain, "a refused packet is left alone");
            assert_eq!(sender.seal_rtp(SeqNo(3), &mut buffer, short + 2), None);
            assert_eq!(sender.seal_rtp(SeqNo(3), &mut buffer, plain.len()), Some(short + 1));

            let mut buffer = vec![0; compound.len() + profile.rtcp_overhead()];
            buffer[..compound.len()].copy_from_slice(&compound);
            let short = buffer.len() - 1;
            assert_eq!(sender.seal_rtcp(&mut buffer[..short], compound.len()), None);
            assert_eq!(sender.seal_rtcp(&mut buffer, compound.len()), Some(short + 1));
        }
    }

    #[test]
    fn refuses_headers_that_lie() {
        let mut sender = sender(Profile::AeadAes128Gcm);
        let mut buffer = rtp(SSRC, SeqNo(3), 50);
        let len = buffer.len();
        buffer.resize(len + 100, 0);
        assert_eq!(sender.seal_rtp(SeqNo(4), &mut buffer, len), None, "another number");
        assert_eq!(sender.seal_rtp(SeqNo(3), &mut buffer, 11), None);
        assert_eq!(sender.seal_rtp(SeqNo(3), &mut buffer, 23), None, "inside the extension");
        buffer[0] = 0x40;
        assert_eq!(sender.seal_rtp(SeqNo(3), &mut buffer, len), None, "version 1");
        assert_eq!(sender.seal_rtcp(&mut buffer, len), None, "version 1");
        buffer[0] = 0x80;
        assert_eq!(sender.seal_rtcp(&mut buffer, 7), None);
        assert!(sender.seal_rtcp(&mut buffer, 8).is_some());
    }

    /// RFC 3711 §9.2: no index is used twice, so the last one is the end.
    #[test]
    fn stops_at_the_last_index() {
        for profile in Profile::ALL {
            let (mut sender, mut buffer) = (sender(profile), rtcp(SSRC, 0));
            buffer.resize(100, 0);
            sender.rtcp_index = (1 << 31) - 1;
            let sealed = seal_rtcp(&mut sender, &rtcp(SSRC, 0));
            assert_eq!(sender.seal_rtcp(&mut buffer, 8), None);
            assert_eq!(sender.seal_rtcp(&mut buffer, 8), None);
            let mut receiver = Receiver::new(&keys(profile).swapped());
            assert_eq!(receiver.open_rtcp(&mut sealed.clone()), Ok(8));

            let last = SeqNo((1 << 48) - 1);
            let mut buffer = rtp(SSRC, last, 10);
            let len = buffer.len();
            buffer.resize(100, 0);
            assert!(sender.seal_rtp(last, &mut buffer, len).is_some());
            let over = SeqNo(last.0 + 1);
            buffer[..len].copy_from_slice(&rtp(SSRC, over, 10));
            assert_eq!(sender.seal_rtp(over, &mut buffer, len), None);
        }
    }

    #[test]
    fn each_compound_has_the_next_index() {
        let mut sender = sender(Profile::AeadAes256Gcm);
        for index in 0..=RTCP_WINDOW as u32 {
            let sealed = seal_rtcp(&mut sender, &rtcp(index, 1));
            assert_eq!(sealed[sealed.len() - 4..], (1 << 31 | index).to_be_bytes());
        }
    }
}
