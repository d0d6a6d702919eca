//! Opening what the peer sent.

use super::cipher::{BadTag, Ciphers, RTCP_CLEAR_LEN, RTCP_ENCRYPTED};
use super::window::Window;
use super::{Error, Keys};
use crate::id::Ssrc;
use crate::wire::rtp;
use crate::wire::seq::SeqNo;

/// SSRCs that one transport may send RTP from, and as many for RTCP.
///
/// A client makes new ones whenever it opens a camera (6 with simulcast and RTX) or shares a screen,
/// and a call may last a day, so the bound is far above what is in use at once. None is ever
/// forgotten: RFC 3711 §3.3.2 wants a packet refused that was seen under the same key, and without
/// its window a recording of it would be let in. Only a peer who holds the keys can make this grow;
/// its tables then take 156 kB for RTP and 41 kB for RTCP.
pub const MAX_SSRCS: usize = 1024;

/// RTP packets behind the newest one of their SSRC that may still arrive. A key frame at 4 Mbit/s is
/// some hundred packets sent in one burst, any of which may be overtaken by the following frames.
pub const RTP_WINDOW: u64 = Window::<RTP_WORDS>::LEN;
const RTP_WORDS: usize = 17;

/// RTCP packets behind the newest one of their SSRC that may still arrive: twice what RFC 3711
/// §3.3.2 asks for at least.
pub const RTCP_WINDOW: u64 = Window::<RTCP_WORDS>::LEN;
const RTCP_WORDS: usize = 3;

const _: () = assert!(RTP_WINDOW == 1024 && RTCP_WINDOW == 128);
// The rollover count is guessed from the newest packet; it is unambiguous within half a circle.
const _: () = assert!(RTP_WINDOW < 1 << 15);

/// Past the last index that one master key may serve (RFC 3711 §9.2: 2^48 packets).
pub(super) const RTP_INDEX_END: u64 = 1 << 48;

/// A packet opened in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The header, as parsed before opening.
    pub header: rtp::Header,
    /// Bytes of plaintext packet (header and payload, without the tag).
    pub len: usize,
    /// The packet's extended sequence number.
    pub seq: SeqNo,
}

/// Opens what the peer sealed: its keys, rollover counters and replay windows.
///
/// State of an SSRC comes into being with its first authentic packet, never before, and allocates
/// only then. A packet that is refused must not be used: its payload may have been overwritten.
pub struct Receiver {
    ciphers: Ciphers,
    rtp_streams: Streams<RTP_WORDS>,
    rtcp_streams: Streams<RTCP_WORDS>,
}

impl Receiver {
    /// For the remote direction of `keys`.
    pub fn new(keys: &Keys) -> Self {
        Self {
            ciphers: Ciphers::new(keys.profile(), keys.remote()),
            rtp_streams: Streams::new(),
            rtcp_streams: Streams::new(),
        }
    }

    /// Opens one SRTP packet in place.
    ///
    /// The rollover count is guessed as in RFC 3711 §3.3.1, and is 0 for an SSRC that is new. So a
    /// sender must start below 2^15 (as browsers do) or its first wrap must not come before a packet
    /// of it got through.
    ///
    /// # Errors
    /// Any of [`Error`]; the receiver is then as it was before.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<Opened, Error> {
        let header = rtp::Header::parse(packet).map_err(|_| Error::Malformed)?;
        let header_len = usize::from(header.len);
        let len = packet
            .len()
            .checked_sub(self.ciphers.profile().rtp_overhead())
            .ok_or(Error::Malformed)?;
        if len < header_len {
            return Err(Error::Malformed);
        }
        let slot = self.rtp_streams.find(header.ssrc)?;
        let seq = match self.rtp_streams.window(slot) {
            Some(window) => SeqNo(window.highest()).nearest(header.sequence),
            None => SeqNo(header.sequence.into()),
        };
        self.rtp_streams.check(slot, seq.0)?;
        if seq.0 >= RTP_INDEX_END {
            return Err(Error::Forged);
        }
        self.ciphers.rtp().open_rtp(header.ssrc, seq, header_len, packet)?;
        self.rtp_streams.accept(slot, header.ssrc, seq.0);
        Ok(Opened { header, len, seq })
    }

    /// Opens one SRTCP packet in place; returns the length of the plaintext compound, which is then
    /// `packet[..len]` and at least 8 bytes long. Nothing in it but its version has been looked at.
    ///
    /// # Errors
    /// Any of [`Error`]; the receiver is then as it was before.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        let trailer = self.ciphers.rtcp().rtcp_trailer(packet).ok_or(Error::Malformed)?;
        // All three profiles encrypt SRTCP (RFC 5764 §4.1.2, RFC 7714 §14.2).
        if packet[0] >> 6 != 2 || trailer & RTCP_ENCRYPTED == 0 {
            return Err(Error::Malformed);
        }
        let ssrc = rtcp_ssrc(packet).ok_or(Error::Malformed)?;
        let index = u64::from(trailer & !RTCP_ENCRYPTED);
        let slot = self.rtcp_streams.find(ssrc)?;
        self.rtcp_streams.check(slot, index)?;
        self.ciphers.rtcp().open_rtcp(ssrc, trailer, packet)?;
        self.rtcp_streams.accept(slot, ssrc, index);
        Ok(packet.len() - self.ciphers.profile().rtcp_overhead())
    }
}

impl From<BadTag> for Error {
    fn from(BadTag: BadTag) -> Self {
        Self::Forged
    }
}

/// The SSRC of the sender of the first packet in an RTCP compound (RFC 3550 §6.4).
pub(super) fn rtcp_ssrc(packet: &[u8]) -> Option<Ssrc> {
    let header = packet.first_chunk::<RTCP_CLEAR_LEN>()?;
    header.last_chunk().map(|&bytes| Ssrc(u32::from_be_bytes(bytes)))
}

/// The replay windows by SSRC.
///
/// Sorted by SSRC rather than hashed: a peer chooses its SSRCs and could make a fast hash collide,
/// while ten comparisons are the most that this ever takes.
struct Streams<const WORDS: usize> {
    sorted: Vec<(Ssrc, Window<WORDS>)>,
}

/// Where an SSRC's window is, or where it will be. Holds until the next [`Streams::accept`].
#[derive(Clone, Copy)]
enum Slot {
    Known(usize),
    New(usize),
}

impl<const WORDS: usize> Streams<WORDS> {
    fn new() -> Self {
        Self { sorted: Vec::new() }
    }

    /// The slot of `ssrc`.
    fn find(&self, ssrc: Ssrc) -> Result<Slot, Error> {
        match self.sorted.binary_search_by_key(&ssrc, |&(known, _)| known) {
            Ok(at) => Ok(Slot::Known(at)),
            Err(_) if self.sorted.len() >= MAX_SSRCS => Err(Error::TooManySsrcs),
            Err(at) => Ok(Slot::New(at)),
        }
    }

    fn window(&self, slot: Slot) -> Option<&Window<WORDS>> {
        match slot {
            Slot::Known(at) => Some(&self.sorted[at].1),
            Slot::New(_) => None,
        }
    }

    fn check(&self, slot: Slot, index: u64) -> Result<(), Error> {
        match self.window(slot) {
            Some(window) if !window.is_fresh(index) => Err(Error::Replayed),
            _ => Ok(()),
        }
    }

    /// Remembers an authentic packet.
    fn accept(&mut self, slot: Slot, ssrc: Ssrc, index: u64) {
        match slot {
            Slot::Known(at) => self.sorted[at].1.insert(index),
            Slot::New(at) => self.sorted.insert(at, (ssrc, Window::starting_at(index))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::super::cipher::Cipher;
    use super::super::testing::{SSRC, keys, rtp};
    use super::*;

    /// RFC 3711 §9.2: behind index 2^48 - 1 there is nothing, even if a sender went on.
    #[test]
    fn nothing_follows_the_last_index() {
        for profile in Profile::ALL {
            let keys = keys(profile);
            let mut receiver = Receiver::new(&keys);
            let slot = receiver.rtp_streams.find(Ssrc(SSRC)).unwrap();
            receiver.rtp_streams.accept(slot, Ssrc(SSRC), RTP_INDEX_END - 2);
            let mut seal = |seq| {
                let mut packet = rtp(SSRC, seq, 20);
                packet.resize(packet.len() + profile.rtp_overhead(), 0);
                Cipher::rtp(profile, keys.remote()).seal_rtp(Ssrc(SSRC), seq, 24, &mut packet);
                receiver.open_rtp(&mut packet).map(|opened| opened.seq)
            };
            assert_eq!(seal(SeqNo(RTP_INDEX_END - 1)), Ok(SeqNo(RTP_INDEX_END - 1)));
            assert_eq!(seal(SeqNo(RTP_INDEX_END)), Err(Error::Forged));
        }
    }
}
